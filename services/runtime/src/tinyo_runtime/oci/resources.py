"""`linux.resources` of a bundle: what its container may take of the machine, as files of cgroups v1 and v2.

The values are those of the kernel already, so that they are not those of `tinyo_runtime.limits`, which people write.
"""

from collections.abc import Iterator
from pathlib import Path

from tinyo_runtime import hierarchies
from tinyo_runtime.devices import rules
from tinyo_runtime.oci.cgroups import Cgroup, write
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.parts import Part

#: What says -1, which is none, as v2 says it.
_MAX = 1 << 63
#: A value for v1 and one for v2: the controller by its name in v2, then file and text. None: that version has no such.
Setting = tuple[str, tuple[str, str] | None, tuple[str, str] | None]
PERIOD = 100_000
THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def apply(cgroup: Cgroup, resources: Part) -> None:
    """Before any process is in it. OciError by the name of what this kernel cannot do."""
    for where, (controller, v1, v2) in settings(resources):
        place = cgroup.folder(controller)
        one = place and (v2 if place[1] else v1)
        if not place or not one:
            raise OciError(
                f"{where} cannot be had: this kernel ({hierarchies.kernel()}) has no such limit here"
            )
        try:
            write(place[0] / one[0], one[1])
        except OSError as error:
            raise OciError(f"{where} was refused: {error.filename}: {error.strerror}") from None
    for name, value in resources.texts_by_name("unified").items():
        folder = next((folder for folder, v2 in cgroup.folders.items() if v2), None)
        if folder is None or "/" in name or not (folder / name).exists():
            raise resources.wrong(f"unified.{name}", "cannot be had: there is no such file of cgroup v2 here")
        write(folder / name, value)
    allowed = device_rules(resources)
    for folder in cgroup.folders if allowed is not None else ():
        rules.restrict(Path(folder), allowed or ())


def settings(resources: Part) -> Iterator[tuple[str, Setting]]:
    """Every limit that is asked for, and where."""
    for key in ("network", "rdma"):
        resources.refuse(key)
    yield from _memory(resources.part("memory"))
    yield from _cpu(resources.part("cpu"))
    yield from _block(resources.part("blockIO"))
    pids = resources.part("pids")
    if (limit := pids.number("limit", -1)) is not None:
        text = "max" if limit <= 0 else str(limit)
        yield pids.at("limit"), ("pids", ("pids.max", text), ("pids.max", text))
    for page in resources.parts("hugepageLimits"):
        size, most = page.needed("pageSize"), str(page.number("limit"))
        name = f"hugetlb.{size}"
        yield page.where, ("hugetlb", (f"{name}.limit_in_bytes", most), (f"{name}.max", most))


def _memory(memory: Part) -> Iterator[tuple[str, Setting]]:
    for key in ("kernel", "kernelTCP"):
        memory.refuse(key, "is not supported: the kernel itself has given it up")
    if memory.value.get("useHierarchy") is False:
        raise memory.wrong("useHierarchy", "cannot be false: the kernel always counts what is below as well")
    limit = memory.number("limit", -1)
    if limit:
        text = "max" if limit < 0 else str(limit)
        yield memory.at("limit"), ("memory", ("memory.limit_in_bytes", str(limit)), ("memory.max", text))
    if both := memory.number("swap", -1):
        if both > 0 and (limit is None or both < limit):
            raise memory.wrong(
                "swap", "is memory and swap together: not less than memory.limit, which it needs"
            )
        text = "max" if both < 0 else str(both - (limit or 0))
        files = ("memory.memsw.limit_in_bytes", str(both)), ("memory.swap.max", text)
        yield memory.at("swap"), ("memory", *files)
    if reserved := memory.number("reservation", -1):
        files = ("memory.soft_limit_in_bytes", str(reserved)), ("memory.low", str(max(reserved, 0)))
        yield memory.at("reservation"), ("memory", *files)
    if (swappiness := memory.number("swappiness", 0, 100)) is not None:
        yield memory.at("swappiness"), ("memory", ("memory.swappiness", str(swappiness)), None)
    if memory.flag("disableOOMKiller"):
        yield memory.at("disableOOMKiller"), ("memory", ("memory.oom_control", "1"), None)


def _cpu(cpu: Part) -> Iterator[tuple[str, Setting]]:
    for key in ("realtimeRuntime", "realtimePeriod"):
        cpu.refuse(key)
    if shares := cpu.number("shares"):
        shares = min(max(shares, 2), 262144)
        weight = 1 + (shares - 2) * 9999 // 262142  # as the specification's v2 has been converted by all
        yield cpu.at("shares"), ("cpu", ("cpu.shares", str(shares)), ("cpu.weight", str(weight)))
    quota, period = cpu.number("quota", -1), cpu.number("period")
    if period:
        text = f"{quota if quota and quota > 0 else 'max'} {period}"
        yield cpu.at("period"), ("cpu", ("cpu.cfs_period_us", str(period)), ("cpu.max", text))
    if quota:
        text = f"{quota if quota > 0 else 'max'} {period or PERIOD}"
        yield cpu.at("quota"), ("cpu", ("cpu.cfs_quota_us", str(quota)), ("cpu.max", text))
    if burst := cpu.number("burst"):
        yield cpu.at("burst"), ("cpu", ("cpu.cfs_burst_us", str(burst)), ("cpu.max.burst", str(burst)))
    if (idle := cpu.number("idle", 0, 1)) is not None:
        yield cpu.at("idle"), ("cpu", ("cpu.idle", str(idle)), ("cpu.idle", str(idle)))
    for key, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if text := cpu.text(key):
            yield cpu.at(key), ("cpuset", (name, text), (name, text))


def _block(block: Part) -> Iterator[tuple[str, Setting]]:
    for key in ("leafWeight", "weightDevice"):
        block.refuse(key)
    if weight := block.number("weight", 0, 1000):
        wide = f"default {1 + (weight - 10) * 9999 // 990}" if weight >= 10 else "default 1"
        yield block.at("weight"), ("io", ("blkio.weight", str(weight)), ("io.weight", wide))
    for key, (v1, v2) in THROTTLES.items():
        for device in block.parts(key):
            numbers, rate = f"{device.number('major')}:{device.number('minor')}", device.number("rate")
            yield device.where, ("io", (v1, f"{numbers} {rate}"), ("io.max", f"{numbers} {v2}={rate}"))


def device_rules(resources: Part) -> tuple[rules.Rule, ...] | None:
    """What may be used in the end: the list of the bundle, read from above, and what the specification wants for every
    container. None: everything."""
    allowed: list[rules.Rule] = []
    everything = False
    for entry in resources.parts("devices"):
        kind, access = entry.text("type") or "a", entry.text("access") or "rwm"
        numbers = [entry.number(key, -1) for key in ("major", "minor")]
        major, minor = (None if number in (None, -1) else number for number in numbers)
        if kind not in ("a", "b", "c", "u") or set(access) - set("rwm"):
            raise OciError(
                f"{entry.where} must have a type of 'a', 'b', 'c' or 'u', and an access of 'r', 'w', 'm'"
            )
        of_all = kind == "a" or ((major, minor) == (None, None) and kind == "a")
        if of_all and set(access) == set("rwm"):
            everything, allowed = entry.flag("allow"), []
            continue
        kinds = ("b", "c") if kind == "a" else ("c" if kind == "u" else kind,)
        if entry.flag("allow"):
            allowed += [rules.Rule(one, major, minor, access) for one in kinds]
        elif everything:
            raise OciError(
                f"{entry.where} takes single devices away from all of them, which is not supported"
            )
        else:
            allowed = [
                left for rule in allowed if (left := _without(rule, kinds, major, minor, access, entry))
            ]
    return None if everything else tuple(dict.fromkeys((*rules.DEFAULT, *allowed)))


def _without(
    rule: rules.Rule, kinds: tuple[str, ...], major: int | None, minor: int | None, access: str, entry: Part
) -> rules.Rule | None:
    """What remains of a rule; None is nothing."""
    touches = rule.kind in kinds and all(
        None in (one, other) or one == other for one, other in ((rule.major, major), (rule.minor, minor))
    )
    if not touches or not set(rule.access) & set(access):
        return rule
    if (major is not None and rule.major is None) or (minor is not None and rule.minor is None):
        raise OciError(f"{entry.where} takes a part of what was allowed before it, which is not supported")
    left = "".join(one for one in rule.access if one not in access)
    return rule._replace(access=left) if left else None
