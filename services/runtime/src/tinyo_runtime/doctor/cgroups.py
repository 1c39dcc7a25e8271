"""Limits and the filter of devices: what of cgroups(7) is where."""

import os
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime import hierarchies
from tinyo_runtime.doctor import Machine, impossible, off, on

#: Nothing is limited without the first ones; the others are for keys that few Statefiles have.
NEEDED, FURTHER = ("pids", "memory", "cpu"), ("cpuset", "io")


def controllers(machine: Machine) -> Iterator[Finding]:
    """Which version, and where each controller is."""
    places = hierarchies.controllers()
    versions = {place.v2 for place in places.values()}
    if not versions:
        remedy = "mount -t cgroup2 none /sys/fs/cgroup; systemd and most images of machines do so at boot"
        yield off("no controller is mounted", remedy)
    else:
        yield on(" and ".join("v2" if v2 else "v1" for v2 in sorted(versions)))
    for name in (*NEEDED, *FURTHER):
        row = f"cgroup {name}"
        if place := places.get(name):
            yield on(f"{place.hierarchy}, {'v2' if place.v2 else 'v1'}", name=row)
        elif known(name):
            remedy = f"mount its hierarchy, or boot with cgroup_enable={name}"
            yield off(f"no hierarchy has it: {lost(name)}", remedy, name=row, optional=name in FURTHER)
        else:
            yield impossible(f"this kernel has none: {lost(name)}", name=row)


def lost(name: str) -> str:
    """What cannot be had without a controller."""
    what = {
        "pids": "a fork bomb takes the machine with it",
        "memory": "`memory` is refused, and a container may take all there is",
        "cpu": "`cpus` and `cpu_weight` are refused",
        "cpuset": "`cpuset` is refused",
        "io": "`io` and `io_weight` are refused",
    }
    return what[name]


def known(name: str) -> bool:
    """Whether the kernel knows a controller, wherever it is (/proc/cgroups)."""
    v1 = {v1: v2 for v2, v1 in hierarchies.V2_NAMES.items()}.get(name, name)
    table = Path("/proc/cgroups")
    return table.exists() and any(line.split()[0] == v1 for line in table.read_text().splitlines())


def devices(machine: Machine) -> Iterator[Finding]:
    """Files of v1, or a program that the kernel accepts."""
    from tinyo_runtime.devices import bpf

    if place := hierarchies.controllers().get("devices"):
        yield on(f"files of {place.hierarchy}, v1")
        return
    if not any(place.v2 for place in hierarchies.controllers().values()):
        yield off("no cgroup is mounted that could have one", "mount -t cgroup2 none /sys/fs/cgroup")
        return
    try:
        os.close(bpf.load(bpf.answer(1)))
        yield on("programs of BPF, v2")
    except OSError as error:
        why = f"the kernel takes no BPF program ({error.strerror}), and no container starts"
        yield off(why, "boot one with CONFIG_CGROUP_BPF, and let this process use bpf(2)")
