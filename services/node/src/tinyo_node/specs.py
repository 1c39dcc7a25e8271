"""Specs as they are stored: checked against everything that only the node can know, defaults filled in."""

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UNSPECIFIED, Container, ContainerSpec, Port

from tinyo_node import checks
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
            port.host_ip = "" if port.host_ip == "0.0.0.0" else port.host_ip  # every address
        checks.fill(spec)
        for field, text in (*check(spec), *checks.check(spec)):
            violations.setdefault(f"containers[{index}].{field}", text)
    names = [spec.name for spec in specs]
    for index, name in enumerate(names):
        if name in names[:index]:
            violations[f"containers[{index}].name"] = f"the name {name!r} is used twice"
    used = [port for spec in specs for port in spec.ports]
    places = [
        f"containers[{i}].ports[{j}].host_port" for i, s in enumerate(specs) for j in range(len(s.ports))
    ]
    for index, (place, port) in enumerate(zip(places, used, strict=True)):
        if any(collide(port, earlier) for earlier in used[:index]):
            violations.setdefault(place, f"host port {port.host_port} is used twice")
    if violations or not 0 < len(specs) <= MAX_CONTAINERS:
        message = next(iter(violations.values()), f"an apply has 1 to {MAX_CONTAINERS} containers")
        raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, violations=violations)
    asked = {(request.cluster, name) for name in names}
    taken = [
        (other.spec.name, port)
        for key, other in state.containers.items()
        if key not in asked
        for port in other.spec.ports
    ]
    for place, port in zip(places, used, strict=True):
        for holder, theirs in taken:
            if collide(port, theirs):
                raise port_in_use(port, holder, place)
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


def collide(one: Port, other: Port) -> bool:
    """Whether both cannot be published at the same time."""
    same = (one.host_port, one.protocol or PROTOCOL_TCP) == (other.host_port, other.protocol or PROTOCOL_TCP)
    return same and (not one.host_ip or not other.host_ip or one.host_ip == other.host_ip)


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with one spec: (field, sentence)."""
    if not NAME.fullmatch(spec.name):
        yield (
            "name",
            f"name {spec.name!r}: use at most 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first",
        )
    if not spec.image:
        yield "image", "an image is needed"
    for index, port in enumerate(spec.ports):
        for field in ("host_port", "container_port"):
            if not 1 <= getattr(port, field) <= 65535:
                yield f"ports[{index}].{field}", f"port {getattr(port, field)} is not between 1 and 65535"
        if port.host_ip and not is_ipv4(port.host_ip):
            yield f"ports[{index}].host_ip", f"{port.host_ip!r} is no IPv4 address"
        if port.protocol == PROTOCOL_UNSPECIFIED:
            yield f"ports[{index}].protocol", "the protocol is tcp or udp"
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


def is_ipv4(text: str) -> bool:
    """Whether it is a dotted IPv4 address."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
