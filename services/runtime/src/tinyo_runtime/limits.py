"""What a container may take of the machine, as the kernel is told it: files of its cgroups, v1 or v2.

check(resources)                       # before anything is made
write(cgroups, id, resources)          # before a process joins, or while the container runs
"""

import contextlib
import errno
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tinyo.v1.resources_pb2 import IoLimit, Resources

from tinyo_runtime import cgroups, failures, hierarchies

#: Microseconds in which a container may use up its processors: the kernel's default, and docker's.
PERIOD = 100_000
#: Limits of v1 by field of IoLimit, and what v2 calls them.
IO = {
    "read_bps": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blkio.throttle.write_iops_device", "wiops"),
}


class Setting(NamedTuple):
    """One value for one file of a cgroup."""

    #: Field of the spec that wants it, and the key that people write.
    field: str
    key: str
    controller: str
    #: Files that take it, the first that is there, and what they are told.
    files: tuple[tuple[str, str], ...]
    #: For each of them, what takes this limit away again.
    none: tuple[str, ...]
    #: It is wanted by nobody by name: where there is no such file, it is left out.
    optional: bool = False


def settings(resources: Resources) -> Iterator[Setting]:
    """Every limit that is asked for."""
    yield from _memory(resources)
    files: tuple[tuple[str, str], ...]
    if resources.cpu_millis:
        quota = resources.cpu_millis * PERIOD // 1000
        files = (("cpu.max", f"{quota} {PERIOD}"), ("cpu.cfs_quota_us", f"{quota}"))
        yield Setting("cpu_millis", "cpus", "cpu", files, (f"max {PERIOD}", "-1"))
    if weight := resources.cpu_weight:
        files = (("cpu.weight", f"{weight}"), ("cpu.shares", f"{shares(weight)}"))
        yield Setting("cpu_weight", "cpu_weight", "cpu", files, ("100", "1024"))
    if resources.cpuset:
        yield Setting("cpuset", "cpuset", "cpuset", (("cpuset.cpus", resources.cpuset),), ("",))
    if resources.pids:
        files = (("pids.max", f"{resources.pids}"),)
        yield Setting("pids", "pids", "pids", files, (str(cgroups.PIDS_MAX),))
    if weight := resources.io_weight:
        own, bfq = f"default {weight}", f"{bfq_weight(weight)}"
        files = (("io.weight", own), ("io.bfq.weight", bfq), ("blkio.bfq.weight", bfq), ("blkio.weight", bfq))
        yield Setting("io_weight", "io_weight", "io", files, ("default 100", "100", "100", "100"))
    for index, limit in enumerate(resources.io):
        yield from _io(f"io[{index}]", limit)


def _memory(resources: Resources) -> Iterator[Setting]:
    limit, both = resources.memory_bytes, resources.memory_swap_bytes
    if limit:
        files = (("memory.max", f"{limit}"), ("memory.limit_in_bytes", f"{limit}"))
        yield Setting("memory_bytes", "memory", "memory", files, ("max", "-1"))
        swap = "max" if both < 0 else f"{both - limit if both else limit}"
        sum = "-1" if both < 0 else f"{both or 2 * limit}"
        files = (("memory.swap.max", swap), ("memory.memsw.limit_in_bytes", sum))
        yield Setting("memory_swap_bytes", "memory_swap", "memory", files, ("max", "-1"), optional=not both)
    if reserved := resources.memory_reservation_bytes:
        files = (("memory.low", f"{reserved}"), ("memory.soft_limit_in_bytes", f"{reserved}"))
        field = "memory_reservation"
        yield Setting(f"{field}_bytes", field, "memory", files, ("0", "-1"))


def _io(field: str, limit: IoLimit) -> Iterator[Setting]:
    numbers = device(field, limit.device)
    for name, (v1, v2) in IO.items():
        if value := getattr(limit, name):
            files = (("io.max", f"{numbers} {v2}={value}"), (v1, f"{numbers} {value}"))
            none = (f"{numbers} {v2}=max", f"{numbers} 0")
            yield Setting(f"{field}.{name}", f"io.{name}", "io", files, none)


def shares(weight: int) -> int:
    """cpu.shares (2 to 262144) for a weight of v2 (1 to 10000), so that the defaults 1024 and 100, and both ends, meet:
    the inverse of what crun and runc compute since 2025, weight = 10^((l² + 125 l) / 612 - 7/34), l = log2(shares)."""
    return round(2 ** ((math.sqrt(125**2 + 4 * 612 * (math.log10(weight) + 7 / 34)) - 125) / 2))


def bfq_weight(weight: int) -> int:
    """A weight of the scheduler BFQ (1 to 1000) for one of io.weight (1 to 10000); both have the default 100."""
    return max(1, weight) if weight <= 100 else round(100 + (weight - 100) * 900 / 9900)


def device(field: str, written: str) -> str:
    """The numbers "MAJOR:MINOR" of a disk. LIMIT_REFUSED when it is none."""
    if ":" in written and not written.startswith("/"):
        numbers = written
    else:
        try:
            found = os.stat(written)
        except OSError as error:
            raise failures.limit_refused(f"{field}.device", f"{written}: {error.strerror}") from None
        if not stat.S_ISBLK(found.st_mode):
            raise failures.limit_refused(f"{field}.device", f"{written} is no disk")
        numbers = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    if Path("/sys/dev/block", numbers, "partition").exists():
        raise failures.limit_refused(f"{field}.device", f"{written} is a part of a disk: name the whole disk")
    if not Path("/sys/dev/block", numbers).exists():
        raise failures.limit_refused(f"{field}.device", f"there is no disk {written}")
    return numbers


def check(resources: Resources) -> None:
    """LIMIT_UNSUPPORTED when this kernel has no controller for a limit; LIMIT_REFUSED for a disk that is none."""
    known = hierarchies.controllers()
    for setting in settings(resources):
        if setting.controller not in known:
            raise failures.limit_unsupported(
                setting.field, setting.key, setting.controller, hierarchies.kernel()
            )


def further(made: cgroups.Cgroups, resources: Resources) -> list[Path]:
    """The instance's cgroups that a container joins only for these limits; joining costs time (decision 8)."""
    known = hierarchies.controllers()
    wanted = dict.fromkeys(known[setting.controller].hierarchy / made.name for setting in settings(resources))
    return [root for root in wanted if root not in made.roots]


def write(made: cgroups.Cgroups, id: str, resources: Resources, before: Resources | None = None) -> None:
    """Sets every limit; with those that were set `before`, takes away what is not asked for any more.

    LIMIT_UNSUPPORTED, or LIMIT_REFUSED with the kernel's reason; then some may have been set.
    """
    wanted = [*settings(resources)]
    names = {(setting.field, setting.files) for setting in wanted}
    fields = {setting.field for setting in wanted if not setting.field.startswith("io[")}
    for setting in reversed([*settings(before or Resources())]):  # with v1 swap goes before memory
        if setting.field not in fields and (setting.field, setting.files) not in names:
            _set(_folder(made, id, setting), setting, setting.none)
    if before is not None:
        _make_way(made, id, wanted)
    for setting in wanted:
        _set(_folder(made, id, setting), setting, tuple(value for _, value in setting.files))


def _make_way(made: cgroups.Cgroups, id: str, wanted: list[Setting]) -> None:
    """With v1 memory is never more than memory and swap: whoever raises both begins with the sum, which is none for a
    moment. With v2 nothing hinders a limit below what is used, but processes would be killed for it at once."""
    for setting in wanted:
        folder, limit = _folder(made, id, setting), setting.files[0][1]
        if setting.field != "memory_bytes":
            continue
        with contextlib.suppress(FileNotFoundError):
            if int((folder / "memory.memsw.limit_in_bytes").read_text()) < int(limit):
                cgroups.write(folder / "memory.memsw.limit_in_bytes", "-1")
        with contextlib.suppress(FileNotFoundError):
            used = int((folder / "memory.current").read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
            facts = dict(line.split() for line in lines)
            if used - int(facts["file"]) > int(limit):
                raise failures.limit_refused(setting.field, _in_use(setting.key, limit))


def _set(folder: Path, setting: Setting, values: tuple[str, ...]) -> None:
    """Writes into the first of the files that is there."""
    for (file, _), value in zip(setting.files, values, strict=True):
        try:
            cgroups.write(folder / file, value or _inherited(folder / file))
            return
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"{value!r} is refused by {file}: {os.strerror(error.errno or 0)}"
            if error.errno == errno.EBUSY:
                why = _in_use(setting.key, value)
            elif error.errno == errno.EOPNOTSUPP or (setting.key == "io_weight" and error.errno):
                why = f"{file}: no disk of this machine has a scheduler that knows weights"
            elif setting.key == "cpuset":
                why = f"{value!r}: this machine offers the processors {_offered(folder)}"
            raise failures.limit_refused(setting.field, f"{setting.key}: {why}") from None
    if not setting.optional:
        missing = " or ".join(file for file, _ in setting.files)
        raise failures.limit_unsupported(setting.field, setting.key, missing, hierarchies.kernel())


def _inherited(file: Path) -> str:
    """What a list of processors is told that has no limit: all of those above it. Where there are processes the kernel
    does not take an empty list."""
    effective = file.parents[1] / "cpuset.cpus.effective"
    return (effective if effective.exists() else file.parents[1] / file.name).read_text().strip()


def _in_use(key: str, value: str) -> str:
    return f"{key}: the container uses more than {value} bytes that it does not give back"


def _offered(folder: Path) -> str:
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        with contextlib.suppress(FileNotFoundError):
            return (folder.parent / name).read_text().strip()
    return "of no list that it tells"


def _folder(made: cgroups.Cgroups, id: str, setting: Setting) -> Path:
    """The container's cgroup in the hierarchy of the setting's controller."""
    return hierarchies.controllers()[setting.controller].hierarchy / made.name / id
