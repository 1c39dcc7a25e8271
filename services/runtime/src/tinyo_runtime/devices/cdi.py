"""The Container Device Interface: devices by name, as files of their vendors describe them.

    resolve(["vendor.com/gpu=0"])      # what the container has to be given

Files lie in /etc/cdi and /var/run/cdi, JSON or YAML, each of one kind ("vendor.com/gpu"). What the second folder says
of a device counts before the first; two files of one folder that have the same name have a conflict, and nobody gets it.
What else than nodes, mounts and variables a file asks for is refused by name, as the device would not work without
(https://github.com/cncf-tags/container-device-interface, SPEC.md).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The later one counts first.
FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
VERSIONS = ("0.", "1.")
MAX_BYTES = 4 << 20
EDITS = ("env", "deviceNodes", "mounts")
NODE = {"path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"}
MOUNT = {"hostPath", "containerPath", "type", "options"}


class Unusable(Exception):
    """Why a device cannot be had: the end of a sentence."""


@dataclass
class Edits:
    """What a container is given, in this order."""

    env: list[str] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class File:
    """One file, as far as it can be understood."""

    path: Path
    kind: str
    common: Any
    devices: dict[str, Any]


def resolve(names: Iterable[str], folders: Iterable[Path] = FOLDERS) -> Edits:
    """Everything that these devices need. What a file has for all its devices comes once, before the first of them.

    Raises Unusable.
    """
    made, begun = Edits(), set[Path]()
    shelves, broken = [], []
    for folder in reversed([*folders]):
        shelf = []
        for path in sorted(folder.glob("*")):
            if path.suffix in (".json", ".yaml", ".yml"):
                try:
                    shelf.append(read(path))
                except Unusable as error:  # that is a matter of those devices alone
                    broken.append(str(error))
        shelves.append(shelf)
    for name in names:
        kind, _, device = name.partition("=")
        having = [
            [file for file in shelf if file.kind == kind and device in file.devices] for shelf in shelves
        ]
        first = next(filter(None, having), [])
        if not first:
            where = " and ".join(map(str, folders))
            raise Unusable("; ".join([f"no file in {where} describes it", *broken]))
        if len(first) > 1:
            raise Unusable(f"both {first[0].path} and {first[1].path} describe it: remove one of them")
        (file,) = first
        if file.path not in begun:
            begun.add(file.path)
            add(made, file.path, file.common)
        add(made, file.path, file.devices[device])
    return made


def read(path: Path) -> File:
    """One file. Raises Unusable."""
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        document = json.loads(content) if path.suffix == ".json" else from_yaml(content)
        if not str(document["cdiVersion"]).startswith(VERSIONS):
            raise ValueError(f"cdiVersion {document['cdiVersion']!r} is none that is known here")
        devices = {str(device["name"]): device.get("containerEdits", {}) for device in document["devices"]}
        if len(devices) < len(document["devices"]):
            raise ValueError("it has two devices of one name")
        return File(path, str(document["kind"]), document.get("containerEdits", {}), devices)
    except KeyError as error:
        raise Unusable(f"{path} cannot be understood: {error} is missing") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"{path} cannot be understood: {str(error) or 'it nests too deeply'}") from None


def from_yaml(content: bytes) -> Any:
    """YAML, which few of them are. Raises ValueError."""
    import yaml

    try:
        return yaml.load(content, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def add(made: Edits, path: Path, edits: Any) -> None:
    """Adds what one part of a file asks for. Raises Unusable."""
    edits = edits or {}
    if not isinstance(edits, dict):
        raise Unusable(f"{path} cannot be understood: containerEdits is no mapping")
    for key in EDITS:
        if not isinstance(edits.get(key) or [], list):
            raise Unusable(f"{path} cannot be understood: {key} is no list")
    if others := [key for key, value in edits.items() if key not in EDITS and value]:
        raise Unusable(f"{path} asks for {others[0]}, which TinyO does not do")
    for entry in edits.get("env") or []:
        if not isinstance(entry, str) or not entry.partition("=")[0] or "=" not in entry or "\0" in entry:
            raise Unusable(f"{path}: {entry!r} is no NAME=value")
        made.env.append(entry)
    for key, known, needed, into in (
        ("deviceNodes", NODE, ("path",), made.nodes),
        ("mounts", MOUNT, ("hostPath", "containerPath"), made.mounts),
    ):
        for entry in edits.get(key) or []:
            if not isinstance(entry, dict):
                raise Unusable(f"{path} cannot be understood: {entry!r} in {key}")
            if others := sorted(entry.keys() - known):
                raise Unusable(f"{path} asks for {others[0]} in {key}, which TinyO does not do")
            for name in ("path", "hostPath", "containerPath"):
                if (name in entry or name in needed) and not is_path(entry.get(name)):
                    raise Unusable(f"{path}: {name} in {key} is no absolute path without '..'")
            into.append(entry)


def is_path(value: Any) -> bool:
    """Whether something is an absolute path that leads nowhere else."""
    return (
        isinstance(value, str)
        and value.startswith("/")
        and ".." not in value.split("/")
        and "\0" not in value
    )
