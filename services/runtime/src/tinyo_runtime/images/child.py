"""The confined process that unpacks: it never outlives who started it."""

import asyncio
from types import TracebackType

from tinyo_runtime.images import progress


class ended:
    """Afterwards the process has ended: by itself, or killed when what was done meanwhile failed.

    A process that does not want to read the rest has said why on its standard output: that is no failure here.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._layer = progress.current()

    async def __aenter__(self) -> None:
        self._layer.unpacker = self._process

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stopped_reading = isinstance(error, BrokenPipeError | ConnectionResetError)
        try:
            if error and not stopped_reading:
                self._kill()
            elif self._process.stdin:
                self._process.stdin.close()
            await self._process.wait()
        except BaseException:
            self._kill()
            await self._process.wait()
            raise
        return stopped_reading

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
