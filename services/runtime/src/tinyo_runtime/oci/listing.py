"""state, list, ps, features and spec: what is there, and what could be."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyo_runtime import libseccomp
from tinyo_runtime.oci import bundles, names, seccomp, state
from tinyo_runtime.oci.cgroups import Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.mounts import KINDS, NOTHING
from tinyo_runtime.oci.process import SETS
from tinyo_runtime.oci.state import Container, Store
from tinyo_runtime.spawner import bundle, harden, system


def listed(store: Store, form: str, *, quiet: bool) -> None:
    """Every container: a table, JSON, or ids alone."""
    containers = list(store.all())
    if quiet:
        say(*(one.id for one in containers))
    elif form == "json":
        say(json.dumps([_row(store, one) for one in containers]))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        for one in (_row(store, container) for container in containers):
            rows.append((one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"]))
        table(rows)


def _row(store: Store, container: Container) -> dict[str, Any]:
    told = store.described(container)
    told.setdefault("pid", 0)
    if told["status"] == "running" and Cgroup(container.cgroup).frozen():
        told["status"] = "paused"
    return told | {"created": container.created, "rootfs": store.config(container.id)["root"]["path"]}


def processes(store: Store, id: str, form: str, arguments: Sequence[str]) -> None:
    """Those of a container: their numbers as JSON, or what ps(1) says of them."""
    pids = Cgroup(store.load(id).cgroup).pids()
    if form == "json":
        say(json.dumps(pids))
        return
    try:
        done = subprocess.run(["ps", *(arguments or ["-ef"])], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise OciError(f"ps: {getattr(error, 'stderr', '') or error}") from None
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise OciError("ps must show a column PID: leave its options away, or name another")
    column = head.split().index("PID")
    say(head, *(line for line in lines if line.split()[column] in set(map(str, pids))))


def features() -> dict[str, Any]:
    """As features.md of the specification has it: what this program understands, whatever the kernel."""
    options = {"bind", "rbind", "tmpcopyup", *names.ATTRIBUTES, *names.TAKEN, *names.PROPAGATIONS, *NOTHING}
    options |= {f"r{name}" for name in (*names.ATTRIBUTES, *names.PROPAGATIONS)}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": state.VERSION,
        "hooks": list(bundles.HOOKS),
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(("mount", "user", *bundle.KINDS)),
            "capabilities": list(names.CAPABILITIES)[: harden.LAST_CAPABILITY + 1],
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": sorted(libseccomp.ACTIONS),
                "operators": sorted(libseccomp.OPERATORS),
                "archs": sorted(libseccomp.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"org.tinyo.mounts": ",".join(("bind", "cgroup", *KINDS))},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def specification() -> dict[str, Any]:
    """A bundle's config.json to begin with: a shell in the folder `rootfs`, kept in as every container of TinyO is."""
    granted = [
        name for name, number in names.CAPABILITIES.items() if harden.DEFAULT_CAPABILITIES >> number & 1
    ]
    usual = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": state.VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: granted for kind in SETS if kind not in ("inheritable", "ambient")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "tinyo",
        "mounts": [
            _mount("/proc", "proc", usual),
            _mount("/dev", "tmpfs", ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
            _mount("/dev/pts", "devpts", ["nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"]),
            _mount("/dev/shm", "tmpfs", [*usual, "mode=1777", "size=65536k"]),
            _mount("/dev/mqueue", "mqueue", usual),
            _mount("/sys", "sysfs", [*usual, "ro"]),
            _mount("/sys/fs/cgroup", "cgroup", [*usual, "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 4096}},
            "namespaces": [{"type": kind} for kind in ("mount", *bundle.KINDS)],
            "maskedPaths": [f"{mount}/{name}" for mount, all in system.MASKED.items() for name in all],
            "readonlyPaths": [f"{mount}/{name}" for mount, all in system.READ_ONLY.items() for name in all],
            "seccomp": _profile(),
        },
    }


def _mount(target: str, kind: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": [*options]}


def _profile() -> dict[str, Any]:
    """The calls of TinyO's containers (options/profile.py), with what libseccomp cannot be told left out."""
    from tinyo_runtime.options import profile  # with grpc, which nobody else needs to wait for

    equal: list[dict[str, Any]] = [
        {"names": ["personality"], "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
        for value in profile.PERSONALITIES
    ]
    low: dict[str, Any] = {"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_MASKED_EQ"}
    sockets: list[dict[str, Any]] = [
        {"names": ["socket"], "args": [low | {"valueTwo": family}]} for family in profile.FAMILIES
    ]
    clone = {"index": 0, "value": profile.NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    allowed = sorted(profile.ALLOWED | profile.WITH_CAPABILITY["CAP_SYS_CHROOT"])
    entries: list[dict[str, Any]] = [
        {"names": allowed},
        {"names": ["clone"], "args": [clone]},
        *equal,
        *sockets,
    ]
    missing = {"names": sorted(profile.MISSING), "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        if os.uname().machine == "x86_64"
        else ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [*({"action": "SCMP_ACT_ALLOW"} | entry for entry in entries), missing],
    }


def write_specification(folder: Path) -> None:
    """OciError when there is one already."""
    file = folder / bundles.CONFIG
    try:
        with file.open("x") as opened:
            json.dump(specification(), opened, indent=2)
            opened.write("\n")
    except OSError as error:
        raise OciError(f"{file} cannot be written: {error.strerror}") from None


def say(*lines: str) -> None:
    """To whoever asked."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    say(*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows))
