"""Names of images, as people write them and in their complete form (the grammar of distribution/reference)."""

import ipaddress
import re
from dataclasses import dataclass

import grpc

from tinyo_runtime.errors import TinyoError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::([0-9]{{1,5}}))?")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """A complete name; `str()` gives "docker.io/library/alpine:latest". With a digest the tag is only a hint."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}{'@' + self.digest if self.digest else ''}"

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises TinyoError IMAGE_REFERENCE_INVALID. Short names mean Docker Hub; no tag and no digest, "latest"."""
        name, _, digest = text.partition("@")
        registry, slash, repository = name.partition("/")
        if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
            registry, repository = "docker.io", name
        registry = "docker.io" if registry == "index.docker.io" else registry
        repository, _, tag = repository.partition(":")
        if registry == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        complete = cls(registry, repository, tag if tag or digest else "latest", digest)
        if not (
            len(registry) + len(repository) <= 255
            and _is_registry(registry)
            and _REPOSITORY.fullmatch(repository)
            and (_TAG.fullmatch(tag) if ":" in name.rpartition("/")[2] else True)
            and (DIGEST.fullmatch(digest) if "@" in text else True)
        ):
            shown = text if len(text) <= 100 else text[:100] + "…"
            raise TinyoError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "IMAGE_REFERENCE_INVALID",
                f"{shown!r} is not the name of an image: write it like alpine, alpine:3.20 or host:5000/team/app:1.2",
                {"reference": shown},
            )
        return complete


def _is_registry(text: str) -> bool:
    """True for a host name or an address, with or without a port."""
    if not (match := _REGISTRY.fullmatch(text)) or int(match[2] or 0) > 65535:
        return False
    if re.fullmatch(r"\[.*\]|[0-9.]+", match[1]):
        try:
            ipaddress.ip_address(match[1].strip("[]"))
        except ValueError:
            return False
    return True
