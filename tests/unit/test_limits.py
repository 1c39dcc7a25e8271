"""Limits: how people write them, what is wrong with them, and what the kernel is told, v1 and v2."""

from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.resources_pb2 import IoLimit, Resources
from tinyo_ctl.keys import values
from tinyo_ctl.mistakes import StatefileError
from tinyo_ctl.statefile import load
from tinyo_node.checks.limits import check
from tinyo_runtime import hierarchies, limits
from tinyo_runtime.errors import TinyoError

EVERYTHING = """
container: a
memory: 512m
memory_swap: -1
memory_reservation: 64MiB
cpus: 1.5
cpu_weight: 200
cpuset: 0-3,6
pids: 100
io_weight: 50
io:
  - device: /dev/sda
    read_bps: 10m
    write_iops: 1000
"""


def test_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(EVERYTHING)
    assert load(str(tmp_path / "web.yml")).containers[0].resources == Resources(
        memory_bytes=512 << 20,
        memory_swap_bytes=-1,
        memory_reservation_bytes=64 << 20,
        cpu_millis=1500,
        cpu_weight=200,
        cpuset="0-3,6",
        pids=100,
        io_weight=50,
        io=[IoLimit(device="/dev/sda", read_bps=10 << 20, write_iops=1000)],
    )


@pytest.mark.parametrize(
    ("text", "bytes"),
    [
        ("4096", 4096),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("64MiB", 64 << 20),
        ("64 MB", 64 << 20),
        ("1K", 1024),
        ("2b", 2),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, bytes: int) -> None:
    assert values.size(text) == bytes


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1.g", "0x10", "1e9", "٣m", "9" * 16, "9999999p"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        values.size(text)


def test_mistakes_have_places(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("container: a\nmemory: much\ncpus: 0\nio: {read_bps: 1m}\npids: -5\n")
    with pytest.raises(StatefileError) as caught:
        load(str(tmp_path / "web.yml"))
    lines = [line for line in str(caught.value).splitlines() if "web.yml" in line]
    assert [line.split("web.yml:")[1].split(" ")[0] for line in lines] == ["2:9:", "3:7:", "4:5:", "5:7:"]


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (Resources(memory_bytes=1), "memory_bytes"),
        (Resources(memory_bytes=1 << 63), "memory_bytes"),
        (Resources(memory_swap_bytes=1 << 30), "memory_swap_bytes"),
        (Resources(memory_bytes=1 << 30, memory_swap_bytes=1), "memory_swap_bytes"),
        (Resources(memory_bytes=1 << 30, memory_swap_bytes=-2), "memory_swap_bytes"),
        (Resources(memory_bytes=1 << 30, memory_reservation_bytes=1 << 31), "memory_reservation_bytes"),
        (Resources(cpu_millis=9), "cpu_millis"),
        (Resources(cpu_weight=10001), "cpu_weight"),
        (Resources(io_weight=10001), "io_weight"),
        (Resources(cpuset="3-1"), "cpuset"),
        (Resources(cpuset="0\n1"), "cpuset"),
        (Resources(cpuset="0,"), "cpuset"),
        (Resources(pids=1 << 23), "pids"),
        (Resources(io=[IoLimit(device="sda", read_bps=1)]), "io[0].device"),
        (Resources(io=[IoLimit(device="/dev/../etc", read_bps=1)]), "io[0].device"),
        (Resources(io=[IoLimit(device="/dev/sda")]), "io[0]"),
        (Resources(io=[IoLimit(device="8:0", read_bps=1)] * 2), "io[1].device"),
    ],
)
def test_what_no_kernel_takes(resources: Resources, field: str) -> None:
    assert [name for name, _ in check(ContainerSpec(resources=resources))] == [f"resources.{field}"]


@pytest.mark.parametrize(("weight", "shares"), [(1, 2), (100, 1024), (10_000, 262_144)])
def test_weights_are_converted_so_that_ends_and_defaults_meet(weight: int, shares: int) -> None:
    assert limits.shares(weight) == shares


@pytest.mark.parametrize(("weight", "bfq"), [(1, 1), (100, 100), (10_000, 1000)])
def test_weights_of_disks_as_well(weight: int, bfq: int) -> None:
    assert limits.bfq_weight(weight) == bfq


def told(resources: Resources, version: int) -> dict[str, str]:
    """What the kernel is told, with files of v2 (0) or v1 (1)."""
    return dict(setting.files[min(version, len(setting.files) - 1)] for setting in limits.settings(resources))


def test_memory_and_swap() -> None:
    as_much = Resources(memory_bytes=8 << 20)
    assert told(as_much, 0) == {"memory.max": "8388608", "memory.swap.max": "8388608"}
    assert told(as_much, 1)["memory.memsw.limit_in_bytes"] == "16777216"
    none = Resources(memory_bytes=8 << 20, memory_swap_bytes=8 << 20)
    assert (told(none, 0)["memory.swap.max"], told(none, 1)["memory.memsw.limit_in_bytes"]) == (
        "0",
        "8388608",
    )
    all = Resources(memory_bytes=8 << 20, memory_swap_bytes=-1)
    assert (told(all, 0)["memory.swap.max"], told(all, 1)["memory.memsw.limit_in_bytes"]) == ("max", "-1")


def test_a_controller_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchies, "controllers", dict)
    with pytest.raises(TinyoError) as caught:
        limits.check(Resources(memory_bytes=8 << 20))
    error = caught.value
    assert (error.reason, error.field) == ("LIMIT_UNSUPPORTED", "resources.memory_bytes")
    assert f"kernel {hierarchies.kernel()} offers no memory among its cgroups" in error.message


def test_controllers_are_found_in_all_three_arrangements(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset io pids\n")
    v2 = f"30 25 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    v1 = "31 25 0:27 / /c/blkio rw - cgroup cgroup rw,blkio\n32 25 0:28 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    assert hierarchies.read(v2) == {
        name: hierarchies.Place(tmp_path, True) for name in ("cpuset", "io", "pids")
    }
    both = hierarchies.read(v1 + v2)
    assert both["io"] == hierarchies.Place(Path("/c/blkio"), False)
    assert both["cpuacct"] == both["cpu"] == hierarchies.Place(Path("/c/cpu"), False)
    assert both["pids"].v2
