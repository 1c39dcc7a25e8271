"""Instructions of a Dockerfile that change what an image says about its process (Dockerfile reference).

applied({"Env": ["A=1"]}, ["ENV B=${A}2", 'CMD ["serve"]'])    # {"Env": ["A=1", "B=12"], "Cmd": ["serve"]}
"""

import json
import posixpath
import re
import signal
from collections.abc import Callable, Sequence
from copy import deepcopy

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.words import words

_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)


class Wrong(Exception):
    """An instruction means nothing; the text says why."""


def applied(process: Document, changes: Sequence[str]) -> Document:
    """What an image says about its process, with changes in their order. Raises TinyoError CHANGE_INVALID."""
    process = deepcopy(process)
    seen = set[str]()
    for index, text in enumerate(changes):
        name, rest = (*text.split(maxsplit=1), "", "")[:2]
        name, rest = name.upper(), rest.strip()
        try:
            if name not in INSTRUCTIONS:
                raise Wrong(f"known are {', '.join(INSTRUCTIONS)}")
            if not rest or "\0" in rest:
                raise Wrong(f"{name} needs something that it can be set to")
            INSTRUCTIONS[name](process, rest)
        except (Wrong, ValueError) as error:
            raise _invalid(text, str(error), f"options.changes[{index}]") from None
        if name == "ENTRYPOINT" and "CMD" not in seen:
            process.pop("Cmd", None)  # it was for another program
        seen.add(name)
    return process


def _invalid(text: str, why: str, field: str) -> TinyoError:
    shown = text if len(text) <= 100 else text[:100] + "…"
    message = f"{shown!r} changes nothing in an image: {why}"
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "CHANGE_INVALID", message, {"change": shown}, field)


def _list(text: str) -> list[str] | None:
    """A JSON array of texts; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _program(key: str) -> Callable[[Document, str], None]:
    def change(process: Document, text: str) -> None:
        listed = _list(text)
        if listed is None and text.startswith("["):
            raise Wrong("a list must be JSON, with texts in double quotes")
        shell = process.get("Shell")
        process[key] = [*(shell if isinstance(shell, list) else _SHELL), text] if listed is None else listed

    return change


def _pairs(process: Document, text: str) -> dict[str, str]:
    """NAME=value…, or NAME and a value to the end."""
    split = _split(process, text)
    if "=" not in split[0]:
        if len(split) == 1:
            raise Wrong("it has no value: write NAME=value")
        return {split[0]: " ".join(split[1:])}
    pairs = [word.partition("=") for word in split]
    if not all(name and equals for name, equals, _ in pairs):
        raise Wrong("each must be NAME=value")
    return {name: value for name, _, value in pairs}


def _env(process: Document, text: str) -> None:
    new = _pairs(process, text)
    process["Env"] = [f"{name}={value}" for name, value in (_environment(process) | new).items()]


def _label(process: Document, text: str) -> None:
    process["Labels"] = _mapping(process, "Labels") | _pairs(process, text)


def _expose(process: Document, text: str) -> None:
    ports = _mapping(process, "ExposedPorts")
    for word in _split(process, text):
        if not (match := _PORT.fullmatch(word)):
            raise Wrong(f"{word!r} is no port: write it like 80 or 53/udp")
        first, last, protocol = int(match[1]), int(match[2] or match[1]), match[3] or "tcp"
        if not 0 < first <= last < 65536:
            raise Wrong(f"{word!r} is no port")
        ports |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    process["ExposedPorts"] = ports


def _user(process: Document, text: str) -> None:
    process["User"] = _one(process, text)


def _workdir(process: Document, text: str) -> None:
    before = process.get("WorkingDir")
    path = posixpath.join("/", before if isinstance(before, str) else "", _one(process, text))
    process["WorkingDir"] = posixpath.normpath(path).replace("//", "/")


def _stop_signal(process: Document, text: str) -> None:
    name = _one(process, text)
    full = name if name.startswith("SIG") else f"SIG{name}"
    known = full in signal.Signals.__members__ or re.fullmatch("[1-9]|[1-5][0-9]|6[0-4]", name)
    if not known:
        raise Wrong(f"{name!r} is no signal")
    process["StopSignal"] = name


def _volume(process: Document, text: str) -> None:
    paths = _list(text) or _split(process, text)
    if not all(path.startswith("/") for path in paths):
        raise Wrong("a volume is an absolute path")
    process["Volumes"] = _mapping(process, "Volumes") | {path: {} for path in paths}


INSTRUCTIONS: dict[str, Callable[[Document, str], None]] = {
    "CMD": _program("Cmd"),
    "ENTRYPOINT": _program("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _one(process: Document, text: str) -> str:
    found = _split(process, text)
    if len(found) != 1:
        raise Wrong("it takes one word")
    return found[0]


def _split(process: Document, text: str) -> list[str]:
    found = words(text, _environment(process))
    if not found:
        raise Wrong("nothing is left of it")
    return found


def _environment(process: Document) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in process.get("Env") or () if "=" in entry)


def _mapping(process: Document, key: str) -> Document:
    """A member of a base, which may have anything there."""
    value = process.get(key)
    return dict(value) if isinstance(value, dict) else {}
