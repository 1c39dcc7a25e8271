"""Clears away what nothing needs: images without a reference, and blobs and layers that are left of others.

What counts as needed: every entry of the index that stays, every image of a container, and whatever has a lease,
because work under way relies on it. A blob that nobody names yet may belong to a tool that writes it just now.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, disk, failures, names
from tinyo_runtime.images.disk import allotted
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.careful import Careful
    from tinyo_runtime.images.shelf import Shelf

#: Seconds in which a tool that wrote a blob will have named it.
GRACE = 3600


class InUse(NamedTuple):
    """What containers need."""

    #: Digests of manifests of the containers of this runtime.
    here: Collection[str] = ()
    #: Digests and references of containers that somebody else knows.
    elsewhere: Collection[str] = ()

    def digests(self) -> set[str]:
        """Digests of all of them; references are no digests."""
        return {*self.here, *self.elsewhere}

    def references(self) -> set[str]:
        """Complete references of those whose digest is not known yet."""
        found = set()
        for text in self.elsewhere:
            try:
                found.add(str(Reference.parse(text)))
            except TinyoError:  # a digest, or a name that no image has
                continue
        return found


class Plan(NamedTuple):
    """What goes and what stays."""

    removed: list[Document]
    kept: list[Document]
    #: Blobs and folders of layers that go, and what is kept of downloads that were cut off.
    paths: set[Path]


async def prune(
    images: "Careful",
    in_use: Callable[[], InUse],
    *,
    all: bool,
    dry_run: bool,
    only: list[Document] | None = None,
) -> tuple[list[Image], int]:
    """What went, and the bytes that this frees; with `dry_run` what would. Of the entries of the index none goes
    but `only`. Raises IMAGE_CORRUPT."""
    planned = plan(images, in_use(), all=all, only=only)
    sizes = await asyncio.to_thread(lambda: {path: allotted(path) for path in planned.paths})
    removed = [*catalog.shown(images, planned.removed)]
    if not dry_run:
        # Once more: a pull or a container may have come meanwhile.
        planned = plan(images, in_use(), all=all, only=planned.removed)
        removed = [*catalog.shown(images, planned.removed)]
        if planned.removed:
            names.save(images, planned.kept)
        images.discard(planned.paths & sizes.keys())
    return removed, sum(sizes.get(path, 0) for path in planned.paths)


def plan(images: "Careful", in_use: InUse, *, all: bool, only: list[Document] | None = None) -> Plan:
    """What a prune would do now; of the entries it removes none but `only`. Raises IMAGE_CORRUPT."""
    digests, references, leases = in_use.digests(), in_use.references(), set(images.wanted)
    removed: list[Document] = []
    kept: list[Document] = []
    for entry in names.entries(images):
        digest, name = str(entry.get("digest")), names.name_of(entry)
        needed = catalog.needs(images, digest)
        leased = not leases.isdisjoint([digest, *needed.manifests])
        stays = (name and not all) or name in references or leased or not needed.blobs.isdisjoint(digests)
        (kept if stays or (only is not None and entry not in only) else removed).append(entry)
    paths = unneeded(images, kept, removed, in_use)
    return Plan(removed, kept, paths.union(images.leftovers()))


def unneeded(images: "Shelf", kept: list[Document], removed: list[Document], in_use: InUse) -> set[Path]:
    """Blobs and folders of layers that nothing needs. Raises IMAGE_CORRUPT when that cannot be known."""
    blobs, layers = set(images.wanted), set(images.wanted)
    ours = {str(entry.get("digest")) for entry in kept if names.is_ours(entry)} | {*in_use.here}
    for digest in {*(str(entry.get("digest")) for entry in kept), *in_use.digests()}:
        needed = catalog.needs(images, digest)
        if needed.unreadable and digest in ours:
            called = catalog.references_of([entry for entry in kept if entry.get("digest") == digest])
            raise failures.unreadable(called[0] if called else digest)
        blobs |= needed.blobs
        layers |= needed.layers
    left = set().union(*(catalog.needs(images, str(entry.get("digest"))).blobs for entry in removed))
    folders = {images.folder(diff_id) for diff_id in layers}
    return {
        *(path for path in (images.root / "layers").iterdir() if path not in folders),
        *(
            path
            for path in disk.blobs(images.root)
            if (digest := f"{path.parent.name}:{path.name}") not in blobs
            and (digest in left or _is_old(path))
        ),
    }


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > GRACE
    except FileNotFoundError:  # a temporary name of another tool
        return False
