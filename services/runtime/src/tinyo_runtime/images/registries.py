"""What the administrator says about registries: /etc/INSTANCE/registries.toml and /etc/INSTANCE/certs.d.

["docker.io"]
mirrors = ["mirror.example.com", "cache.example.com:5000/hub"]    asked in this order, before the registry

["cache.example.com:5000"]
insecure = true                                                   without TLS

["registry.example.com"]
ca = "/etc/ssl/example.pem"                                       authorities that it may have besides
cert = "/etc/ssl/me.pem"                                          who we are to it, as a certificate
key = "/etc/ssl/me.key"                                           and its key
"""

import ssl
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import credentials, failures, marks
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import ImageStore
    from tinyo_runtime.settings import Settings

HUB = "docker.io"
KEYS = ("insecure", "mirrors", "ca", "cert", "key")
FILES = KEYS[2:]


@dataclass(frozen=True)
class Registry:
    """One table of the file."""

    insecure: bool = False
    #: Each with the beginning of its repositories, which may be empty.
    mirrors: tuple[tuple[str, str], ...] = ()
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True)
class Registries:
    """Everything that is said about them; nothing, unless somebody says it."""

    tables: Mapping[str, Registry] = field(default_factory=dict)
    #: Folders of authorities, by registry.
    certificates: Path | None = None

    @property
    def insecure(self) -> frozenset[str]:
        """Those that are spoken to without TLS."""
        return frozenset(registry for registry, table in self.tables.items() if table.insecure)

    def mirrors(self, reference: Reference) -> Iterator[Reference]:
        """Where an image may be as well, in the order in which to ask."""
        for host, prefix in self.tables.get(reference.registry, Registry()).mirrors:
            repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
            yield reference._replace(registry=host, repository=repository)

    def authorities(self, registry: str) -> tuple[str, ...]:
        """Files of authorities that a registry may have besides the machine's."""
        ca = self.tables.get(registry, Registry()).ca
        return (*([ca] if ca else []), *map(str, self._files(registry, "*.crt")))

    def identity(self, registry: str) -> tuple[str, str] | None:
        """Files of our certificate for a registry, and of its key. Raises TinyoError REGISTRY_MISCONFIGURED."""
        table = self.tables.get(registry, Registry())
        if table.cert:
            return table.cert, table.key
        for certificate in self._files(registry, "*.cert"):
            if not (key := certificate.with_suffix(".key")).exists():
                why = f"its key {key.name} is not beside it (an authority's certificate is called *.crt)"
                raise failures.misconfigured(str(certificate), why)
            return str(certificate), str(key)
        return None

    def _files(self, registry: str, pattern: str) -> list[Path]:
        return sorted((self.certificates / registry).glob(pattern)) if self.certificates else []


def configure(images: "ImageStore", config: "Settings") -> None:
    """Tells a store what the administrator of an instance says; SystemExit with one sentence when that is wrong."""
    images.registries = load(Path("/etc", config.instance))
    images.insecure |= images.registries.insecure
    images.limits = marks.understood(config)


def load(folder: Path) -> Registries:
    """What is said in a folder; SystemExit with one sentence that names file and key when anything is wrong."""
    file = folder / "registries.toml"
    try:
        found = tomllib.loads(file.read_text()) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file}: {error}") from error
    tables = {}
    for key, values in found.items():
        try:
            registry = name(key)
            if registry in tables:
                raise ValueError(f"{registry} is there twice")
            tables[registry] = _table(registry, values)
        except TinyoError:
            raise SystemExit(f"{file}: {key!r} is no registry: write host or host:port") from None
        except ValueError as error:
            raise SystemExit(f"{file}: {key}: {error}") from None
    return Registries(tables, folder / "certs.d")


def name(text: str) -> str:
    """The name of a registry, also from "https://host/v2/"; every name of Docker Hub is "docker.io".

    Raises TinyoError LOGIN_INVALID.
    """
    registry = credentials.normal(text.strip()).rstrip("/")
    registry = HUB if registry == credentials.HUB else registry
    try:
        # With a port, because "localhost" or "myhost" would be the name of an image otherwise.
        if "/" in registry or not _parsed(registry).registry:
            raise failures.login_invalid(text, "it is no registry: write host or host:port")
    except TinyoError:
        raise failures.login_invalid(text, "it is no registry: write host or host:port") from None
    return registry


def _parsed(registry: str) -> Reference:
    host = registry if ":" in registry.rpartition("]")[2] else f"{registry}:443"
    return Reference.parse(f"{host}/x")


def _table(registry: str, values: Any) -> Registry:
    """One table. Raises ValueError with what is wrong, the key first."""
    if not isinstance(values, dict):
        raise ValueError(f'write ["{registry}"], and keys on the lines below')
    if unknown := sorted(set(values) - set(KEYS)):
        raise ValueError(f"unknown key {unknown[0]!r}; there are: {', '.join(KEYS)}")
    insecure, mirrors = values.get("insecure", False), values.get("mirrors", [])
    ca, cert, key = files = [values.get(name, "") for name in FILES]
    if not isinstance(insecure, bool):
        raise ValueError("insecure: write true or false")
    if not isinstance(mirrors, list) or not all(isinstance(one, str) for one in mirrors):
        raise ValueError('mirrors: write a list, as in ["mirror.example.com", "cache.example.com:5000/hub"]')
    for name, file in zip(FILES, files, strict=True):
        if not isinstance(file, str):
            raise ValueError(f'{name}: write the path of a file, as in "/etc/ssl/example.pem"')
        if file and insecure:
            raise ValueError(f"insecure: {name} is of no use then")
        if file and not Path(file).is_absolute():
            raise ValueError(f"{name}: {file!r} is no absolute path")
    if insecure and registry == HUB:
        raise ValueError("insecure: Docker Hub has TLS")
    if bool(cert) != bool(key):
        raise ValueError("cert: write key as well" if cert else "key: write cert as well")
    if ca:
        _check("ca", ca, lambda: ssl.create_default_context(cafile=ca))
    if cert:
        own = ssl.create_default_context()
        _check("cert", f"{cert} with {key}", lambda: own.load_cert_chain(cert, key, password=""))
    return Registry(insecure, tuple(_mirror(registry, one) for one in mirrors), ca, cert, key)


def _mirror(registry: str, text: str) -> tuple[str, str]:
    host, _, prefix = text.partition("/")
    try:
        mirror = Reference.parse(f"{name(host)}/{prefix}{'/' if prefix else ''}x") if prefix else None
        host = name(host)
    except TinyoError:
        mirror, host = None, ""
    if not host or "://" in text or (prefix and (not mirror or mirror.tag != "latest")):
        raise ValueError(f"mirrors: {text!r} is no mirror: write host, host:port or host:port/folder")
    if host == registry and not prefix:
        raise ValueError(f"mirrors: {text!r} is the registry itself, which is asked last anyway")
    return host, prefix


def _check(name: str, files: str, load: Callable[[], object]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        wrong = (
            "has no certificates in PEM form" if name == "ca" else "is no certificate and its key in PEM form"
        )
        raise ValueError(f"{name}: {files} {wrong}") from error
    except OSError as error:
        raise ValueError(f"{name}: {files}: {error.strerror}") from error
