"""Images from archives: an import is a pull, whose registry is what somebody sent."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tinyo.v1.image_pb2 import ImportSpec

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import (
    archive,
    child,
    disk,
    failures,
    instructions,
    names,
    offers,
    order,
    platforms,
    verify,
)
from tinyo_runtime.images.archive import unusable
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.offers import Offer
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
    from tinyo_runtime.images.store import ImageStore
else:
    Base = object

#: So much of a digest is enough to mean it.
_DIGEST = r"sha(256|512):[0-9a-f]{12,128}"


class Imports(Base):
    """Fetches from an archive what is wanted from there."""

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Puts a layer in its place. A pull may wait for it that outlives the import: the archive stays until then."""
        offer = order.current().offer
        with offer.archive if offer else nullcontext():
            await super().layer(reference, layer, diff_id)

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word. A layer that is a file already is not written once more: it gets one more name."""
        offer = order.current().offer
        blob = offer.archive.open(layer["digest"]) if offer else None
        if blob is None:
            return await super().unpack(reference, layer, diff_id, folder)
        try:
            disk.link(blob, folder / "blob")
        finally:
            os.close(blob)
        (folder / "tree").mkdir()
        unpacker = await self.unpacker(str(folder / "tree"), layer["mediaType"])
        assert unpacker.stdin
        async with child.ended(unpacker):
            async for chunk in self.fetch(reference, "blobs", layer):
                unpacker.stdin.write(chunk)
                await unpacker.stdin.drain()
        return (await unpacker.communicate(b""))[0]

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes. Raises TinyoError when the archive lacks them."""
        if offer := order.current().offer:
            digest = content["digest"] if DIGEST.fullmatch(content["digest"]) else offer.digest
            for piece in offer.archive.pieces(offer.archive.blob(digest)):
                yield piece
                await asyncio.sleep(0)  # it is here, so nothing else would let others do something
        else:
            async with aclosing(super().fetch(reference, kind, content)) as chunks:
                async for chunk in chunks:
                    yield chunk


async def import_images(
    images: "ImageStore", spec: ImportSpec, chunks: AsyncIterator[bytes], progress: order.Listener
) -> AsyncGenerator[Image, None]:
    """Makes images of what comes, one after the other. Raises TinyoError; images that were given stay.

    Each has the references that it got here; others that mean it by now are not told.
    """
    from tinyo_runtime.images.store import PLATFORM  # which needs this module

    wanted = platforms.of(spec.platform) or PLATFORM
    if spec.name:
        _named(spec.name)  # whoever made a mistake hears of it before anything is sent
    instructions.applied({}, spec.changes)
    with await archive.receive(images.root / "pulling", chunks, images.trash) as received:
        found = await asyncio.to_thread(offers.of, received, wanted)
        if found and spec.changes:
            raise _invalid("changes", "only a root file system can be changed, and this archive has images")
        if not found:
            if not spec.name or spec.references:
                raise _invalid("name", "the archive is a root file system: give it one name with --name")
            root = offers.root_file_system
            found = [await asyncio.to_thread(root, received, spec.name, wanted, list(spec.changes))]
        chosen = _chosen(found, spec)
        references = [_references(offer, spec) for offer in chosen]
        for offer, (first, *others) in zip(chosen, references, strict=True):
            is_index = "manifests" in await asyncio.to_thread(_explored, offer)
            with order.entered(order.Order(True, progress, offer)):
                digest = await images.image(first, wanted if is_index or spec.platform else {})
            for other in others:
                names.tag(images, other, digest)
                await asyncio.sleep(0)  # there may be many
            yield images.get(digest)._replace(references=tuple(map(str, (first, *others))))


def _chosen(found: list[Offer], spec: ImportSpec) -> list[Offer]:
    """The offers that are wanted, in the order of the archive. Raises TinyoError."""
    wanted = dict.fromkeys(spec.references)
    if len(wanted) > offers.MAX_IMAGES:
        raise _invalid("references", f"{len(wanted)} images are more than an archive has")
    called = [{*offer.names, *(str(_parsed(name)) for name in offer.names)} for offer in found]
    chosen: dict[int, Offer] = {}
    for reference in wanted:
        is_digest = re.fullmatch(_DIGEST, reference)
        name = reference if is_digest else str(Reference.parse(reference))
        meant = {
            number: offer
            for number, offer in enumerate(found)
            if not called[number].isdisjoint((reference, name))
            or (is_digest and any(digest.startswith(name) for digest in (offer.digest, offer.id)))
        }
        if not meant:
            raise _not_there(reference, found)
        chosen |= meant
    result = [chosen[number] for number in sorted(chosen)] or found
    if spec.name and len(result) > 1:
        raise _invalid("name", f"a name is for one image: say which of these is meant: {_shown(result)}")
    return result


def _references(offer: Offer, spec: ImportSpec) -> list[Reference]:
    """Which names an image gets, at least one. Raises TinyoError."""
    if spec.name:
        return [_named(spec.name)]
    if not offer.names:
        raise _invalid("name", f"image {offer.digest} has no name in the archive: give it one with --name")
    references = []
    for name in offer.names:
        if not (reference := _parsed(name)) or reference.digest:
            raise unusable(f"it calls an image {name[:100]!r}, which is no name: give it another with --name")
        references.append(reference)
    return references


def _named(name: str) -> Reference:
    """A complete name. Raises TinyoError."""
    if (reference := Reference.parse(name)).digest:
        raise failures.no_name(name)
    return reference


def _parsed(name: str) -> Reference | None:
    """A name that an archive gives, if it is one."""
    try:
        return Reference.parse(name)
    except TinyoError:
        return None


def _explored(offer: Offer) -> Document:
    """Its manifest or index, whose documents are in order as far as the archive has them. Raises TinyoError."""
    document, name = offer.archive.named(offer.digest), offer.digest
    try:
        if not isinstance(document, dict):
            raise failures.Malformed("it is not a JSON object")
        if "manifests" not in document:
            config = verify.manifest(document)["config"]
            if config["mediaType"] in verify.CONFIG_TYPES:
                name = config["digest"]
                verify.configured(offer.archive.named(name))
    except failures.Malformed as error:
        raise unusable(f"{name}: {error}") from None
    result: Document = document
    return result


def _shown(found: list[Offer]) -> str:
    """A few of them, for people."""
    shown = [", ".join(offer.names) or offer.digest for offer in found[:20]]
    return "; ".join([*shown, *(["and more"] if len(found) > 20 else [])])


def _not_there(reference: str, found: list[Offer]) -> TinyoError:
    """IMAGE_NOT_FOUND in an archive."""
    message = f"image {reference[:300]} is not in the archive, which has {_shown(found)}"
    metadata = {"reference": reference[:300]}
    return TinyoError(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", message, metadata)


def _invalid(field: str, why: str) -> TinyoError:
    """INVALID_SPEC."""
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", why, field=field)
