"""What the layout holds, whoever put it there: other tools do not unpack what they put, and may put an index."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.images import failures, kinds, names, platforms, verify
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document, Image, ImageConfig

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf


class Needs(NamedTuple):
    """What an entry of the index needs to be whole."""

    #: Digests of its blobs, those of all platforms that it offers.
    blobs: set[str]
    #: Diff IDs.
    layers: set[str]
    #: Digests of the manifests that can be used.
    manifests: list[str]
    #: Digests of documents that are missing or damaged: what they need is not known.
    unreadable: list[str]


class Held(NamedTuple):
    """An image of the layout, with the entries that mean it."""

    image: Image
    entries: list[Document]
    #: All of its layers are unpacked.
    complete: bool


def load(images: "Shelf", digest: str) -> Document:
    """A document that is here. Raises FileNotFoundError and Malformed."""
    if not DIGEST.fullmatch(digest):
        raise Malformed(f"{digest[:80]!r} is not a digest")
    path = images.blob(digest)
    if path.stat().st_size > verify.MAX_DOCUMENT:
        raise Malformed(f"{digest} has more than {verify.MAX_DOCUMENT} bytes")
    return verify.load(path.read_bytes())


def needs(images: "Shelf", digest: str) -> Needs:
    """What a manifest needs, or an index with everything that it offers."""
    found, waiting = Needs(set(), set(), [], []), [digest]
    while waiting:
        if not DIGEST.fullmatch(one := waiting.pop(0)) or one in found.blobs:
            continue
        found.blobs.add(one)
        try:
            document = load(images, one)
            if offered := member(document, "manifests", list, []):
                waiting += [str(child.get("digest")) for child in offered if isinstance(child, dict)]
                continue
            manifest = verify.manifest(document)
            found.blobs.update(part["digest"] for part in (manifest["config"], *manifest["layers"]))
            if manifest["config"]["mediaType"] in kinds.CONFIG_TYPES:
                configuration = verify.configured(load(images, manifest["config"]["digest"]))
                found.layers.update(configuration["rootfs"]["diff_ids"])
                found.manifests.append(one)
        except (FileNotFoundError, Malformed):
            found.unreadable.append(one)
    return found


def manifest_of(images: "Shelf", digest: str) -> str:
    """The manifest that an entry stands for on this machine; "" when there is none that can be read."""
    found = needs(images, digest).manifests
    ranks = {}
    for one in found if len(found) > 1 else ():
        configuration = load(images, load(images, one)["config"]["digest"])
        ranks[one] = platforms.rank(platforms.host().document(), configuration)
    suiting = [one for one in found if ranks.get(one) is not None]
    return min(suiting or found, key=lambda one: ranks.get(one) or 0, default="")


def held(images: "Shelf") -> list[Held]:
    """Every image that can be read, in the order of the first reference."""
    entries: dict[str, list[Document]] = {}
    for entry in names.entries(images):
        if digest := manifest_of(images, str(entry.get("digest"))):
            entries.setdefault(digest, []).append(entry)
    found = [
        Held(image._replace(references=references_of(same)), same, is_unpacked(images, image))
        for digest, same in entries.items()
        if (image := images.read_image(digest))
    ]
    return sorted(found, key=lambda one: (one.image.references, one.image.digest))


def find(images: "Shelf", reference: str) -> Held:
    """One of them, by reference or digest. Raises IMAGE_NOT_FOUND, IMAGE_CORRUPT and IMAGE_REFERENCE_INVALID."""
    wanted = [*images.matching(reference)]
    if not wanted:
        raise failures.not_here(reference)
    for one in held(images):
        if any(entry in one.entries for entry in wanted):
            return one
    raise failures.unreadable(reference)


def shown(images: "Shelf", entries: list[Document]) -> Iterator[Image]:
    """The images that these entries mean, each with the references that it has in them; unreadable ones too."""
    groups: dict[str, list[Document]] = {}
    for entry in entries:
        digest = str(entry.get("digest"))
        groups.setdefault(manifest_of(images, digest) or digest, []).append(entry)
    for digest, same in groups.items():
        image = images.read_image(digest) or Image(digest, (), ImageConfig())
        yield image._replace(references=references_of(same))


def references_of(entries: list[Document]) -> tuple[str, ...]:
    """The names that entries have."""
    return tuple(sorted({name for entry in entries if (name := names.name_of(entry))}))


def is_unpacked(images: "Shelf", image: Image) -> bool:
    """Whether all layers of an image have their folders."""
    return all((images.root / "layers" / layer).is_dir() for layer in image.layers)
