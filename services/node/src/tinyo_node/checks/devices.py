"""Devices of the host: defaults, and what can be wrong with them. Whether they exist is seen when a container starts."""

import re
from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec

PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
#: The grammar of fully qualified names in the specification of the Container Device Interface.
NAME = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?"
)
MAX_DEVICES, MAX_PATH = 1000, 4095


def fill(spec: ContainerSpec) -> None:
    """The same place in the container, and everything is allowed."""
    for device in spec.devices:
        device.target = device.target or device.source
        device.permissions = device.permissions or "rwm"


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with them."""
    for field in ("devices", "cdi"):
        if len(getattr(spec, field)) > MAX_DEVICES:
            yield field, f"a container has at most {MAX_DEVICES} {field}"
    targets = set[str]()
    for index, device in enumerate(spec.devices):
        field = f"devices[{index}]"
        for part in ("source", "target"):
            path = getattr(device, part)
            usable = path.startswith("/") and ".." not in path.split("/") and path.strip("/")
            if not usable or "\0" in path or len(path) > MAX_PATH:
                yield f"{field}.{part}", f"device {path!r} must be an absolute path without '..', not '/'"
        if not PERMISSIONS.fullmatch(device.permissions):
            yield (
                f"{field}.permissions",
                f"permissions {device.permissions!r} are not some of 'rwm', each once",
            )
        if device.target in targets:
            yield f"{field}.target", f"the device {device.target} is there twice"
        targets.add(device.target)
    for index, name in enumerate(spec.cdi):
        if not NAME.fullmatch(name):
            yield f"cdi[{index}]", f"{name!r} is no name of a CDI device: write vendor.com/class=name"
