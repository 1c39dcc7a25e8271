"""What is there and belongs to nobody: the runtime takes such things away when it starts, or they are a mistake of ours."""

import os
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime import records
from tinyo_runtime.cgroups import hierarchies
from tinyo_runtime.doctor import Machine, off, on


def everything(machine: Machine) -> Iterator[Finding]:
    """All kinds, in one row when there is nothing."""
    found = False
    for name, look, remedy in (
        ("cgroups", cgroups, "rmdir {}"),
        ("processes", processes, "kill -9 {}"),
        ("mounts", mounts, "umount {}"),
        ("interfaces", interfaces, "ip link delete {}"),
        ("folders", folders, "rm -r {}"),
    ):
        if left := list(look(machine)):
            found = True
            shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            yield off(f"{shown}: no container has them", remedy.format(left[0]), name=f"leftover {name}")
    if not found:
        yield on("nothing is here that belongs to nobody")


def known(machine: Machine) -> set[str]:
    """Ids of containers that the runtime knows."""
    return {record.state.config.id for record in machine.records}


def cgroups(machine: Machine) -> Iterator[str]:
    """Those of our instance that no record has."""
    ids = known(machine)
    for root in (place / machine.settings.instance for place in hierarchies()):
        if root.exists():
            yield from (str(path) for path in root.iterdir() if path.is_dir() and path.name not in ids)


def processes(machine: Machine) -> Iterator[str]:
    """Those in the cgroup of a container whose first process has ended."""
    living = {
        record.state.config.id
        for record in machine.records
        if record.state.pid and records.start_ticks(record.state.pid) == record.start_ticks
    }
    for root in (place / machine.settings.instance for place in hierarchies()[:1]):
        for id in known(machine) - living:
            tasks = root / id / "cgroup.procs"
            if tasks.exists():
                yield from tasks.read_text().split()


def mounts(machine: Machine) -> Iterator[str]:
    """Containers' mounts are in their own namespaces; in the host's there are none below our folders."""
    ours = (f"{machine.settings.run}/", f"{machine.settings.state}/")
    for line in Path("/proc/1/mountinfo").read_text().splitlines():
        if (target := line.split()[4]).startswith(ours):
            yield target


def interfaces(machine: Machine) -> Iterator[str]:
    """While nothing of ours runs there are none; else some are made ahead, which no record has."""
    if not machine.connected:
        names = (entry.name for entry in os.scandir("/sys/class/net"))
        yield from (name for name in names if name.startswith(machine.settings.prefix))


def folders(machine: Machine) -> Iterator[str]:
    """Files of containers that neither the runtime knows nor whoever asks."""
    place = Path(machine.settings.state, "containers")
    if machine.ids is not None and place.exists():
        ids = known(machine) | machine.ids
        yield from (str(path) for path in place.iterdir() if path.name not in ids)
