"""Pulls and imports stop before the disk is full, so that all else on it goes on; and what takes images away needs no room.

A little room is kept in `ballast` for the one file that must be written then: the index that names fewer images.
"""

import errno
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.images import failures
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.marks import Level, Limits
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Seconds between two looks at the disk while something comes.
INTERVAL = 0.1
_BALLAST = 1 << 18


class Headroom(Base):
    """Looks at the disk before a layer comes, and while it comes."""

    def __init__(self) -> None:
        super().__init__()
        #: What the administrator says; without that, the disk may become full.
        self.limits = Limits()
        self._ballast = self.root / "ballast"
        self._load()

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Gives a layer its place. Raises DISK_FULL when it cannot have one: unpacked it is not smaller."""
        self._check(2 * layer["size"])
        await super().layer(reference, layer, diff_id)

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word, if what was unpacked left enough of the disk."""
        answer = await super().unpack(reference, layer, diff_id, folder)
        self._check(0)
        return answer

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, unless they, and what becomes of them, are too many for the disk."""
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            async for chunk in self.spared(chunks) if kind == "blobs" else chunks:
                yield chunk

    async def spared(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The same bytes, as long as the disk has room. Raises DISK_FULL."""
        looked = -INTERVAL
        async for chunk in chunks:
            if time.monotonic() - looked > INTERVAL:
                self._check(0)
                looked = time.monotonic()
            yield chunk

    def _check(self, more: int) -> None:
        level = Level.of(self.root)
        if lacking := self.limits.lacking(level, more):
            raise failures.no_room(self.root, level.percent, lacking)

    def write(self, path: Path, data: bytes) -> None:
        """A small file. For an index that becomes shorter there is room on a full disk too."""
        try:
            super().write(path, data)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT) and self._ballast.exists()
            if not full or not path.exists() or len(data) >= path.stat().st_size:
                raise
            self._ballast.unlink()
            super().write(path, data)
        else:
            self._load()

    def _load(self) -> None:
        """Takes a little room, if there is any."""
        if self._ballast.exists():
            return
        try:
            with open(self._ballast, "xb") as file:
                os.posix_fallocate(file.fileno(), 0, _BALLAST)
        except OSError:  # the next write tries again
            self._ballast.unlink(missing_ok=True)
