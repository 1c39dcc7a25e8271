"""The latest changes, numbered, for whoever watches."""

import asyncio
import time
from collections.abc import AsyncIterator

from tinyo.runtime.v1.runtime_pb2 import ContainerState, WatchResponse

from tinyo_runtime import failures

#: Changes that are kept for watchers that come back.
KEPT = 4096


class Changes:
    """Numbers begin with the clock's microseconds, so that they never go back across restarts and a watcher of
    an earlier runtime notices that it missed something."""

    def __init__(self) -> None:
        self.sequence = time.time_ns() // 1000
        self._kept: list[WatchResponse] = []
        self._added = asyncio.Event()

    def add(self, state: ContainerState, *, deleted: bool = False) -> None:
        """Numbers a change, copies it, and wakes the watchers."""
        self.sequence += 1
        self._kept.append(WatchResponse(sequence=self.sequence, state=state, deleted=deleted))
        del self._kept[:-KEPT]
        self._added.set()
        self._added = asyncio.Event()

    async def watch(self, after: int) -> AsyncIterator[WatchResponse]:
        """Every change after that number, for ever. OUT_OF_RANGE when some are no longer kept."""
        while True:
            first = self.sequence - len(self._kept)
            if not first <= after <= self.sequence:
                raise failures.changes_gone(after, first)
            added = self._added
            for change in self._kept[after - first :]:
                after = change.sequence
                yield change
            await added.wait()
