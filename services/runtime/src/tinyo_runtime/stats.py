"""What running containers take of the machine, read from files of their cgroups and from their interfaces' counters.

A sample of a thousand containers reads some ten thousand small files: a thread does it, so that nobody waits for it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from tinyo.v1.stats_pb2 import ContainerStats, NetworkStats

from tinyo_runtime import hierarchies
from tinyo_runtime.containers import Container, Containers

#: Milliseconds between two samples, at least.
LEAST_MS = 100
#: Limits of v1 from here on are none (PAGE_COUNTER_MAX).
NO_LIMIT = 1 << 62
#: Bytes of the longest of these files, memory.stat, by far.
ROOM = 1 << 16


async def read(
    containers: Containers, ids: frozenset[str], interval_ms: int
) -> AsyncIterator[list[ContainerStats]]:
    """A sample of those that run, of all or of some, and with an interval further ones without end. CONTAINER_NOT_FOUND."""
    for id in ids:
        containers.get(id)
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        chosen = [one for one in containers.all.values() if one.process and (not ids or one.config.id in ids)]
        yield await asyncio.to_thread(sample, containers.cgroups.name, chosen)
        if not interval_ms:
            return
        took = loop.time() - begun
        await asyncio.sleep(
            max(max(interval_ms, LEAST_MS) / 1000 - took, took)
        )  # never more than half of the time


def sample(instance: str, containers: list[Container]) -> list[ContainerStats]:
    """One sample; those that ended meanwhile are left out."""
    interfaces = counters(Path("/proc/net/dev").read_text())
    stats = []
    for container in containers:
        config = container.config
        one = ContainerStats(
            id=config.id, name=config.spec.name, cluster=config.cluster, image=config.spec.image
        )
        one.time.GetCurrentTime()
        if fill(one, instance):
            if found := interfaces.get(container.interface):
                one.sent.CopyFrom(found[0])  # what its end receives here, the container has sent
                one.received.CopyFrom(found[1])
            stats.append(one)
    return stats


def fill(stats: ContainerStats, instance: str) -> bool:
    """Reads the cgroups of a container. False when it has none any more."""
    for controller, place in hierarchies.controllers().items():
        folder = f"{place.hierarchy}/{instance}/{stats.id}/"
        for name, take in (V2 if place.v2 else V1).get(controller, ()):
            if text := contents(folder + name):
                take(stats, text)
    return bool(stats.pids)


def contents(path: str) -> str:
    """Of a file of the kernel; "" when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, ROOM).decode()
    except OSError:  # ENODEV: it went while it was open; EOPNOTSUPP: pressure is not counted
        return ""
    finally:
        os.close(fd)


def table(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(number) for name, number in map(str.split, text.splitlines())}


def cpu_v2(stats: ContainerStats, text: str) -> None:
    """cpu.stat, in microseconds."""
    found = table(text)
    stats.cpu_usage_ns, stats.cpu_user_ns = found["usage_usec"] * 1000, found["user_usec"] * 1000
    stats.cpu_system_ns = found["system_usec"] * 1000
    stats.cpu_periods, stats.cpu_throttled_periods = found.get("nr_periods", 0), found.get("nr_throttled", 0)
    stats.cpu_throttled_ns = found.get("throttled_usec", 0) * 1000


def cpu_v1(stats: ContainerStats, text: str) -> None:
    """cpu.stat, in nanoseconds."""
    found = table(text)
    stats.cpu_periods, stats.cpu_throttled_periods = found["nr_periods"], found["nr_throttled"]
    stats.cpu_throttled_ns = found["throttled_time"]


def cpuacct(stats: ContainerStats, text: str) -> None:
    """cpuacct.usage_all: for each processor what was used by programs and by the kernel, in nanoseconds."""
    for _, user, system in map(str.split, text.splitlines()[1:]):
        stats.cpu_user_ns += int(user)
        stats.cpu_system_ns += int(system)
    stats.cpu_usage_ns = stats.cpu_user_ns + stats.cpu_system_ns


def usage(stats: ContainerStats, text: str) -> None:
    """memory.current, or what v1 calls so; before memory.stat."""
    stats.memory_usage_bytes = int(text)


def memory_v2(stats: ContainerStats, text: str) -> None:
    """memory.stat."""
    stats.memory_working_set_bytes = max(0, stats.memory_usage_bytes - table(text)["inactive_file"])


def memory_v1(stats: ContainerStats, text: str) -> None:
    """memory.stat, of which "total" counts the cgroups below as well."""
    found = table(text)
    stats.memory_working_set_bytes = max(0, stats.memory_usage_bytes - found["total_inactive_file"])
    if "total_swap" in found:
        stats.swap_usage_bytes = found["total_swap"]


def limit(stats: ContainerStats, text: str) -> None:
    """memory.max, or what v1 calls so."""
    if text != "max\n" and int(text) < NO_LIMIT:
        stats.memory_limit_bytes = int(text)


def swap(stats: ContainerStats, text: str) -> None:
    """memory.swap.current."""
    stats.swap_usage_bytes = int(text)


def oom(stats: ContainerStats, text: str) -> None:
    """memory.events or memory.oom_control."""
    stats.oom_kills = table(text).get("oom_kill", 0)


def pids(stats: ContainerStats, text: str) -> None:
    """pids.current."""
    stats.pids = int(text)


def pids_limit(stats: ContainerStats, text: str) -> None:
    """pids.max."""
    if text != "max\n":
        stats.pids_limit = int(text)


def io_v2(stats: ContainerStats, text: str) -> None:
    """io.stat: a line for each disk; there is none before the first use of any, which `fill` takes for no file."""
    for line in text.splitlines():
        found = dict(word.split("=") for word in line.split()[1:] if "=" in word)
        stats.io_read_bytes += int(found.get("rbytes", 0))
        stats.io_write_bytes += int(found.get("wbytes", 0))
        stats.io_read_ops += int(found.get("rios", 0))
        stats.io_write_ops += int(found.get("wios", 0))


def io_bytes_v1(stats: ContainerStats, text: str) -> None:
    """blkio.throttle.io_service_bytes_recursive: "8:0 Read 4096"."""
    stats.io_read_bytes, stats.io_write_bytes = _sums(text)


def io_ops_v1(stats: ContainerStats, text: str) -> None:
    """blkio.throttle.io_serviced_recursive."""
    stats.io_read_ops, stats.io_write_ops = _sums(text)


def _sums(text: str) -> tuple[int, int]:
    lines = [line.split() for line in text.splitlines()]
    read, written = (sum(int(line[2]) for line in lines if line[1:2] == [kind]) for kind in ("Read", "Write"))
    return read, written


def pressure(kind: str) -> Callable[[ContainerStats, str], None]:
    """Of cpu.pressure and the like: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"."""

    def take(stats: ContainerStats, text: str) -> None:
        for line in text.splitlines():
            which, *words = line.split()
            found = dict(word.split("=") for word in words)
            setattr(stats.pressure[kind], f"{which}_avg10", float(found["avg10"]))
            setattr(stats.pressure[kind], f"{which}_total_us", int(found["total"]))

    return take


class Source(NamedTuple):
    """A file, and who takes its text."""

    name: str
    take: Callable[[ContainerStats, str], None]


V2 = {
    "cpu": (Source("cpu.stat", cpu_v2), Source("cpu.pressure", pressure("cpu"))),
    "memory": (
        Source("memory.current", usage),
        Source("memory.stat", memory_v2),
        Source("memory.max", limit),
        Source("memory.swap.current", swap),
        Source("memory.events", oom),
        Source("memory.pressure", pressure("memory")),
    ),
    "pids": (Source("pids.current", pids), Source("pids.max", pids_limit)),
    "io": (Source("io.stat", io_v2), Source("io.pressure", pressure("io"))),
}
V1 = {
    "cpu": (Source("cpu.stat", cpu_v1),),
    "cpuacct": (Source("cpuacct.usage_all", cpuacct),),
    "memory": (
        Source("memory.usage_in_bytes", usage),
        Source("memory.stat", memory_v1),
        Source("memory.limit_in_bytes", limit),
        Source("memory.oom_control", oom),
    ),
    "pids": (Source("pids.current", pids), Source("pids.max", pids_limit)),
    "io": (
        Source("blkio.throttle.io_service_bytes_recursive", io_bytes_v1),
        Source("blkio.throttle.io_serviced_recursive", io_ops_v1),
    ),
}


def counters(text: str) -> dict[str, tuple[NetworkStats, NetworkStats]]:
    """Received and sent by interface, from /proc/net/dev (proc_pid_net(5))."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [*map(int, rest.split())]
        found[name.strip()] = (
            NetworkStats(bytes=n[0], packets=n[1], errors=n[2], drops=n[3]),
            NetworkStats(bytes=n[8], packets=n[9], errors=n[10], drops=n[11]),
        )
    return found
