"""JSON that somebody else wrote."""

from typing import Any

from tinyo_runtime.images.failures import Malformed

_REQUIRED: Any = object()


def member(document: Any, key: str, kind: type, default: Any = _REQUIRED) -> Any:
    """A member of an object that must be of one type; null and absent are the same (Go writes both)."""
    value = document.get(key) if isinstance(document, dict) else _REQUIRED
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"{key!r} is missing or not of type {kind.__name__}")
    return value
