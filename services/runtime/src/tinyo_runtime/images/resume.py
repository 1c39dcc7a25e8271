"""A layer that did not come completely is continued: by the next pull, also after a crash of this service.

Each blob that comes has a second name in `partial/`, DIGEST.NUMBER, from its first byte until it has its place. What
is left there when a pull ends, however it ends, is read first by the next one, hashed and unpacked like all else,
and the registry is asked for the rest. Bytes that turn out to be wrong are deleted, and all is fetched anew, once.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, failures, progress
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

log = logging.getLogger(__name__)

#: Fewer bytes are fetched again as fast; more than so many in all are not kept, nor older ones (seconds).
LEAST, MOST, AGE = 1 << 20, 8 << 30, 7 * 86400
_CHUNK = 1 << 18


class Resuming(Base):
    """Keeps what came of layers, and begins with it."""

    def __init__(self) -> None:
        super().__init__()
        self.partial = self.root / "partial"
        self.partial.mkdir(mode=0o700, exist_ok=True)
        #: What downloads under way write, and what they continue, by digest.
        self._writing: dict[str, set[Path]] = {}
        self._continued: dict[str, Path] = {}
        self.tidy()

    def leftovers(self) -> list[Path]:
        """All that earlier downloads left; the newest first."""
        busy = set().union(*self._writing.values(), self._continued.values())
        left = [path for path in self.partial.iterdir() if path not in busy]
        return sorted(left, key=lambda path: path.stat().st_mtime, reverse=True)

    def tidy(self) -> None:
        """Deletes what is not worth keeping."""
        total = 0
        for path in self.leftovers():
            size, age = path.stat().st_size, time.time() - path.stat().st_mtime
            digest = path.name.partition(".")[0].replace("-", ":", 1)
            if age > AGE or total + size > MOST or size < LEAST or self.blob(digest).exists():
                _drop(path)
            else:
                total += size

    def _left_of(self, digest: str) -> list[Path]:
        return [path for path in self.leftovers() if path.name.startswith(_name(digest))]

    async def image(self, reference: Reference, platform: Document) -> str:
        """The same digest; when the disk cannot take it, nothing of it stays on the disk."""
        try:
            return await super().image(reference, platform)
        except Exception as error:
            if failures.is_full(error):
                for path in self.leftovers():
                    _drop(path)
            raise

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Gives a layer its place; if what was kept of it is wrong, once more from the beginning."""
        digest = layer["digest"]
        try:
            await self._layer(reference, layer, diff_id)
        except TinyoError as error:
            if error.reason != "IMAGE_CORRUPT" or not self._continued.pop(digest, None):
                raise
            progress.current().restarts()
            log.warning("what was kept of %s is wrong, and fetched again: %s", digest, error)
            await self._layer(reference, layer, diff_id)
        finally:
            self._continued.pop(digest, None)
            self.tidy()

    async def _layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Gives a layer its place. What came of it stays when more of it may come later."""
        stays = False
        try:
            await super().layer(reference, layer, diff_id)
        except BaseException as error:
            stays = failures.may_pass(error)
            raise
        finally:
            written = self._writing.pop(layer["digest"], set())
            for path in () if stays else {*written, *self._left_of(layer["digest"])}:
                _drop(path)

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word; what comes meanwhile gets its second name."""
        digest = layer["digest"]
        usable = [path for path in self._left_of(digest) if path.stat().st_size <= layer["size"]]
        if usable:
            self._continued[digest] = max(usable, key=lambda path: path.stat().st_size)
        second = self.partial / f"{_name(digest)}.{folder.name}"
        (folder / "blob").touch()
        os.link(folder / "blob", second)
        self._writing.setdefault(digest, set()).add(second)
        return await super().unpack(reference, layer, diff_id, folder)

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, the first of them from the disk."""
        count = 0
        if kind == "blobs" and (source := self._continued.get(content["digest"])):
            progress.current().is_here(source.stat().st_size)
            with source.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    count += len(chunk)
                    yield chunk
            _drop(source)  # the download has all of it by now
        answers.kept.set(count)
        if not count or count < content["size"]:
            async with aclosing(super().fetch(reference, kind, content)) as chunks:
                async for chunk in chunks:
                    yield chunk


def _drop(path: Path) -> None:
    """Deletes what is of no use. Where it cannot be, it stays: nobody minds, and the next start tries again."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot delete %s: %s", path, error)


def _name(digest: str) -> str:
    return digest.replace(":", "-")
