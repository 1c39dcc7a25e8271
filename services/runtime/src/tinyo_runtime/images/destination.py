"""A repository that something is brought to: requests with our name on them, redirects, refusals, patience."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, digests, failures, guard, patience, rejections
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.push import Push

T = TypeVar("T")
Body = Callable[[], AsyncGenerator[bytes, None]]

#: Redirects that are followed for one request.
MAX_REDIRECTS = 5
#: How often one request shows who we are: once more when that is too old, or was too much.
MAX_INTRODUCTIONS = 3
#: Bytes of an answer that are read.
MAX_ANSWER = 1 << 16
#: Seconds until the headers of an answer begin, when a registry has much to do before, and until it has ended.
COMMIT, ANSWER = 300.0, 60.0
#: Errors are wanted in a form that can be read; "*/*" alone is what token services are asked with.
ACCEPT = "application/json, */*;q=0.5"
#: A body that is not looked into.
DATA = {"Content-Type": "application/octet-stream"}


class Destination:
    """Speaks to one repository."""

    def __init__(self, images: "Push", client: "httpx.AsyncClient", target: Reference, *sources: str) -> None:
        """`sources` are repositories of the same registry from which blobs may be mounted."""
        self.images, self.client, self.target = images, client, target
        own = f"repository:{target.repository}:pull,push"
        self._scopes = (own, *(f"repository:{source}:pull" for source in sources))
        #: Whether it has answered anything.
        self._answered = False

    async def ask(
        self,
        method: str,
        url: "httpx.URL | str",
        *,
        expect: Collection[int],
        passing: Collection[int] = (),
        body: Body | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> "httpx.Response":
        """An answer with one of the statuses that are expected. Raises TinyoError for all others, Passing for
        those after which it is worth to look again; and what httpx raises."""
        import httpx  # when it is needed: it takes long

        headers = {"Accept": ACCEPT, **options.pop("headers", {})}
        if timeout:
            options["timeout"] = httpx.Timeout(30, connect=5, read=timeout, pool=None)
        for _ in range(MAX_REDIRECTS + 1):
            request = partial(self.client.build_request, method, url, headers=headers, **options)
            response, said = await self._authorized(request, body)
            self._answered = True
            if response.status_code in expect:
                return response
            if response.status_code in (307, 308) or (method in ("GET", "HEAD") and response.is_redirect):
                url = self.location(response)
                options.pop("params", None)  # they are in the new address, if they are to be
                continue
            error = rejections.of(self.target, response, said)
            if response.status_code in passing:
                raise answers.Passing(error, 0)
            raise error
        raise failures.unreachable(self.target, f"it sends us on more than {MAX_REDIRECTS} times")

    async def _authorized(
        self, request: Callable[..., "httpx.Request"], body: Body | None
    ) -> tuple["httpx.Response", bytes]:
        """An answer that has been read, to a request that says who we are when the registry wants to know it."""
        for _ in range(MAX_INTRODUCTIONS):
            guard.scopes.set(self._scopes)
            content = body() if body else None
            try:
                response = await self.client.send(
                    request(content=content), stream=True, follow_redirects=False
                )
            except TinyoError as error:
                raise self._denied(error) from error.__cause__
            async with aclosing(response):
                if response.status_code != 401:
                    return response, await self._read(response)
                await self._introduce(response)
        raise rejections.denied(self.target)

    async def _introduce(self, refusal: "httpx.Response") -> None:
        try:
            await self.images.authorize(self.client, refusal)
        except TinyoError as error:
            if error.reason != "REGISTRY_DENIED" or len(self._scopes) == 1:
                raise self._denied(error) from error.__cause__
            self._scopes = self._scopes[:1]  # perhaps it was to read elsewhere that we may not

    def _denied(self, error: TinyoError) -> TinyoError:
        """The same error, in the words of who pushes."""
        return rejections.denied(self.target) if error.reason == "REGISTRY_DENIED" else error

    async def _read(self, response: "httpx.Response") -> bytes:
        """What an answer says, as far as that is of interest; a connection of which all was read is used again."""
        said = b""
        async with asyncio.timeout(ANSWER):
            async for chunk in response.aiter_raw():
                said += chunk
                if len(said) > MAX_ANSWER:
                    break
        return said

    def location(self, response: "httpx.Response") -> "httpx.URL":
        """Where an answer sends us, as it is or relative to what was asked. Raises TinyoError."""
        import httpx

        location = response.headers.get("Location", "")
        try:
            url = response.request.url.join(location)
        except httpx.InvalidURL:
            url = httpx.URL()
        if not location or url.scheme not in ("http", "https") or not url.host:
            raise failures.unreachable(self.target, f"it sends us to {location[:100]!r}, which is no address")
        return url.copy_with(fragment=None)

    async def put_manifest(self, name: str, digest: str, media_type: str, data: bytes) -> None:
        """Gives a name, which is a tag or the digest itself, to a manifest or an index. Raises TinyoError."""

        async def whole() -> AsyncGenerator[bytes, None]:
            yield data

        async def attempt() -> None:
            headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
            answer = await self.ask(
                "PUT", f"manifests/{name}", expect=(200, 201), headers=headers, body=whole, timeout=COMMIT
            )
            self.same(answer, digest, data)

        await self.patiently(attempt, lambda: 0)

    def same(self, answer: "httpx.Response", digest: str, data: bytes = b"") -> None:
        """Raises TinyoError when an answer names another digest than that of what was sent; `data` is all of it,
        if that is at hand: a registry may use another algorithm."""
        told = answer.headers.get("Docker-Content-Digest", "")
        algorithm = told.partition(":")[0]
        if data and algorithm in ("sha256", "sha512"):
            digest = digests.of(data, told)
        if algorithm == digest.partition(":")[0] and told != digest:
            raise rejections.altered(self.target, digest, told)

    async def patiently(self, attempt: Callable[[], Awaitable[T]], reached: Callable[[], int]) -> T:
        """What an attempt gives; it is made again after what may pass, and has all its chances anew after progress
        in bytes, as `reached` says. A registry that never answered is not asked again."""
        import httpx

        attempts = patience.Attempts()
        while True:
            try:
                return await attempt()
            except answers.Passing as passing:
                failure: Exception = passing
                least = passing.after
            except (httpx.RequestError, TimeoutError) as error:
                failure, least = error, 0
            pause = attempts.pause(reached(), least)
            if pause is None or not self._answered:
                if isinstance(failure, TinyoError):
                    raise failure
                raise failures.unreachable(self.target, str(failure) or type(failure).__name__) from failure
            await asyncio.sleep(pause)
