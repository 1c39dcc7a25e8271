"""Specs as they are stored: checked against everything that only the node can know, defaults filled in."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.container_pb2 import PROTOCOL_TCP, Container, ContainerSpec, Port

from tinyo_node import checks
from tinyo_node.checks import published
from tinyo_node.errors import TinyoError

if TYPE_CHECKING:
    from tinyo_node.cluster import State

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
#: Characters of the longest path, argument or value.
MAX_TEXT = 128 * 1024
MAX_CONTAINERS = 10_000


def complete(state: "State", request: pb.ApplyRequest) -> None:
    """Fills in the defaults. INVALID_SPEC with every violation when any is wrong; PORT_IN_USE and NAME_TAKEN
    when something belongs to a container that stays."""
    violations: dict[str, str] = {}
    specs = request.containers
    for index, spec in enumerate(specs):
        for port in spec.ports:
            port.protocol = port.protocol or PROTOCOL_TCP
            port.host_ip = published.address(port.host_ip)
        checks.fill(spec)
        for field, text in (*check(spec), *checks.check(spec)):
            violations.setdefault(f"containers[{index}].{field}", text)
    names = [spec.name for spec in specs]
    for index, name in enumerate(names):
        if name in names[:index]:
            violations[f"containers[{index}].name"] = f"the name {name!r} is used twice"
    used = published.Used[str]()
    for i, spec in enumerate(specs):
        for j, port in enumerate(spec.ports):
            place = f"containers[{i}].ports[{j}].host_port"
            if used.holder(port) is not None:
                violations.setdefault(place, f"host port {port.host_port} is used twice")
            used.add(port, place)
    if violations or not 0 < len(specs) <= MAX_CONTAINERS:
        message = next(iter(violations.values()), f"an apply has 1 to {MAX_CONTAINERS} containers")
        raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, violations=violations)
    asked = {(request.cluster, name) for name in names}
    for key, other in state.containers.items() if used else ():
        for port in other.spec.ports if key not in asked else ():
            if (asking := used.holder(port)) is not None:
                raise port_in_use(port, other.spec.name, asking)
    for index, name in enumerate(names):
        old = state.containers.get((request.cluster, name))
        if old and old.origin != request.origin:
            raise name_taken(old, f"containers[{index}].name")


def port_in_use(port: Port, holder: str, field: str) -> TinyoError:
    """Another container is published there."""
    message = f"host port {port.host_port} is used by container {holder!r}: choose another, or remove it"
    return TinyoError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "PORT_IN_USE",
        message,
        {"port": str(port.host_port), "holder": f"container {holder}"},
        {field: message},
    )


def name_taken(owner: Container, field: str) -> TinyoError:
    """Somebody else's container has that name."""
    name = owner.spec.name
    message = f"the name {name!r} belongs to {owner.origin}: say another `name`, or remove that one first"
    return TinyoError(
        grpc.StatusCode.ALREADY_EXISTS,
        "NAME_TAKEN",
        message,
        {"name": name, "origin": owner.origin},
        {field: message},
    )


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with one spec: (field, sentence)."""
    if not NAME.fullmatch(spec.name):
        yield (
            "name",
            f"name {spec.name!r}: use at most 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first",
        )
    if not spec.image:
        yield "image", "an image is needed"
    yield from published.check(spec)
    for index, mount in enumerate(spec.mounts):
        if not mount.source.startswith("/") and not mount.volume:
            yield f"mounts[{index}].source", f"mount source {mount.source!r} is not an absolute path"
        if not mount.target.startswith("/") or ".." in mount.target.split("/") or not mount.target.strip("/"):
            yield (
                f"mounts[{index}].target",
                f"mount target {mount.target!r} must be an absolute path without '..', not '/'",
            )
    for name in spec.env:
        if not name or "=" in name:
            yield "env", f"{name!r} is no name for a variable"
    if spec.workdir and not spec.workdir.startswith("/"):
        yield "workdir", f"workdir {spec.workdir!r} is not an absolute path"
    for field, text in texts(spec):
        if "\0" in text or len(text) > MAX_TEXT:
            yield field, f"{field} is too long, or has a NUL in it"


def texts(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """Every text of a spec with the name of its field."""
    yield from (("image", spec.image), ("workdir", spec.workdir), ("user", spec.user))
    yield from (("command", part) for part in spec.command)
    for name, value in spec.env.items():
        yield from (("env", name), ("env", value))
    for index, mount in enumerate(spec.mounts):
        yield from ((f"mounts[{index}].source", mount.source), (f"mounts[{index}].target", mount.target))
