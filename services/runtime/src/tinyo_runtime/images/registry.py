"""A registry, spoken to as the OCI distribution specification v1.1 says (pull only).

HTTPS always, except for loopback and for registries that the administrator named. A token goes to the
registry that asked for it, and nowhere else. What may pass is tried again, and a blob that was cut off
continues where it ended.
"""

import asyncio
import functools
import ipaddress
import json
import re
import ssl
from collections.abc import AsyncGenerator

import grpc
import httpx

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    check_digest,
    corrupt,
    digest_of,
    unsupported,
)
from tinyo_runtime.images.reference import Reference

#: Seconds between attempts.
DELAYS = (0.2, 0.6, 1.8)
TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
#: Bytes after which a blob that was cut off again has made progress, and gets all its attempts anew.
PROGRESS = 1 << 20

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_ACCEPT = ", ".join(MANIFEST_TYPES + INDEX_TYPES)


class Registry:
    """One registry, by the name that references have; close it in the end."""

    def __init__(self, name: str, insecure: frozenset[str] = frozenset()) -> None:
        self.name = name
        local = is_loopback(name)
        plain = local or name in insecure or name.rpartition(":")[0] in insecure
        endpoint = "registry-1.docker.io" if name == "docker.io" else name
        self._origin = httpx.URL(f"{'http' if plain else 'https'}://{endpoint}")
        self._tokens: dict[str, str] = {}
        self._answered = False
        self._client = httpx.AsyncClient(
            base_url=self._origin.join("/v2/"),
            headers={"User-Agent": "tinyo", "Accept-Encoding": "identity"},
            timeout=TIMEOUT,
            follow_redirects=True,
            max_redirects=5,
            trust_env=not local,
            verify=_trusted(),
            event_hooks={"request": [self._guard]},
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()

    async def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]:
        """What a tag or digest stands for: a manifest or an index. Raises TinyoError."""
        version = reference.digest or reference.tag
        response = await self._get(reference, f"manifests/{version}", {"Accept": _ACCEPT})
        data = await self._body(response)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        descriptor = Descriptor(media_type, digest_of(data), len(data))
        if reference.digest:
            check_digest(reference, reference.digest, descriptor.digest)
        if media_type not in MANIFEST_TYPES + INDEX_TYPES:
            raise unsupported(reference, media_type)
        return descriptor, data

    async def document(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A small blob, verified. Raises TinyoError."""
        if descriptor.size > MAX_DOCUMENT:
            raise corrupt(reference, f"a document of {descriptor.size} bytes is more than {MAX_DOCUMENT}")
        data = b"".join([chunk async for chunk in self.blob(reference, descriptor)])
        check_digest(reference, descriptor.digest, digest_of(data))
        return data

    async def blob(self, reference: Reference, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob, not verified but never more than there should be. Raises TinyoError."""
        received = settled = 0
        delays = iter(DELAYS)
        while received < descriptor.size:
            resume = {"Range": f"bytes={received}-"} if received else {}
            response = await self._get(reference, f"blobs/{descriptor.digest}", resume)
            failure: Exception | None = None
            try:
                known = received if response.status_code == httpx.codes.OK else 0  # a server may ignore Range
                async for chunk in response.aiter_raw():
                    new = chunk[known:]
                    known -= len(chunk) - len(new)
                    received += len(new)
                    if received > descriptor.size:
                        raise corrupt(
                            reference, f"{descriptor.digest} is larger than {descriptor.size} bytes"
                        )
                    yield new
            except httpx.TransportError as error:
                failure = error
            finally:
                await response.aclose()
            if received < descriptor.size:
                if received - settled >= PROGRESS:
                    settled, delays = received, iter(DELAYS)
                delay = next(delays, None)
                if delay is None:
                    raise self._unreachable(f"cut off after {received} bytes") from failure
                await asyncio.sleep(delay)

    async def _get(self, reference: Reference, path: str, headers: dict[str, str]) -> httpx.Response:
        """A good answer, its body still unread. A registry that never answered is not tried again."""
        path = f"{reference.repository}/{path}"
        delays = iter(DELAYS)
        while True:
            delay = next(delays, None)
            try:
                response = await self._send(reference, path, headers)
                self._answered = True
                if response.status_code in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    return response
                await response.aclose()
                if response.status_code not in _TRANSIENT or delay is None:
                    raise self._refusal(reference, response.status_code)
                wait = response.headers.get("Retry-After", "")
                delay = max(delay, min(float(wait), 10)) if wait.isdigit() else delay
            except (httpx.RequestError, httpx.InvalidURL) as error:
                if delay is None or not self._answered:
                    raise self._unreachable(str(error) or type(error).__name__) from error
            await asyncio.sleep(delay)

    async def _send(self, reference: Reference, path: str, headers: dict[str, str]) -> httpx.Response:
        """One request; when a token is asked for, it is fetched and the request sent once more."""
        for attempt in range(2):
            token = self._tokens.get(reference.repository)
            authorization = {"Authorization": f"Bearer {token}"} if token else {}
            request = self._client.build_request("GET", path, headers=headers | authorization)
            response = await self._client.send(request, stream=True)
            if response.status_code != httpx.codes.UNAUTHORIZED or attempt:
                break
            await response.aclose()
            challenge = response.headers.get("WWW-Authenticate", "")
            self._tokens[reference.repository] = await self._token(reference, challenge)
        return response

    async def _token(self, reference: Reference, challenge: str) -> str:
        """An anonymous token, from where the challenge says (distribution's token authentication)."""
        scheme, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise self._refusal(reference, httpx.codes.UNAUTHORIZED)
        query = {"scope": fields.get("scope", f"repository:{reference.repository}:pull")}
        if "service" in fields:
            query["service"] = fields["service"]
        url = httpx.URL(fields["realm"]).copy_merge_params(query)
        response = await self._client.send(self._client.build_request("GET", url), stream=True)
        body = await self._body(response)
        if response.status_code != httpx.codes.OK:
            raise self._refusal(reference, response.status_code)
        try:
            document = json.loads(body)
        except ValueError as error:
            raise self._unreachable("its token service does not answer with JSON") from error
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise self._unreachable("its token service answers without a token")
        return token

    async def _body(self, response: httpx.Response) -> bytes:
        """A whole body that is known to be small."""
        data = bytearray()
        try:
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_DOCUMENT:
                    raise self._unreachable(f"it answers with a document of more than {MAX_DOCUMENT} bytes")
        except httpx.TransportError as error:
            raise self._unreachable(f"cut off after {len(data)} bytes") from error
        finally:
            await response.aclose()
        return bytes(data)

    async def _guard(self, request: httpx.Request) -> None:
        """Sees every request, those after a redirect too: no token for strangers, no plain HTTP after HTTPS."""
        if _origin(request.url) != _origin(self._origin):
            request.headers.pop("Authorization", None)
        if request.url.scheme != "https" and self._origin.scheme == "https":
            raise self._unreachable(f"it sends us to {request.url.host!r} without TLS")

    def _refusal(self, reference: Reference, status: int) -> TinyoError:
        about = {"reference": str(reference), "registry": self.name}
        if status == httpx.codes.NOT_FOUND:
            message = f"image {reference} was not found: registry {self.name} does not have it"
            return TinyoError(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", message, about)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            message = f"registry {self.name} denies access to {reference}: it does not exist there, or is not public"
            return TinyoError(grpc.StatusCode.PERMISSION_DENIED, "REGISTRY_DENIED", message, about)
        return self._unreachable(f"it answers with status {status}")

    def _unreachable(self, why: str) -> TinyoError:
        return TinyoError(
            grpc.StatusCode.UNAVAILABLE,
            "REGISTRY_UNREACHABLE",
            f"registry {self.name} cannot be reached: {why}",
            {"registry": self.name},
        )


def is_loopback(name: str) -> bool:
    """True for a registry on this machine, written "localhost:5000", "127.0.0.1:5000" or "[::1]:5000"."""
    host = httpx.URL(f"http://{name}").host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The authorities of the machine's administrator, and those that come with httpx."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
