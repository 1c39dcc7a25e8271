"""The check that an image has of its own (HEALTHCHECK of a Dockerfile); whatever it is not, it is none."""

import logging
from functools import lru_cache
from typing import Any

from tinyo.v1.health_pb2 import ExecCheck, Health

from tinyo_runtime.health.verdict import complete
from tinyo_runtime.images import ImageStore
from tinyo_runtime.images.failures import Malformed

log = logging.getLogger(__name__)

_SHELL = ["/bin/sh", "-c"]
#: Bytes of a program and its arguments, failures in a row, milliseconds.
_MOST_BYTES, _MOST_RETRIES, _SHORTEST, _LONGEST = 64 << 10, 1000, 1000, 24 * 3_600_000


def read(images: ImageStore, digest: str) -> Health | None:
    """The check of an image that is here; None when it has none, or one that cannot be meant."""
    try:
        return _read(images, digest)
    except (FileNotFoundError, Malformed) as error:  # somebody damaged it: its containers go on, unchecked
        log.warning("the configuration of image %s cannot be read: %s", digest, error)
        return None


@lru_cache(1024)
def _read(images: ImageStore, digest: str) -> Health | None:
    process = images.documents(digest)[1].get("config")
    said = process.get("Healthcheck") if isinstance(process, dict) else None
    if not isinstance(process, dict) or not isinstance(said, dict):
        return None
    if not (command := _command(said.get("Test"), process)):
        return None
    retries = said.get("Retries")
    return complete(
        Health(
            exec=ExecCheck(command=command),
            interval_ms=_millis(said.get("Interval")),
            timeout_ms=_millis(said.get("Timeout")),
            start_period_ms=_millis(said.get("StartPeriod")),
            start_interval_ms=_millis(said.get("StartInterval")),
            retries=min(retries, _MOST_RETRIES) if isinstance(retries, int) and retries > 0 else 0,
        )
    )


def _command(test: Any, process: dict[str, Any]) -> list[str]:
    """Of ["CMD", program, …] and ["CMD-SHELL", text]; nothing of ["NONE"] and of what is no list of texts."""
    if not _texts(test):
        return []
    match test:
        case ["CMD", program, *arguments] if program:
            return [program, *arguments]
        case ["CMD-SHELL", text]:
            shell = process.get("Shell")
            return [*(shell if shell and _texts(shell) else _SHELL), text]
    return []


def _texts(value: Any) -> bool:
    """Whether it is a list of texts that can be handed to a program."""
    if not isinstance(value, list) or not all(isinstance(one, str) and "\0" not in one for one in value):
        return False
    try:
        return sum(len(one.encode()) for one in value) <= _MOST_BYTES
    except UnicodeEncodeError:  # JSON may hold half of a surrogate pair
        return False


def _millis(nanoseconds: Any) -> int:
    """0, which is the default, for what is no time."""
    if not isinstance(nanoseconds, int) or nanoseconds <= 0:
        return 0
    return max(_SHORTEST, min(nanoseconds // 1_000_000, _LONGEST))
