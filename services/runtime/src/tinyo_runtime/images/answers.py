"""What registries are asked for beside the usual, and whether an answer is one."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import failures
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

#: Media types: those of OCI, and those that Docker had before.
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

#: Bytes that are here already of what is asked for again.
received: ContextVar[int] = ContextVar("received", default=0)

#: Of these, the bytes that were here before anything was asked for.
kept: ContextVar[int] = ContextVar("kept", default=0)

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class Passing(TinyoError):
    """A registry cannot answer now, but may do so later: after so many seconds, if it says."""

    def __init__(self, error: TinyoError, after: float) -> None:
        super().__init__(error.code, error.reason, error.message, error.metadata)
        self.after = after


def headers() -> list[tuple[str, str]]:
    """Older media types, and only the rest of what was cut off."""
    older = [("Accept", INDEX_TYPES[1]), ("Accept", MANIFEST_TYPES[1])]
    return [*older, ("Range", f"bytes={received.get()}-")] if received.get() else older


def check(reference: Reference, response: "httpx.Response") -> None:
    """Raises TinyoError unless the registry gives what it was asked for, and Passing when it may do so later."""
    status = response.status_code
    if status == 200 and received.get():  # a server may ignore Range
        response.stream = _rest(cast("httpx.AsyncByteStream", response.stream), received.get())
    elif status == 404:
        raise failures.not_there(reference)
    elif status in (401, 403):
        raise failures.denied(reference)
    elif status not in (200, 206):
        error = failures.unreachable(reference, f"it answers with status {status}")
        if status not in _TRANSIENT:
            raise error
        wait = response.headers.get("Retry-After", "")
        raise Passing(error, min(float(wait), 10) if wait.isdigit() else 0)
    asked = response.history[0] if response.history else response
    if "/manifests/" in asked.url.path:
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type not in INDEX_TYPES + MANIFEST_TYPES:
            raise failures.unsupported(reference, media_type)


def _rest(body: "httpx.AsyncByteStream", known: int) -> "httpx.AsyncByteStream":
    """A body without its beginning."""
    import httpx

    class Rest(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = known
            async for chunk in body:
                new = chunk[left:]
                left -= len(chunk) - len(new)
                yield new

        async def aclose(self) -> None:
            await body.aclose()

    return Rest()
