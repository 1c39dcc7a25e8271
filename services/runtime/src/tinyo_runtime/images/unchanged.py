"""Whether a tag still means what it meant: one request without an answer's body, which no registry counts as a pull."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, kinds
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images

#: Seconds for an answer; who has none is asked for the document itself.
LIMIT = 30.0


async def resolve(images: "Images", reference: Reference) -> str:
    """Digest of the manifest or index that a tag names; nothing when nobody says.

    What goes wrong is not said here: whoever fetches the document will meet it, and say so.
    """
    import httpx  # when it is needed: it takes long

    from tinyo_runtime.images.mirrors import Mirrors

    assert isinstance(images, Mirrors)
    for place in images.places(reference):
        with contextlib.suppress(TinyoError, httpx.RequestError, httpx.InvalidURL, TimeoutError):
            async with asyncio.timeout(LIMIT):
                response = await _head(images, place)
            if response.status_code == 200:
                return answers.promise(response).digest
    return ""


async def _head(images: "Images", place: Reference) -> "httpx.Response":
    client = images.client(place)
    accepted = [("Accept", kind) for kind in kinds.INDEX_TYPES + kinds.MANIFEST_TYPES]
    response = await client.head(f"manifests/{place.tag}", headers=accepted)
    if response.status_code == 401:
        await images.authorize(client, response)
        response = await client.head(f"manifests/{place.tag}", headers=accepted)
    return response
