"""Keys about where a container keeps its files: `tmpfs`, `read_only`, `shm_size`; and what a mount can say."""

import re
from typing import Any

from tinyo.v1.storage_pb2 import Propagation

from tinyo_ctl.keys.kinds import Key, One, Several, Table
from tinyo_ctl.keys.values import size, truth

#: As people know them from docker; none of ours spreads without all that is below.
PROPAGATIONS = {
    f"{prefix}{name}": getattr(Propagation, f"PROPAGATION_{name.upper()}")
    for name in ("private", "slave", "shared")
    for prefix in ("", "r")
}


def mode(text: str) -> int:
    """Permission bits, in octal: "1777", "0755"."""
    if not re.fullmatch("(0o?)?[0-7]{1,4}", text):
        raise ValueError(f"{text!r} is no mode: write it in octal, as in 1777")
    return int(text.removeprefix("0o"), 8)


def propagation(text: str) -> int:
    """How mounts spread, by docker's names."""
    if text not in PROPAGATIONS:
        raise ValueError(f"{text!r} is no propagation: write one of {', '.join(PROPAGATIONS)}")
    return int(PROPAGATIONS[text])


def target(text: str) -> str:
    """A path, which cannot be empty."""
    if not text:
        raise ValueError("a path is expected here")
    return text


def tmpfs(text: str) -> dict[str, Any]:
    """A file system in memory: "/run" or "/run:size=64m,mode=755"."""
    path, colon, options = text.partition(":")
    values: dict[str, Any] = {"target": target(path)}
    for option in options.split(",") if colon else []:
        name, _, value = option.partition("=")
        match name:
            case "size":
                values["size_bytes"] = size(value)
            case "mode":
                values["mode"] = mode(value)
            case "rw" | "nosuid" | "nodev":  # as it is anyway
                continue
            case _:
                raise ValueError(f"{option!r} is no option of a tmpfs: there are size=64m and mode=1777")
    return values


KEYS = {
    "tmpfs": Key(
        "tmpfs",
        Several(
            Table(
                {
                    "target": Key("target", One(target), needed=True),
                    "size": Key("size_bytes", One(size)),
                    "mode": Key("mode", One(mode)),
                },
                short=tmpfs,
            )
        ),
    ),
    "read_only": Key("read_only", One(truth)),
    "shm_size": Key("shm_size_bytes", One(size)),
}
