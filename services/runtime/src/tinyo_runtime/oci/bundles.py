"""`config.json` of a bundle: read, looked at, and put together as a plan for the spawner.

Unknown keys are left alone, as the specification demands; what it knows and we do not is refused by name.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinyo_runtime.oci import mappings, mounts, process, seccomp
from tinyo_runtime.oci.cgroups import DEFAULT, Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.spawner.bundle import KINDS

CONFIG = "config.json"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
MOST_BYTES = 4 << 20
#: Sysctls of a namespace, by its kind (namespaces(7)); the rest is the host's.
SYSCTLS = {
    "ipc": re.compile(r"kernel[./](msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs[./]mqueue[./].+"),
    "network": re.compile(r"net[./].+"),
    "uts": re.compile(r"kernel[./]domainname"),
}  # fmt: skip


def read(bundle: Path) -> Part:
    """OciError when it is not there, or no JSON."""
    return Part(document(bundle / CONFIG), CONFIG)


def document(path: Path) -> Any:
    """A file of JSON. OciError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise OciError(f"{path} is larger than {MOST_BYTES} bytes")
        return json.loads(data)
    except OSError as error:
        raise OciError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise OciError(f"{path} is no JSON: {error}") from None


def cgroup_path(config: Part, id: str) -> str:
    """Below the mount point of each hierarchy. OciError."""
    path = config.part("linux").text("cgroupsPath") or f"{DEFAULT}/{id}"
    if re.fullmatch(r"[^/]*:[^/]*:[^/]*", path):
        raise config.part("linux").wrong(
            "cgroupsPath", f"is {path!r}, which is for systemd: cgroupfs is what there is"
        )
    path = os.path.normpath("/" + path.lstrip("/"))
    if path == "/" or ".." in Path(config.part("linux").text("cgroupsPath")).parts:
        raise config.part("linux").wrong("cgroupsPath", f"is {path!r}, which is no place of its own")
    return path


def check(config: Part) -> None:
    """What must hold for the whole of it. OciError."""
    version = config.needed("ociVersion")
    if not re.match(r"1\.\d+\.\d+", version):
        raise config.wrong("ociVersion", f"is {version!r}: versions 1.x are what there is")
    for key in ("solaris", "windows", "vm", "zos"):
        config.refuse(key)
    linux = config.part("linux")
    if not linux:
        raise config.wrong("linux", "is needed")
    for key in ("intelRdt", "mountLabel", "personality", "timeOffsets", "netDevices", "memoryPolicy"):
        linux.refuse(key)
    mappings.read(config)
    for kind in config.part("hooks").value:
        if kind not in HOOKS:
            raise config.part("hooks").wrong(kind, f"is no hook: there are {', '.join(HOOKS)}")
    hooks(config)


def hooks(config: Part) -> dict[str, list[dict[str, Any]]]:
    """All of them, by kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in HOOKS:
        for hook in config.part("hooks").parts(kind):
            path = hook.needed("path")
            if not path.startswith("/"):
                raise hook.wrong("path", f"must be an absolute path, and is {path!r}")
            timeout = hook.number("timeout", 1, 1 << 31)
            for entry in hook.texts("env"):
                if "=" not in entry:
                    raise hook.wrong("env", f"has {entry!r}, which is no NAME=VALUE")
            told = {"path": path, "args": hook.texts("args"), "env": hook.texts("env"), "timeout": timeout}
            found.setdefault(kind, []).append(told)
    return found


class Descriptors:
    """Those that go with a plan; each is closed once."""

    def __init__(self, opened: ExitStack) -> None:
        self.fds: list[int] = []
        self._opened = opened

    def hand(self, fd: int) -> int:
        """One of ours that is the spawner's soon; its place."""
        self._opened.callback(os.close, fd)
        return self.lend(fd)

    def lend(self, fd: int) -> int:
        """One that somebody else closes."""
        self.fds.append(fd)
        return len(self.fds) - 1


def namespaces(config: Part, given: Descriptors) -> dict[str, Any]:
    """Which are new, and which exist."""
    new, join, seen = [], [], set[str]()
    linux = config.part("linux")
    for entry in linux.parts("namespaces"):
        kind, path = entry.needed("type"), entry.text("path")
        if kind in seen:
            raise entry.wrong("type", f"is {kind!r} for the second time")
        seen.add(kind)
        if kind == "mount":
            entry.refuse("path", "is not supported for mounts: the root is mounted in a namespace of its own")
        elif kind == "user":
            entry.refuse("path", "is not supported for users: a user namespace is a new one")
        elif kind not in KINDS:
            raise entry.wrong("type", f"is {kind!r}: there are mount, user, {', '.join(KINDS)}")
        elif not path:
            new.append(kind)
        else:
            try:
                join.append((kind, given.hand(os.open(path, os.O_RDONLY | os.O_CLOEXEC))))
            except OSError as error:
                raise entry.wrong("path", f"is {path}, which cannot be opened: {error.strerror}") from None
    if "mount" not in seen:
        raise linux.wrong("namespaces", "must have one of type mount")
    own = {*new, *(kind for kind, _ in join)}
    for key in ("hostname", "domainname"):
        if config.text(key) and "uts" not in own:
            raise config.wrong(key, "needs a namespace of type uts, or it would be the host's")
    return {"new": new, "join": join, "own": own}


def sysctls(config: Part, own: set[str]) -> dict[str, str]:
    """By path below /proc/sys; those of the container's own namespaces alone. OciError."""
    linux, found = config.part("linux"), {}
    for name, value in linux.texts_by_name("sysctl").items():
        kind = next((kind for kind, names in SYSCTLS.items() if names.fullmatch(name)), "")
        if kind not in own:
            why = f"needs a namespace of type {kind}" if kind else "is the whole machine's"
            raise linux.wrong(f"sysctl.{name}", why)
        path = name if "/" in name else name.replace(".", "/")
        found[path] = value
    return found


def plan(bundle: Path, config: Part, cgroup: Cgroup, given: Descriptors) -> dict[str, Any]:
    """For the first process. OciError."""
    told = namespaces(config, given)
    own, linux = told.pop("own"), config.part("linux")
    told |= mounts.root(bundle, config, given.hand)
    told |= {"hostname": config.text("hostname"), "domainname": config.text("domainname")}
    told["mounts"] = mounts.mounts(bundle, config, cgroup, given.hand)
    if maps := mappings.read(config):
        told["user"] = maps
        lent = mounts.lent_devices(config, given.hand)
        told |= {"devices": [], "links": lent["links"]}
        told["mounts"] += lent["mounts"]
    else:
        told |= mounts.devices(config)
    told["sysctl"] = sysctls(config, own)
    told["masked_paths"], told["read_only_paths"] = linux.texts("maskedPaths"), linux.texts("readonlyPaths")
    told["hooks"] = hooks(config)
    return complete(config.part("process"), linux.part("seccomp"), told, given, ())


def complete(
    part: Part, filter: Part, told: dict[str, Any], given: Descriptors, keep: Sequence[int]
) -> dict[str, Any]:
    """A plan for a process with what the bundle says of it."""
    made = process.plan(part)
    made["seccomp"], flags = seccomp.program(filter)
    told["process"] = made.pop("process") | {"seccomp_flags": flags}
    if "user" in told:
        told["user"] = mappings.user(told["user"], part, told["process"])
    told.setdefault("hooks", {})
    told["keep"] = [given.lend(fd) for fd in keep]
    size = part.part("consoleSize")
    if part.flag("terminal"):
        made["terminal"] = {
            "rows": size.number("height", 0, 0xFFFF) or 0,
            "columns": size.number("width", 0, 0xFFFF) or 0,
        }
    return made | {"bundle": told}
