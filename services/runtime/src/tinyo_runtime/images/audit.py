"""Reads images again, and says what is not as it was when they came.

A layer's blob that is corrupt is deleted, so that a pull fetches it again. Manifests and configurations stay until
a pull replaces them: while they are there, what they need is not cleared away. Unpacked files have no digest of
their own: their folder is there or not.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.images import catalog, digests, disk, failures, names, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document, Image

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf

#: Bytes that are read between two moments in which it can be cancelled.
_STEP = 64 << 20
_CHUNK = 1 << 20


class Problem(NamedTuple):
    """Something that is not as it should be."""

    #: Of the blob, or diff ID of the layer.
    digest: str
    message: str


class Finding(NamedTuple):
    """What came of one image."""

    image: Image
    #: All of its layers are unpacked.
    complete: bool
    problems: list[Problem]


async def audit(
    images: "Shelf", references: Sequence[str], in_use: Collection[str]
) -> AsyncIterator[Finding]:
    """One finding for each image; of all images without `references`. Raises IMAGE_NOT_FOUND before the first."""
    entries = names.entries(images)
    if references:
        entries = []
        for reference in references:
            if not (found := [*images.matching(reference)]):
                raise failures.not_here(reference)
            entries += [entry for entry in found if entry not in entries]
    reader = _Reader(images)
    for image in [*catalog.shown(images, entries)]:
        entries = [entry for entry in names.entries(images) if _means(images, entry, image.digest)]
        problems: dict[Problem, None] = {}
        for entry in entries:
            problems |= dict.fromkeys([problem async for problem in _check(reader, entry, in_use)])
        if any(_means(images, entry, image.digest) for entry in names.entries(images)):  # still
            yield Finding(image, bool(image.layers) and catalog.is_unpacked(images, image), [*problems])


def _means(images: "Shelf", entry: Document, digest: str) -> bool:
    own = str(entry.get("digest"))
    return digest in (own, catalog.manifest_of(images, own))


async def _check(reader: "_Reader", entry: Document, in_use: Collection[str]) -> AsyncIterator[Problem]:
    """All that is wrong with what an entry needs, as far as it can be followed."""
    images, digest = reader.images, str(entry.get("digest"))
    size = entry.get("size")
    if problem := await reader.read("manifest", digest, size if isinstance(size, int) else None):
        yield problem
        return
    found = catalog.needs(images, digest)
    if not found.manifests and not found.unreadable:
        return  # something else than an image, which is another tool's
    if not found.manifests:
        for one in found.unreadable:
            if problem := await reader.documents(one):
                yield problem
        return
    for one in found.manifests:
        if one != digest and (problem := await reader.read("manifest", one)):
            yield problem
            continue
        manifest = verify.manifest(catalog.load(images, one))
        if problem := await reader.document(manifest["config"]):
            yield problem
            continue
        for layer in manifest["layers"]:
            if problem := await reader.read("layer", layer["digest"], layer["size"]):
                yield problem
        if not (names.is_ours(entry) or one in in_use):
            continue  # nobody unpacked it yet
        for diff_id in verify.configured(catalog.load(images, manifest["config"]["digest"]))["rootfs"][
            "diff_ids"
        ]:
            if not images.folder(diff_id).is_dir():
                yield Problem(diff_id, f"the folder of layer {diff_id} is missing")


class _Reader:
    """Reads each blob once, however many images need it."""

    def __init__(self, images: "Shelf") -> None:
        self.images = images
        #: Size, or what is wrong, by digest.
        self._known: dict[str, int | str] = {}

    async def documents(self, digest: str) -> Problem | None:
        """What is wrong with a manifest that cannot be followed, or with its configuration."""
        if problem := await self.read("manifest", digest):
            return problem
        try:
            manifest = verify.manifest(catalog.load(self.images, digest))
        except (FileNotFoundError, Malformed) as error:
            return Problem(digest, f"the manifest {digest} is no manifest of an image: {error}")
        return await self.document(manifest["config"])

    async def document(self, descriptor: Document) -> Problem | None:
        """What is wrong with a configuration."""
        digest = descriptor["digest"]
        if problem := await self.read("configuration", digest, descriptor["size"]):
            return problem
        try:
            verify.configured(catalog.load(self.images, digest))
        except (FileNotFoundError, Malformed) as error:
            return Problem(digest, f"the configuration {digest} is not one: {error}")
        return None

    async def read(self, kind: str, digest: str, size: int | None = None) -> Problem | None:
        """What is wrong with a blob."""
        if digest not in self._known:
            self._known[digest] = await self._read(kind, digest)
        known = self._known[digest]
        if isinstance(known, str):
            return Problem(digest, f"the {kind} {digest} {known}")
        if size is not None and size != known:
            return Problem(digest, f"the {kind} {digest} has {known} bytes instead of {size}")
        return None

    async def _read(self, kind: str, digest: str) -> int | str:
        if not DIGEST.fullmatch(digest):
            return "has no digest that is known here"
        path = self.images.blob(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return "is missing"
        identity = os.fstat(descriptor)
        try:
            actual, count = digests.Digest(digest), 0
            while part := await asyncio.to_thread(_hash, actual, descriptor):
                count += part
            if str(actual) == digest:
                return count
            wrong = f"is corrupt: its {count} bytes have the digest {actual}"
        except OSError as error:
            wrong = f"cannot be read: {error.strerror}"
        finally:
            os.close(descriptor)
        if kind == "layer":
            disk.remove(path, identity)
        return wrong


def _hash(digest: digests.Digest, descriptor: int) -> int:
    """Reads a step further; 0 at the end."""
    count = 0
    while count < _STEP and (chunk := os.read(descriptor, _CHUNK)):
        digest.update(chunk)
        count += len(chunk)
    return count
