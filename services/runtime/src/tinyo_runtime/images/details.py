"""All that is known of one image, and further names for it."""

import asyncio
import json
from typing import TYPE_CHECKING

from tinyo.v1 import image_pb2 as v1

from tinyo_runtime.images import catalog, disk, failures, names
from tinyo_runtime.images.image import Image
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf

#: No size is larger (int64), whatever another tool's manifest says.
_MAX_SIZE = 2**63 - 1


async def inspect(images: "Shelf", reference: str) -> tuple[catalog.Held, str, list[v1.ImageLayer]]:
    """An image, its configuration as JSON, and its layers. Raises IMAGE_NOT_FOUND and IMAGE_CORRUPT."""
    held = catalog.find(images, reference)
    manifest, configuration = images.documents(held.image.digest)
    try:
        text = json.dumps(configuration)
    except RecursionError:
        raise failures.unreadable(reference) from None
    layers = []
    for layer, diff_id in zip(manifest["layers"], configuration["rootfs"]["diff_ids"], strict=False):
        described = v1.ImageLayer(
            digest=layer["digest"],
            diff_id=diff_id,
            media_type=_text(layer["mediaType"]),
            size_bytes=min(layer["size"], _MAX_SIZE),
        )
        if (folder := images.folder(diff_id)).is_dir():
            described.unpacked_bytes = await asyncio.to_thread(disk.allotted, folder)
        layers.append(described)
    return held, text, layers


def tag(images: "Shelf", reference: str, new: str) -> tuple[catalog.Held, str]:
    """Gives an image one more name, also in its complete form; whatever had that loses it. Raises TinyoError."""
    complete = Reference.parse(new)
    if complete.digest:
        raise failures.no_name(new)
    held = catalog.find(images, reference)
    names.tag(images, complete, held.image.digest)
    return catalog.find(images, str(complete)), str(complete)


def described(image: Image, *, complete: bool = True) -> v1.Image:
    """An image in the words of the contract."""
    return v1.Image(
        references=map(_text, image.references),
        digest=_text(image.digest),
        platform=_text(image.platform),
        size_bytes=image.size,
        created_unix=image.created,
        incomplete=not complete,
    )


def _text(text: str) -> str:
    """Text that can be sent: JSON may hold half of a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()
