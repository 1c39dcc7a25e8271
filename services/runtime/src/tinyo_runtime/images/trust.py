"""With what a connection to a registry is trusted, and whom.

The authorities of the machine's administrator; a token goes to the registry that gave it, and nowhere else;
who was spoken to with TLS cannot send us elsewhere without; answers in which nothing large can be are small.
"""

import functools
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tinyo_runtime.images import failures
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images


def plain(host: str, insecure: frozenset[str]) -> bool:
    """True for the registries that the administrator named, and for every other address of loopback."""
    return not insecure.isdisjoint((host, host.rpartition(":")[0])) or is_loopback(host)


def is_loopback(host: str) -> bool:
    """True for this machine, written "localhost:5000", "127.0.0.1:5000" or "[::1]:5000"."""
    import httpx  # when it is needed: it takes long

    name = httpx.URL(f"http://{host}").host
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def options(store: "Images", reference: Reference, url: str) -> dict[str, Any]:
    """How httpx.AsyncClient is to speak to the repository at `url`. Raises TinyoError REGISTRY_MISCONFIGURED."""
    import httpx

    from tinyo_runtime.images.guard import Guard
    from tinyo_runtime.images.mirrors import Mirrors

    assert isinstance(store, Mirrors)

    guard = Guard(reference, httpx.URL(url))
    authorities = store.registries.authorities(reference.registry)
    identity = store.registries.identity(reference.registry)
    return {
        "headers": {"User-Agent": "tinyo", "Accept-Encoding": "identity"},
        "timeout": httpx.Timeout(30, connect=5, pool=None),
        "max_redirects": 5,
        "trust_env": not is_loopback(reference.registry),
        "verify": _trusted(authorities),
        "mounts": _introduced(httpx.URL(url), authorities, identity) if identity else {},
        "event_hooks": {"request": [guard.before], "response": [guard.after]},
    }


def _introduced(
    url: "httpx.URL", authorities: tuple[str, ...], identity: tuple[str, str]
) -> "dict[str, httpx.AsyncBaseTransport]":
    """Our certificate is for the registry alone: whoever it sends us to, for tokens or layers, does not see it."""
    from urllib.request import getproxies, proxy_bypass

    import httpx

    proxy = None if proxy_bypass(url.host) else getproxies().get("https") or getproxies().get("all")
    context = _trusted(authorities, identity)
    return {f"https://{url.netloc.decode()}": httpx.AsyncHTTPTransport(verify=context, proxy=proxy)}


@functools.cache
def _trusted(files: tuple[str, ...], identity: tuple[str, str] | None = None) -> ssl.SSLContext:
    """The authorities of the machine's administrator, those that come with httpx, and those in these files."""
    import httpx

    context = httpx.create_ssl_context()
    context.sslobject_class = _Connection
    context.load_default_certs()
    for file in files:
        with _explained(file, "it has no certificates in PEM form"):
            context.load_verify_locations(file)
    if identity:
        certificate, key = identity
        why = f"it is no certificate in PEM form that {key} is the key of"
        with _explained(certificate, why):
            context.load_cert_chain(certificate, key, password="")
    return context


class _Connection(ssl.SSLObject):
    """A refusal that comes after the handshake (RFC 8446, section 4.4.2.4) breaks the connection, as other errors do.

    httpx leaves errors of TLS as they are when they come while reading.
    """

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """The same. Raises ssl.SSLSyscallError."""
        try:
            return super().read(len, buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            raise ssl.SSLSyscallError(*error.args) from error


@contextmanager
def _explained(file: str, why: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise failures.misconfigured(file, why) from error
    except OSError as error:
        raise failures.misconfigured(file, f"it cannot be read: {error.strerror}") from error
