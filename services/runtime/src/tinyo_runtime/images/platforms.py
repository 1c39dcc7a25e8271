"""Platforms as people and images write them: "linux/arm/v7", or an object of the OCI image specification."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("os", "architecture", "variant")


def of(text: str) -> dict[str, str]:
    """What an image for this platform says of itself; nothing for no platform."""
    return dict(zip(_KEYS, _usual(text).split("/"), strict=False)) if text else {}


def name(document: Mapping[str, Any]) -> str:
    """The platform that a document names; without its variant where every machine has that one."""
    return _usual("/".join(value for key in _KEYS if (value := document.get(key))))


def _usual(text: str) -> str:
    return "linux/arm64" if text == "linux/arm64/v8" else text
