"""`tinyo inspect`: all that is known of containers, and what the kernel says of those that run."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.container_pb2 import DesiredState
from tinyo.v1.inspect_pb2 import CapabilitySets, IdRange, Inspection, ResourceLimit, SeccompMode

from tinyo_ctl.render import age, phase, styled, table
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Characters of a value of the spec that people are shown.
WIDTH = 200
NONE = "-"


def inspect(options: argparse.Namespace) -> int:
    """All of them or none."""
    with node(options.host) as calls:
        found = [calls.Inspect(api.InspectRequest(name=name)) for name in options.names]
    if options.output:
        print(data(found, options.output))
    else:
        print("\n\n".join("\n".join(lines(one)) for one in found))
    return 0


def data(found: Iterable[api.InspectResponse], form: str) -> str:
    """For programs; in ASCII, so that no terminal obeys it. Each is as `tinyo ls` has it, with `inspection`."""
    documents = [
        MessageToDict(one.container, preserving_proto_field_name=True)
        | {"inspection": document(one.inspection) if one.HasField("inspection") else None}
        for one in found
    ]
    if form == "json":
        return json.dumps(documents, indent=2)
    import yaml

    return str(yaml.safe_dump(documents, sort_keys=False)).rstrip("\n")


def document(inspection: Inspection) -> dict[str, Any]:
    """With what is false, or 0, or empty."""
    made: dict[str, Any] = MessageToDict(
        inspection, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return made


def lines(found: api.InspectResponse) -> Iterator[str]:
    """For people, in sections."""
    container, status = found.container, found.container.status
    yield from section(container.spec.name)
    desired = DesiredState.Name(container.desired).removeprefix("DESIRED_STATE_").lower()
    since = age(status.started_at)
    yield from pairs(
        ("id", container.id),
        ("status", phase(container) + (f", for {since}" if since and found.HasField("inspection") else "")),
        ("why", status.error.message),
        ("wanted", desired),
        ("address", status.address),
        ("image", " ".join(filter(None, (container.spec.image, container.image_digest)))),
        ("from", container.origin),
    )
    yield from section("spec", apart=True)
    yield from nested(MessageToDict(container.spec, preserving_proto_field_name=True))
    if found.HasField("inspection"):
        yield from of_kernel(found.inspection)
    else:
        yield ""
        yield "It does not run, so the kernel has nothing to say of it."


def of_kernel(one: Inspection) -> Iterator[str]:
    """What the kernel says."""
    yield from section("process", apart=True)
    who, filters = one.identity, one.seccomp_filters
    mode = SeccompMode.Name(one.seccomp).removeprefix("SECCOMP_MODE_").lower()
    counted = f", {filters} filter{'' if filters == 1 else 's'}" if filters else ""
    yield from pairs(
        ("pid", str(one.pid)),
        ("command", " ".join(one.command)),
        ("user", f"{who.uid}:{who.gid} on this machine"),
        ("groups", " ".join(map(str, who.groups)) or NONE),
        ("uids", ranges(who.uid_map)),
        ("gids", ranges(who.gid_map)),
        ("no_new_privs", "yes" if one.no_new_privileges else "no"),
        ("seccomp", mode + counted),
        ("apparmor", one.apparmor or NONE),
        ("oom_score_adj", str(one.oom_score_adj)),
    )
    yield from section("capabilities", apart=True)
    yield from pairs(*((name, names(getattr(one.capabilities, name))) for name in fields(CapabilitySets)))
    yield from section("namespaces", apart=True)
    yield from columns(
        [("KIND", "INODE", "WHOSE")]
        + [
            (each.kind, str(each.inode), "this machine's" if each.of_host else "own")
            for each in one.namespaces
        ]
    )
    yield from section("limits", apart=True)
    yield from columns([("LIMIT", "SOFT", "HARD", "UNIT"), *map(limit, one.limits)])
    yield from section("cgroups", apart=True)
    for group in one.cgroups:
        where = group.folder or f"{group.path}  (not its own)"
        yield "  " + safe(f"{group.controllers or 'v2'}  {where}")
        for name, value in sorted(group.limits.items()):
            yield "    " + safe(f"{name}  {'; '.join(value.splitlines())}")
    yield from section("mounts", apart=True)
    yield from columns(
        [("TARGET", "KIND", "SOURCE", "ROOT", "FLAGS")]
        + [
            (each.target, each.kind, each.source, each.root, ",".join([*each.flags, *each.propagation]))
            for each in one.mounts
        ]
    )
    if one.further_mounts:
        yield f"  and {one.further_mounts} more"


def section(title: str, *, apart: bool = False) -> Iterator[str]:
    """The beginning of one."""
    if apart:
        yield ""
    yield styled("bold", safe(title))


def pairs(*facts: tuple[str, str]) -> Iterator[str]:
    """A name and a value on each line; what is empty is left out."""
    known = [(name, value) for name, value in facts if value]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        yield f"  {name:{width}}  {safe(value)}"


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table within a section."""
    for line in table(rows).splitlines():
        yield f"  {line}"


def nested(value: Any, indent: str = "  ") -> Iterator[str]:
    """A document as YAML would have it; texts on one line, and long ones cut."""
    for name, one in value.items() if isinstance(value, dict) else ((NONE, one) for one in value):
        head = indent + (NONE if name == NONE else f"{safe(name)}:")
        if isinstance(one, dict | list) and one:
            yield head
            yield from nested(one, f"{indent}  ")
        else:
            text = one if isinstance(one, str) else json.dumps(one)
            yield f"{head} {safe(text if len(text) <= WIDTH else text[: WIDTH - 1] + '…')}"


def names(capabilities: Iterable[str]) -> str:
    """Of a set."""
    return " ".join(name.removeprefix("CAP_") for name in capabilities) or NONE


def fields(kind: Any) -> list[str]:
    """Names of the fields of a message."""
    return [field.name for field in kind.DESCRIPTOR.fields]


def ranges(found: Iterable[IdRange]) -> str:
    """What ids are on the host."""
    return ", ".join(
        f"{one.inside}-{one.inside + one.count - 1} are {one.outside}-{one.outside + one.count - 1}"
        if one.inside != one.outside
        else "as on this machine"
        for one in found
    )


def limit(one: ResourceLimit) -> tuple[str, ...]:
    """A row."""
    values = (str(getattr(one, name)) if one.HasField(name) else "unlimited" for name in ("soft", "hard"))
    return (one.name.removeprefix("Max ").lower(), *values, one.unit)
