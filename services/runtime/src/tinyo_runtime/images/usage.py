"""What images take on the disk. What several images need is there once, and is counted so."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, disk, prune
from tinyo_runtime.images.catalog import Held
from tinyo_runtime.images.disk import allotted
from tinyo_runtime.images.image import Document

if TYPE_CHECKING:
    from tinyo_runtime.images.careful import Careful
    from tinyo_runtime.images.shelf import Shelf


class Usage(NamedTuple):
    """Bytes of one image."""

    held: Held
    #: Of what no other image needs.
    own: int
    shared: int
    in_use: bool


class Total(NamedTuple):
    """Bytes of all."""

    images: list[Usage]
    blobs: int
    layers: int
    #: What a prune would free, and what one of all unused images would.
    prunable: int
    prunable_all: int


async def measure(images: "Careful", in_use: prune.InUse) -> Total:
    """What all images take at this moment."""
    held = catalog.held(images)
    places = [_places(images, one.entries) for one in held]
    count = Counter(path for paths in places for path in paths)
    blobs = [*disk.blobs(images.root), *images.leftovers()]
    layers = [*(images.root / "layers").iterdir()]
    doomed, all_doomed = (_doomed(images, in_use, all=all) for all in (False, True))
    sizes = await asyncio.to_thread(lambda: {path: allotted(path) for path in (*blobs, *layers)})

    def total(paths: "set[Path] | list[Path]") -> int:
        return sum(sizes.get(path, 0) for path in paths)

    usages = [
        Usage(
            one,
            total([path for path in paths if count[path] == 1]),
            total([path for path in paths if count[path] > 1]),
            not _blobs(images, one.entries).isdisjoint(in_use.digests()),
        )
        for one, paths in zip(held, places, strict=True)
    ]
    return Total(usages, total(blobs), total(layers), total(doomed), total(all_doomed))


def _blobs(images: "Shelf", entries: list[Document]) -> set[str]:
    return set().union(*(catalog.needs(images, str(entry.get("digest"))).blobs for entry in entries))


def _places(images: "Shelf", entries: list[Document]) -> set[Path]:
    """Blobs and folders of an image."""
    layers = (catalog.needs(images, str(entry.get("digest"))).layers for entry in entries)
    folders = {images.folder(diff_id) for diff_id in set().union(*layers)}
    return {images.blob(digest) for digest in _blobs(images, entries)} | folders


def _doomed(images: "Careful", in_use: prune.InUse, *, all: bool) -> set[Path]:
    """What a prune would delete: nothing, where it would refuse."""
    try:
        return prune.plan(images, in_use, all=all).paths
    except TinyoError:
        return set()
