"""What registries are asked for beside the usual, and whether an answer is one."""

import re
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import failures
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.kinds import INDEX_TYPES, MANIFEST_TYPES, check_document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

#: Bytes that are here already of what is asked for again.
received: ContextVar[int] = ContextVar("received", default=0)

#: Of these, the bytes that were here before anything was asked for.
kept: ContextVar[int] = ContextVar("kept", default=0)


class Promise(NamedTuple):
    """What a registry says of a document that it gives."""

    digest: str = ""
    media_type: str = ""


#: Of the last answer; nothing when the document came from here.
promised: ContextVar[Promise] = ContextVar("promised")

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
#: Seconds that we wait for a registry that says how long it needs.
MAX_WAIT = 60.0


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
    elif status == 206 and _start(response) != received.get():
        raise failures.unreachable(reference, "it answers with another part than it was asked for")
    elif status == 404:
        raise failures.not_there(reference)
    elif status in (401, 403):
        raise failures.denied(reference)
    elif status not in (200, 206):
        error = failures.unreachable(reference, f"it answers with status {status}")
        if status not in _TRANSIENT:
            raise error
        if (wait := _wait(response)) > MAX_WAIT:
            raise failures.busy(reference, status, wait)
        raise Passing(error, wait)
    asked = response.history[0] if response.history else response
    if "/manifests/" in asked.url.path:
        promised.set(promise(response))
        check_document(reference, promised.get().media_type)


def promise(response: "httpx.Response") -> Promise:
    """What the headers of an answer say."""
    digest = response.headers.get("Docker-Content-Digest", "")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return Promise(digest if DIGEST.fullmatch(digest) else "", media_type)


def _start(response: "httpx.Response") -> int:
    """The first byte of a part (RFC 9110, section 14.4); the one that was asked for where the answer does not say."""
    match = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else received.get()


def _wait(response: "httpx.Response") -> float:
    """Seconds until a registry wants to be asked again, 0 when it does not say (RFC 9110, section 10.2.3).

    A time is compared with the registry's own clock.
    """
    text = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        now = response.headers.get("Date", "")
        since = parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, parsedate_to_datetime(text).timestamp() - since)
    except (ValueError, OverflowError):
        return 0.0


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
