"""What an image is once it is complete here, read from its manifest and configuration, which are untrusted."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.reference import DIGEST, Reference

#: Manifests, indexes and configurations are no larger than this (OCI distribution asks for 4 MiB).
MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 500

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)


class Malformed(Exception):
    """A document of an image is not what the OCI image specification says; the text says where."""


@dataclass(frozen=True)
class Descriptor:
    """A reference to content."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def parse(cls, document: Any) -> "Descriptor":
        """Raises Malformed."""
        media_type, digest, size = (_get(document, key, kind) for key, kind in _DESCRIPTOR)
        if not DIGEST.fullmatch(digest) or size < 0:
            raise Malformed(f"a descriptor has digest {digest[:80]!r} and size {size}")
        return cls(media_type, digest, size)


@dataclass(frozen=True)
class ImageConfig:
    """What the image says about its process."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    #: "NAME=value".
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    #: "SIGTERM", "15" or empty.
    stop_signal: str = ""


@dataclass(frozen=True)
class Image:
    """An image that is verified and unpacked."""

    #: Complete names; none when another image has taken them over.
    references: tuple[str, ...]
    #: Of its manifest.
    digest: str
    #: "linux/amd64".
    platform: str
    #: Bytes of compressed layers and configuration.
    size: int
    #: Seconds since 1970, 0 when unknown.
    created: int
    #: Names of folders below `layers/`, the top layer first.
    layers: tuple[str, ...]
    config: ImageConfig


@dataclass(frozen=True)
class Manifest:
    """One image for one platform: its configuration, and its layers from the bottom up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Raises Malformed."""
        document = load(data)
        layers = _get(document, "layers", list)
        if len(layers) > MAX_LAYERS:
            raise Malformed(f"{len(layers)} layers are more than {MAX_LAYERS}")
        return cls(Descriptor.parse(_get(document, "config", dict)), tuple(map(Descriptor.parse, layers)))


@dataclass(frozen=True)
class Configuration:
    """The image's configuration document."""

    platform: str
    created: int
    diff_ids: tuple[str, ...]
    process: ImageConfig

    @classmethod
    def parse(cls, data: bytes) -> "Configuration":
        """Raises Malformed."""
        document = load(data)
        diff_ids = _strings(_get(document, "rootfs", dict), "diff_ids")
        if not all(map(DIGEST.fullmatch, diff_ids)):
            raise Malformed("a diff ID is not a sha256 digest")
        process = _get(document, "config", dict, {})
        return cls(
            platform=platform_of(document),
            created=_time(_get(document, "created", str, "")),
            diff_ids=diff_ids,
            process=ImageConfig(
                entrypoint=_strings(process, "Entrypoint"),
                cmd=_strings(process, "Cmd"),
                env=_strings(process, "Env"),
                workdir=_get(process, "WorkingDir", str, ""),
                user=_get(process, "User", str, ""),
                stop_signal=_get(process, "StopSignal", str, ""),
            ),
        )


def load(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises Malformed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("it is not JSON") from error
    if not isinstance(document, dict):
        raise Malformed("it is not a JSON object")
    return document


def choose(index: bytes, platform: str) -> tuple[Descriptor | None, list[str]]:
    """The manifest for a platform, and which platforms there are; attestations are passed over."""
    available = []
    chosen = None
    for entry in _get(load(index), "manifests", list):
        offered = platform_of(_get(entry, "platform", dict, {}))
        if offered == "/" or "unknown" in offered:
            continue
        available.append(offered)
        if chosen is None and suits(offered, platform):
            chosen = Descriptor.parse(entry)
    return chosen, available


def suits(offered: str, platform: str) -> bool:
    """True when what is offered is the platform, or a variant of it."""
    return platform in (offered, offered.rpartition("/")[0])


def platform_of(document: Mapping[str, Any]) -> str:
    """ "linux/arm64", with the variant where that says more ("linux/arm/v7")."""
    os, architecture = _get(document, "os", str, ""), _get(document, "architecture", str, "")
    variant = _get(document, "variant", str, "")
    return f"{os}/{architecture}" + (
        f"/{variant}" if variant and (architecture, variant) != ("arm64", "v8") else ""
    )


_DESCRIPTOR: tuple[tuple[str, type], ...] = (("mediaType", str), ("digest", str), ("size", int))
_REQUIRED: Any = object()


def _get(document: Any, key: str, kind: type, default: Any = _REQUIRED) -> Any:
    """A member of an object that must be of one type; null and absent are the same (Go writes both)."""
    value = document.get(key) if isinstance(document, dict) else _REQUIRED
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"{key!r} is missing or not of type {kind.__name__}")
    return value


def _strings(document: dict[str, Any], key: str) -> tuple[str, ...]:
    values = _get(document, key, list, [])
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise Malformed(f"{key!r} is not a list of texts")
    return tuple(values)


def _time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for anything else, because nothing depends on it."""
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return 0


def digest_of(data: bytes) -> str:
    """The digest that names some content."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_digest(reference: Reference, expected: str, actual: str) -> None:
    """Raises TinyoError IMAGE_CORRUPT when content is not what its name says."""
    if actual != expected:
        raise corrupt(reference, f"expected {expected}, got {actual}", expected=expected, actual=actual)


def corrupt(reference: Reference, why: str, **facts: str) -> TinyoError:
    """IMAGE_CORRUPT: what was served is not what was promised, or breaks the rules."""
    message = f"image {reference} is not intact and was not kept: {why}"
    return TinyoError(
        grpc.StatusCode.DATA_LOSS, "IMAGE_CORRUPT", message, {"reference": str(reference), **facts}
    )


def unsupported(reference: Reference, media_type: str, why: str = "it is not known here") -> TinyoError:
    """IMAGE_UNSUPPORTED: a kind of content that is not known here."""
    return TinyoError(
        grpc.StatusCode.UNIMPLEMENTED,
        "IMAGE_UNSUPPORTED",
        f"image {reference} has content of type {media_type[:100]!r} that cannot be used: {why}",
        {"reference": str(reference), "media_type": media_type[:100]},
    )
