"""A blob on its way out: read from the disk piece by piece, and compared with its digest before its last bytes go."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from tinyo_runtime.images import digests, disk

_CHUNK = 1 << 20


class Damaged(Exception):
    """A blob that is here is not what its digest says; the text says how."""

    def __init__(self, what: str, identity: os.stat_result | None = None) -> None:
        super().__init__(what)
        self._identity = identity

    def remove(self, path: Path) -> None:
        """Deletes the file that was read, unless another one has its place by now."""
        if self._identity:
            disk.remove(path, self._identity)


class Content:
    """The bytes of a blob, and of nothing else: who wants the last of them has got the right ones before."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        """Opens it, so that it stays readable whoever deletes it meanwhile. Raises Damaged and OSError."""
        self.digest, self.size = digest, size
        #: Bytes that have been given away; who begins anew with a receiver sets it to 0.
        self.given = 0
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise Damaged("is missing") from None
        self._identity = os.fstat(self._file.fileno())
        if self._identity.st_size != size:
            self._file.close()
            raise Damaged(f"has {self._identity.st_size} bytes instead of {size}", self._identity)
        self._rewind()

    def close(self) -> None:
        """Ends reading."""
        self._file.close()

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Bytes from `start` to before `end`. What comes before is read again unless it was read just now, because
        the digest is that of all bytes. Raises Damaged instead of the last bytes when they have another digest."""
        if start != self._position:
            self._rewind()
        while self._position < start:
            await asyncio.to_thread(self._next, start)
        if self._position == self.size:
            self._verify()
        while self._position < end:
            chunk = await asyncio.to_thread(self._next, end)
            self.given = max(self.given, self._position)
            yield chunk

    def _rewind(self) -> None:
        self._file.seek(0)
        self._position, self._read = 0, digests.Digest(self.digest)

    def _next(self, end: int) -> bytes:
        chunk = self._file.read(min(_CHUNK, end - self._position))
        if not chunk:
            raise Damaged(f"ends after {self._position} of {self.size} bytes", self._identity)
        self._read.update(chunk)
        self._position += len(chunk)
        if self._position == self.size:
            self._verify()
        return chunk

    def _verify(self) -> None:
        if (actual := str(self._read)) != self.digest:
            what = f"is corrupt: its {self.size} bytes have the digest {actual}"
            raise Damaged(what, self._identity)
