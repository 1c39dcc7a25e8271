"""Devices of the host: by their nodes, and by the names of CDI files."""

import re
from typing import Any

from tinyo_ctl.keys.kinds import Key, One, Several

PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
#: "vendor.com/class=name", as in the specification of the Container Device Interface.
NAME = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?"
)


def device(text: str) -> dict[str, Any]:
    """A device: "/dev/fuse", "/dev/fuse:rw", "/dev/a:/dev/b", "/dev/a:/dev/b:rwm". ValueError."""
    source, *rest = text.split(":")
    made = {"source": source}
    if rest and rest[0].startswith("/"):
        made["target"] = rest.pop(0)
    if rest and PERMISSIONS.fullmatch(rest[0]):
        made["permissions"] = rest.pop(0)
    if NAME.fullmatch(text):
        raise ValueError(f"{text!r} is the name of a CDI device: write it under `cdi`")
    if rest or not source.startswith("/"):
        raise ValueError(
            f"{text!r} is no device: write /dev/NAME, /dev/NAME:/dev/OTHER, each also with :r, :w, :m or several of them"
        )
    return made


def name(text: str) -> str:
    """The fully qualified name of a CDI device. ValueError."""
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a CDI device: write vendor.com/class=name")
    return text


KEYS = {
    "devices": Key("devices", Several(One(device))),
    "cdi": Key("cdi", Several(One(name))),
}
