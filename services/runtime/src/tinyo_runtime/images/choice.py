"""Which image of an index is pulled: the one that suits the platform best, and among equals the first.

What is no image is passed over: attestations, signatures and other artifacts, whatever a newer tool may add.
An index may hold others, one level deep: they are looked into when nothing else suits.
"""

from collections.abc import Iterable, Iterator

from tinyo_runtime.images import kinds, platforms
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.image import Document

#: Indexes in an index that are looked into.
MAX_NESTED = 8
#: What buildkit calls an entry that speaks of another one.
_SPEAKS_OF_ANOTHER = "vnd.docker.reference.type"


def offers(document: Document) -> list[Document]:
    """Entries of an index that may be an image, or an index with some. Raises Malformed."""
    return [entry for entry in member(document, "manifests", list) if _may_be_image(entry)]


def best(offered: Iterable[Document], platform: Document) -> Document | None:
    """The manifest that suits best; one that says nothing of its platform suits when no other does."""
    ranked = []
    for entry in offered:
        if entry.get("mediaType", "") in kinds.INDEX_TYPES:
            continue
        rank = platforms.rank(platform, entry["platform"]) if entry.get("platform") else None
        if rank is not None or not entry.get("platform"):
            ranked.append((rank is None, rank or 0, entry))
    return min(ranked, key=lambda one: one[:2])[2] if ranked else None


def nested(offered: Iterable[Document], platform: Document) -> Iterator[Document]:
    """The indexes that may hold what suits, at most MAX_NESTED."""
    suiting = [
        entry
        for entry in offered
        if entry.get("mediaType", "") in kinds.INDEX_TYPES
        and (not entry.get("platform") or platforms.rank(platform, entry["platform"]) is not None)
    ]
    yield from suiting[:MAX_NESTED]


def names(offered: Iterable[Document]) -> list[str]:
    """The platforms that there are."""
    return [*dict.fromkeys(platforms.name(entry["platform"]) for entry in offered if entry.get("platform"))]


def _may_be_image(entry: Document) -> bool:
    platform = member(entry, "platform", dict, {})
    words = [member(platform, key, str, "") for key in platforms.Platform._fields]
    about = member(entry, "annotations", dict, {})
    kind = member(entry, "mediaType", str, "") or kinds.MANIFEST
    return (
        kind in kinds.INDEX_TYPES + kinds.MANIFEST_TYPES
        and not entry.get("artifactType")
        and _SPEAKS_OF_ANOTHER not in about
        and (not platform or bool(words[0] and words[1] and "unknown" not in words))
    )
