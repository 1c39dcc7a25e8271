"""Which names of images there are (the grammar of distribution/reference)."""

import ipaddress
import re
from typing import TYPE_CHECKING

from tinyo_runtime.images import failures

if TYPE_CHECKING:
    from tinyo_runtime.images.reference import Reference

DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::([0-9]{{1,5}}))?")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def check(text: str, complete: "Reference") -> None:
    """Raises TinyoError IMAGE_REFERENCE_INVALID when what was written, and completed, is no name."""
    name = text.partition("@")[0]
    if name.endswith(":") or not (
        len(complete.registry) + len(complete.repository) <= 255
        and _is_registry(complete.registry)
        and _REPOSITORY.fullmatch(complete.repository)
        and (_TAG.fullmatch(complete.tag) if complete.tag else True)
        and (DIGEST.fullmatch(complete.digest) if "@" in text else True)
    ):
        raise failures.reference_invalid(text)


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
