"""What may be written in short in a Statefile, and what that stands for. ValueError with a sentence for people."""

import os
import shlex
from typing import Any

from tinyo_ctl import keys


def spell_out(values: dict[str, Any], path: str) -> None:
    """Changes the values of the Statefile at `path` to what the contract has.

    A key without a value is as if it were not there; relative paths begin at the file's folder.
    """
    folder = os.getcwd() if path == "-" else os.path.dirname(os.path.realpath(path))
    for key in [key for key, value in values.items() if not value]:
        del values[key]
    if isinstance(command := values.get("command"), str):
        values["command"] = words(command)
    if not isinstance(env := values.get("env", {}), dict):
        values["env"] = dict(map(variable, several(env)))
    if mounts := values.get("mounts"):
        values["mounts"] = [mount(one, folder) for one in several(mounts)]
    keys.spell_out(values)


def several(value: Any) -> list[Any]:
    """A list; something that is no list is a list of one."""
    return value if isinstance(value, list) else [value]


def words(text: str) -> list[str]:
    """A command in one text, split as a shell would split it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {str(error).lower()}") from None


def variable(text: str) -> tuple[str, str]:
    """An environment variable, "NAME=value"."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is no environment variable: write NAME=value")
    return name, value


def mount(written: str | dict[str, str], folder: str) -> dict[str, Any]:
    """A mount by its keys, or in short."""
    values: dict[str, Any] = short_mount(written) if isinstance(written, str) else dict(written)
    # Without following links, so that the same file always means the same spec.
    source = os.path.expanduser(values["source"])
    values["source"] = os.path.normpath(os.path.join(folder, source))
    for key in values.keys() - {"source", "target"}:
        values[key] = truth(values[key])
    return values


def short_mount(text: str) -> dict[str, str]:
    """A mount: "source:target" or "source:target:ro"."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not (source and target) or mode not in ("", "ro"):
        raise ValueError(f"{text!r} is no mount: write source:target or source:target:ro")
    return {"source": source, "target": target, "read_only": "true" if mode else "false"}


def path(text: str) -> str:
    """A path, which cannot be empty."""
    if not text:
        raise ValueError("a path is expected here")
    return text


def truth(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"
