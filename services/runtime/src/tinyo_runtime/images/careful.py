"""Everything that a pull needs when not all goes well, and all else that is done with images.

Each of the bases adds one concern to the steps of `Images`, and calls the step that comes after it:
sharing before anything comes, as long as there is room, verifying whatever comes, from here, an archive or a registry,
continuing what was cut off, with patience, from mirrors first, no slower than can be meant, and as somebody whom
they know.
"""

from pathlib import Path

from tinyo.v1.image_pb2 import LAYER_STATE_FLUSHING

from tinyo_runtime.images import collector, disk, failures, progress
from tinyo_runtime.images.accounts import Accounts
from tinyo_runtime.images.headroom import Headroom
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.imports import Imports
from tinyo_runtime.images.leases import Leases
from tinyo_runtime.images.mirrors import Mirrors
from tinyo_runtime.images.nursery import Nursed
from tinyo_runtime.images.pace import Pace
from tinyo_runtime.images.patience import Patience
from tinyo_runtime.images.present import Present
from tinyo_runtime.images.push import Push
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.resume import Resuming
from tinyo_runtime.images.sharing import Sharing
from tinyo_runtime.images.shelf import Shelf
from tinyo_runtime.images.verify import Verified


class Careful(
    Shelf,
    Sharing,
    Push,
    Headroom,
    Nursed,
    Verified,
    Present,
    Imports,
    Resuming,
    Patience,
    Mirrors,
    Pace,
    Accounts,
    Leases,
):
    """Leaves nothing behind, and says what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._disk = disk.Disk(self.root)

    async def image(self, reference: Reference, platform: Document) -> str:
        """The same digest, of an image that was used just now. Raises TinyoError."""
        with failures.explained(reference):
            digest = await super().image(reference, platform)
        collector.used(self, digest)
        return digest

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word, when all has reached the disk; what was not finished is deleted in the background."""
        try:
            answer = await super().unpack(reference, layer, diff_id, folder)
            progress.current().becomes(LAYER_STATE_FLUSHING)
            await self._disk.sync()
            return answer
        except BaseException:
            self.trash.discard(*folder.iterdir())
            raise

    def write(self, path: Path, data: bytes) -> None:
        """The same, and its name has reached the disk as well; before an index, what it names."""
        if path.name == "index.json":
            disk.flush(self.root / "layers")
        try:
            super().write(path, data)
        except BaseException:
            (self.root / "pulling" / path.name).unlink(missing_ok=True)
            raise
        disk.flush(path.parent)
