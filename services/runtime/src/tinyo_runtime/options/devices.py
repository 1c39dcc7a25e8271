"""Devices: what the kernel lets a container use, which is little unless its spec asks for more (docs/devices.md)."""

import json
import os
import stat
from typing import TYPE_CHECKING

from tinyo_runtime import failures
from tinyo_runtime.devices import cdi, nodes, rules

if TYPE_CHECKING:
    from tinyo_runtime.options import Start

#: In the container's folder: the variables that it got of CDI files, for programs that are run in it later.
VARIABLES = "cdi.json"


async def part(start: "Start") -> None:
    """The container's cgroup is restricted before any process is in it; further processes join that one.

    Raises TinyoError DEVICE_UNUSABLE.
    """
    file = start.container.folder / VARIABLES
    if start.joins:
        if start.spec.cdi and file.exists():
            set_variables(start, json.loads(file.read_text()))
        return
    allowed = [*rules.DEFAULT]
    for index, device in enumerate(start.spec.devices):
        with failures.device(device.source, f"devices[{index}]"):
            allowed.append(give_node(start, device.source, device.target, device.permissions))
    for index, name in enumerate(start.spec.cdi):
        with failures.device(name, f"cdi[{index}]"):
            edits = cdi.resolve(start.spec.cdi[: index + 1])
    if start.spec.cdi:
        with failures.device(" ".join(start.spec.cdi), "cdi"):
            allowed += give(start, edits)
        file.write_text(json.dumps(edits.env))
    for root in start.containers.cgroups.roots:
        rules.restrict(root / start.container.config.id, tuple(dict.fromkeys(allowed)))


def give_node(start: "Start", source: str, target: str, permissions: str) -> rules.Rule:
    """The container has that node; the rule that lets it use it. OSError, Unusable."""
    fd = nodes.opened(source)
    place = start.hand(fd)
    rule = nodes.rule(fd, permissions or "rwm")
    if not rule:
        raise cdi.Unusable("it is no device")
    start.plan["mounts"].append((target or source, place, False))
    return rule


def give(start: "Start", edits: cdi.Edits) -> list[rules.Rule]:
    """What CDI files say; the rules for their nodes. OSError, Unusable."""
    set_variables(start, edits.env)
    allowed = []
    for node in edits.nodes:
        allowed.append(
            give_node(start, node.get("hostPath") or node["path"], node["path"], node.get("permissions", ""))
        )
        nodes.check(start.fds[-1], node)
    for mount in edits.mounts:
        fd = nodes.opened(mount["hostPath"], nodes.attributes(mount))
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        start.plan["mounts"].append((mount["containerPath"], start.hand(fd), is_folder))
    return allowed


def set_variables(start: "Start", variables: list[str]) -> None:
    """In place of the image's; what the spec itself says counts before them."""
    start.plan["env"] += [one for one in variables if one.partition("=")[0] not in start.spec.env]
