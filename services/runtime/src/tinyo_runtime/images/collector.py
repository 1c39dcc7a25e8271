"""Makes room by itself when the disk becomes full: high and low marks, as kubelet has them.

First goes what `prune` removes; then, where the administrator wants it, whole images that no container needs, the
longest unused first. An image is used when it is pulled, and as long as a container needs it; the time is that of its
manifest in the layout.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.images import catalog, prune
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.marks import Level
from tinyo_runtime.images.prune import InUse

if TYPE_CHECKING:
    from tinyo_runtime.images.careful import Careful

log = logging.getLogger(__name__)

#: Seconds for which an image stays after its last use: whoever pulled it may be about to use it.
YOUNG = 120


class Collected(NamedTuple):
    """What went."""

    removed: list[Image]
    freed: int
    #: How full the disk was before.
    percent: float


async def collect(images: "Careful", in_use: Callable[[], InUse], *, now: bool = False) -> Collected:
    """Removes what may go, above the high mark or `now`, until the low mark is reached."""
    used(images, *in_use().digests())
    level, limits = Level.of(images.root), images.limits
    if limits.collect == "off" or (level.percent <= limits.high and not now):
        return Collected([], 0, level.percent)
    removed, freed = await prune.prune(images, in_use, all=False, dry_run=False)
    for entries in unused(images) if limits.collect == "unused" else ():
        await asyncio.to_thread(images.trash.emptied)
        if Level.of(images.root).percent <= limits.low:
            break
        gone, more = await prune.prune(images, in_use, all=True, dry_run=False, only=entries)
        removed, freed = [*removed, *gone], freed + more
    await asyncio.to_thread(images.trash.emptied)  # whoever waits for room finds it
    for image in removed:
        name = ", ".join(image.references) or image.digest
        log.warning("removed image %s, because the disk is %.0f %% full", name, level.percent)
    return Collected(removed, freed, level.percent)


def unused(images: "Careful") -> list[list[Document]]:
    """Entries of images that were not used for a moment, the longest unused first. Which of them containers need
    although they are not here yet, a prune knows."""
    found = [(last_used(images, one.image.digest), one.entries) for one in catalog.held(images)]
    return [entries for when, entries in sorted(found, key=itemgetter(0)) if time.time() - when > YOUNG]


def used(images: "Careful", *digests: str) -> None:
    """Notes that images are used now."""
    for digest in digests:
        with contextlib.suppress(OSError):  # that it is here, and can be written, others look after
            os.utime(images.blob(digest))


def last_used(images: "Careful", digest: str) -> float:
    """When, in seconds since 1970."""
    return images.blob(digest).stat().st_mtime
