"""What an image says of its process, in the instructions of a Dockerfile (Dockerfile reference, docker.com)."""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from tinyo_runtime.errors import TinyoError

#: Characters of all of them, and how many there may be.
MAX_LENGTH, MAX_COUNT = 1 << 20, 1000


def configuration(changes: Sequence[str]) -> dict[str, Any]:
    """The "config" of an image after such changes. Raises TinyoError INVALID_SPEC."""
    config: dict[str, Any] = {}
    if len(changes) > MAX_COUNT or sum(map(len, changes)) > MAX_LENGTH:
        raise _invalid("changes", "there are too many of them")
    for index, change in enumerate(changes):
        word, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        try:
            if not apply:
                raise ValueError(f"use one of {', '.join(_INSTRUCTIONS)}")
            if not rest.strip():
                raise ValueError("a value is missing")
            if "\0" in rest:
                raise ValueError("it has a NUL")
            apply(config, rest.strip())
        except ValueError as error:
            raise _invalid(f"changes[{index}]", f"{change[:100]!r} cannot be understood: {error}") from None
    return config


def _invalid(field: str, why: str) -> TinyoError:
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", why, field=field)


def _command(key: str) -> Callable[[dict[str, Any], str], None]:
    """A list in JSON, or a line for a shell."""

    def apply(config: dict[str, Any], text: str) -> None:
        config[key] = _words(text) or ["/bin/sh", "-c", text]

    return apply


def _words(text: str) -> list[str] | None:
    """A list of texts in JSON; None for anything else."""
    try:
        words = json.loads(text) if text.startswith("[") else None
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    if words is not None and not (words and all(isinstance(word, str) for word in words)):
        raise ValueError("a list of texts is expected")
    return words


def _text(key: str) -> Callable[[dict[str, Any], str], None]:
    def apply(config: dict[str, Any], text: str) -> None:
        config[key] = text

    return apply


def _pairs(text: str) -> list[tuple[str, str]]:
    """NAME=VALUE, several of them, in quotes as for a shell; or NAME VALUE."""
    words = shlex.split(text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    pairs = [word.partition("=")[::2] for word in words if "=" in word]
    if len(pairs) != len(words) or not all(name for name, _ in pairs):
        raise ValueError("NAME=VALUE is expected")
    return pairs


def _env(config: dict[str, Any], text: str) -> None:
    variables = dict(one.partition("=")[::2] for one in config.get("Env", []))
    variables |= dict(_pairs(text))
    config["Env"] = [f"{name}={value}" for name, value in variables.items()]


def _label(config: dict[str, Any], text: str) -> None:
    config.setdefault("Labels", {}).update(_pairs(text))


def _expose(config: dict[str, Any], text: str) -> None:
    for word in text.split():
        if not re.fullmatch(r"\d{1,5}(/(tcp|udp|sctp))?", word):
            raise ValueError("a port is expected, as in 80 or 53/udp")
        config.setdefault("ExposedPorts", {})[word if "/" in word else f"{word}/tcp"] = {}


def _volume(config: dict[str, Any], text: str) -> None:
    for path in _words(text) or text.split():
        config.setdefault("Volumes", {})[path] = {}


def _workdir(config: dict[str, Any], text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("an absolute path is expected")
    config["WorkingDir"] = text


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
