"""Limits: values that no kernel takes, and those that contradict each other."""

import re
from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.resources_pb2 import IoLimit, Resources

#: Bytes that a container needs to start at all, as docker has it.
LEAST_MEMORY = 6 << 20
#: The kernel's own limit of process ids (PID_MAX_LIMIT).
MOST_PIDS = 1 << 22
#: The kernel's limit of a processor's number is lower everywhere.
MOST_CPUS = 1 << 13
MOST = 1 << 62
DEVICE = re.compile(r"/dev/[\w/.+:-]{1,200}|[0-9]{1,7}:[0-9]{1,7}", re.ASCII)


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the limits of a spec."""
    resources = spec.resources
    for field, text in (*memory(resources), *shares(resources)):
        yield f"resources.{field}", text
    seen = set[str]()
    for index, limit in enumerate(resources.io):
        for field, text in io(limit):
            yield f"resources.io[{index}]{field}", text
        if limit.device in seen:
            yield f"resources.io[{index}].device", f"{limit.device} is there twice"
        seen.add(limit.device)


def memory(resources: Resources) -> Iterator[tuple[str, str]]:
    """Of memory and swap."""
    limit, swap = resources.memory_bytes, resources.memory_swap_bytes
    if limit and not LEAST_MEMORY <= limit < MOST:
        yield "memory_bytes", f"memory is at least 6 MiB, not {limit} bytes"
    if swap and not limit:
        yield "memory_swap_bytes", "memory_swap needs `memory`: it is the sum of memory and swap"
    elif swap < -1 or swap >= MOST or 0 < swap < limit:
        yield "memory_swap_bytes", "memory_swap is the sum of memory and swap: not less than `memory`; or -1"
    if (limit and resources.memory_reservation_bytes > limit) or resources.memory_reservation_bytes >= MOST:
        yield "memory_reservation_bytes", "memory_reservation is more than `memory`"


def shares(resources: Resources) -> Iterator[tuple[str, str]]:
    """Of processors, processes and weights."""
    if resources.cpu_millis and not 10 <= resources.cpu_millis <= MOST_CPUS * 1000:
        yield "cpu_millis", f"cpus is between 0.01 and {MOST_CPUS}"
    for field in ("cpu_weight", "io_weight"):
        if getattr(resources, field) > 10_000:
            yield field, f"{field} is between 1 and 10000"
    if resources.cpuset and not is_cpuset(resources.cpuset):
        yield "cpuset", f"{resources.cpuset!r} is no list of processors: write it as in 0-3,6"
    if resources.pids > MOST_PIDS:
        yield "pids", f"pids is between 1 and {MOST_PIDS}"


def is_cpuset(text: str) -> bool:
    """Whether it is a list of numbers and ranges (cpuset(7), "List format")."""
    for part in text.split(","):
        if not (match := re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part, re.ASCII)):
            return False
        if not int(match[1]) <= int(match[2] or match[1]) < MOST_CPUS:
            return False
    return True


def io(limit: IoLimit) -> Iterator[tuple[str, str]]:
    """Of one disk."""
    if not DEVICE.fullmatch(limit.device) or ".." in limit.device.split("/"):
        yield ".device", f"{limit.device!r} is no disk: write it as in /dev/sda or 8:0"
    values = (limit.read_bps, limit.write_bps, limit.read_iops, limit.write_iops)
    if not any(values):
        yield "", "a limit is missing: read_bps, write_bps, read_iops or write_iops"
    if max(values) >= MOST:
        yield "", "a limit is larger than the kernel takes"
