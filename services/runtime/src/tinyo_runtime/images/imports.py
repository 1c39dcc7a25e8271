"""Images from archives: an import is a pull, whose registry is what somebody sent."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.image_pb2 import ImportSpec

from tinyo_runtime.images import (
    child,
    disk,
    failures,
    instructions,
    kinds,
    names,
    offers,
    order,
    platforms,
    receiving,
    selection,
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
        unpacker = await self.begin(layer, diff_id, folder)
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

    wanted = platforms.want(spec.platform)
    if spec.name:
        selection.complete(spec.name)  # whoever made a mistake hears of it before anything is sent
    instructions.applied({}, spec.changes)
    with await receiving.receive(images.root / "pulling", images.spared(chunks), images.trash) as received:
        found = await asyncio.to_thread(offers.of, received, wanted)
        if found and spec.changes:
            raise selection.invalid(
                "changes", "only a root file system can be changed, and this archive has images"
            )
        if not found:
            if not spec.name or spec.references:
                raise selection.invalid(
                    "name", "the archive is a root file system: give it one name with --name"
                )
            root = offers.root_file_system
            made_for = platforms.of(spec.platform) or PLATFORM  # no level: nobody knows what it needs
            found = [await asyncio.to_thread(root, received, spec.name, made_for, list(spec.changes))]
        chosen = selection.chosen(found, spec)
        references = [selection.references(offer, spec) for offer in chosen]
        for offer, (first, *others) in zip(chosen, references, strict=True):
            is_index = "manifests" in await asyncio.to_thread(_explored, offer)
            with order.entered(order.Order(True, progress, offer)):
                digest = await images.image(first, wanted if is_index or spec.platform else {})
            for other in others:
                names.tag(images, other, digest)
                await asyncio.sleep(0)  # there may be many
            yield images.get(digest)._replace(references=tuple(map(str, (first, *others))))


def _explored(offer: Offer) -> Document:
    """Its manifest or index, whose documents are in order as far as the archive has them. Raises TinyoError."""
    document, name = offer.archive.named(offer.digest), offer.digest
    try:
        if not isinstance(document, dict):
            raise failures.Malformed("it is not a JSON object")
        if "manifests" not in document:
            config = verify.manifest(document)["config"]
            if config["mediaType"] in kinds.CONFIG_TYPES:
                name = config["digest"]
                verify.configured(offer.archive.named(name))
    except failures.Malformed as error:
        raise unusable(f"{name}: {error}") from None
    result: Document = document
    return result
