"""Sees every request to a registry and every answer: secrets stay where they belong, and what should be small is."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import cast

import httpx

from tinyo_runtime.images import challenges, failures, trust
from tinyo_runtime.images.credentials import Credential
from tinyo_runtime.images.reference import Reference

#: Documents are no larger than this (OCI distribution asks for 4 MiB).
MAX_DOCUMENT = 4 << 20

#: What is wanted of who gives tokens ("repository:NAME:pull,push"), whatever a registry asks for.
scopes: ContextVar[tuple[str, ...]] = ContextVar("scopes", default=())


class Guard:
    """Sees every request and every answer, those of a redirect too."""

    def __init__(self, reference: Reference, url: httpx.URL) -> None:
        self.reference = reference
        self._url = url
        #: Where tokens are, as soon as the registry said it; None while it wants to see a password.
        self.realm: httpx.URL | None = None
        #: Who we are to the registry and to who gives its tokens.
        self.credential: Credential | None = None
        #: Held by whoever finds out what to show.
        self.lock = asyncio.Lock()

    async def before(self, request: httpx.Request) -> None:
        """Nothing for strangers; a password for who gives tokens, but no token; and no plain HTTP after HTTPS."""
        if _origin(request.url) != _origin(self._url) or _is_for_token(request):
            request.headers.pop("Authorization", None)
        if request.url.scheme != "https" and self._url.scheme == "https":
            raise failures.unreachable(self.reference, f"it sends us to {request.url.host!r} without TLS")
        if (
            self.realm
            and _is_for_token(request)
            and request.url.copy_with(query=None) == self.realm.copy_with(query=None)
        ):
            request.url = self.realm
            if self.credential:
                self._introduce(request, self.credential)

    async def after(self, response: httpx.Response) -> None:
        """A refusal says where tokens are, and an answer to a request for a token has one."""
        if response.has_redirect_location and response.request.method == "GET":
            return
        if _is_for_token(response.request):
            await self._small(response)
            if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise failures.denied(self.reference)
            if response.status_code != httpx.codes.OK:
                raise failures.unreachable(self.reference, f"it answers with status {response.status_code}")
            self._check_token(response.content)
        elif response.status_code == httpx.codes.UNAUTHORIZED:
            await self._small(response)
            if _origin(response.request.url) != _origin(self._url):
                raise failures.denied(self.reference)  # who we were sent to may not ask for anything
            self._challenged(response)
            response.extensions["guard"] = self

    def _challenged(self, response: httpx.Response) -> None:
        """Notes what the registry wants to see, a token before a password; in its answer only that is left."""
        offered = challenges.parse(", ".join(response.headers.get_list("WWW-Authenticate")))
        fields = offered.get("bearer", {})
        if realm := fields.get("realm"):
            query = {"scope": _wanted(fields.get("scope") or self._scope())}
            if fields.get("service"):
                query["service"] = [fields["service"]]
            self.realm = httpx.URL(realm).copy_merge_params(query)
            response.headers["WWW-Authenticate"] = f'Bearer realm="{self.realm}"'
        elif "basic" in offered:
            self.realm = None
        else:
            raise failures.denied(self.reference)

    def _scope(self) -> str:
        """What we want to do; nothing when it is only to log in."""
        return f"repository:{self.reference.repository}:pull" if self.reference.repository else ""

    def _introduce(self, request: httpx.Request, credential: Credential) -> None:
        """Tells a token service who we are. Raises TinyoError when others could read that."""
        if request.url.scheme != "https" and not trust.is_loopback(request.url.netloc.decode()):
            why = f"its token service {request.url.host!r} has no TLS, and gets no credentials"
            raise failures.unreachable(self.reference, why)
        if not credential.token:
            request.headers["Authorization"] = credential.basic()

    async def _small(self, response: httpx.Response) -> None:
        """Reads all of an answer, as it comes: what is compressed could be larger than it seems."""
        response.headers.pop("Content-Encoding", None)
        response.stream = _Limited(cast(httpx.AsyncByteStream, response.stream), self.reference)
        await response.aread()

    def _check_token(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            why = "its token service does not answer with JSON"
            raise failures.unreachable(self.reference, why) from error
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise failures.unreachable(self.reference, "its token service answers without a token")


class _Limited(httpx.AsyncByteStream):
    """A body that ends with an error when it becomes too large."""

    def __init__(self, body: httpx.AsyncByteStream, reference: Reference) -> None:
        self._body = body
        self.reference = reference

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        try:
            async for chunk in self._body:
                count += len(chunk)
                if count > MAX_DOCUMENT:
                    raise failures.too_large(self.reference, MAX_DOCUMENT)
                yield chunk
        finally:
            await self._body.aclose()

    async def aclose(self) -> None:
        await self._body.aclose()


def _wanted(asked: str) -> list[str]:
    """Scopes that a registry asks for, and those that are wanted in any case, each with all its actions."""
    wanted = scopes.get()
    known = {scope.rpartition(":")[0] for scope in wanted}
    if not wanted:
        return [asked] if asked else []
    return [*wanted, *(scope for scope in asked.split() if scope.rpartition(":")[0] not in known)]


def _is_for_token(request: httpx.Request) -> bool:
    """Everything else that is asked for says in which form it is wanted."""
    return bool(request.headers.get("Accept") == "*/*")


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
