"""Stats: what is read from the kernel's files, what people see of it, and metrics whatever names are like."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinyo.v1.stats_pb2 import ContainerStats, NetworkStats, Pressure
from tinyo_ctl import stats as shown
from tinyo_node import exposition, metrics
from tinyo_runtime import stats

from tests.support import openmetrics


def test_pressure_and_disks_of_v2() -> None:
    one = ContainerStats()
    text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=3\n"
    stats.pressure("cpu")(one, text)
    assert one.pressure["cpu"] == Pressure(some_avg10=1.5, full_avg10=0.25, some_total_us=7, full_total_us=3)
    stats.io_v2(one, "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=20\n7:0 \n")
    assert (one.io_read_bytes, one.io_write_bytes, one.io_read_ops, one.io_write_ops) == (11, 22, 3, 4)


def test_processors_and_memory_of_v2() -> None:
    one = ContainerStats()
    stats.cpu_v2(
        one, "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 4\nthrottled_usec 6\n"
    )
    assert (one.cpu_usage_ns, one.cpu_user_ns, one.cpu_system_ns) == (30_000, 20_000, 10_000)
    assert (one.cpu_periods, one.cpu_throttled_periods, one.cpu_throttled_ns) == (5, 4, 6_000)
    stats.usage(one, "1000\n")
    stats.memory_v2(one, "anon 500\ninactive_file 300\n")
    stats.limit(one, "max\n")
    assert one.memory_working_set_bytes == 700 and not one.HasField("memory_limit_bytes")


def test_files_of_v1() -> None:
    one = ContainerStats()
    stats.io_bytes_v1(one, "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\n8:16 Read 1\nTotal 12\n")
    stats.limit(one, "9223372036854771712\n")
    assert (one.io_read_bytes, one.io_write_bytes) == (6, 6) and not one.HasField("memory_limit_bytes")


@pytest.mark.parametrize(
    ("bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (64 << 20, "64 MiB"), (3 << 29, "1.5 GiB")],
)
def test_bytes_have_three_digits(bytes: int, text: str) -> None:
    assert shown.size(bytes) == text


def test_rates_are_differences() -> None:
    before, now = ContainerStats(cpu_usage_ns=10), ContainerStats(cpu_usage_ns=500_000_010)
    now.time.FromSeconds(2)
    before.time.FromSeconds(1)
    assert shown.cpu_percent(now, before) == 50
    assert shown.cpu_percent(now, None) is None
    assert shown.cpu_percent(before, now) is None  # it was started again meanwhile


def test_as_much_as_the_terminal_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown.fitting(["a" * 12, "b", "c", "d"], 10, 3) == ["a" * 10, "b", "and 2 more"]
    assert shown.fitting(["\x1b[2mNAME   CPU\x1b[0m"], 6, 3) == ["NAME  "]


def node(**more: Any) -> Any:
    """As much of a node as is told of."""
    log = SimpleNamespace(node_id="n", newest=3, revisions={"default": 2})
    return SimpleNamespace(log=log, containers={}, **more)


@given(st.text(), st.text())
def test_nothing_in_a_label_breaks_the_format(image: str, name: str) -> None:
    one = ContainerStats(id="1", name=name, image=image, cluster="default", io_read_bytes=0)
    one.received.CopyFrom(NetworkStats(bytes=5))
    text = exposition.text(node(), [one])
    families = openmetrics.families(text)
    (sample,) = families["container_cpu_usage_seconds"].samples
    assert sample.labels.keys() == {"cluster", "name", "id", "image"}
    assert len(sample.labels["image"]) <= 2 * exposition.LONGEST
    assert families["container_fs_reads_bytes"].samples[0].value == 0
    assert not families["container_fs_writes_bytes"].samples  # nobody counts it
    assert families["container_network_receive_bytes"].samples[0].value == 5
    assert all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("text", "address"),
    [("", None), ("127.0.0.1:9323", ("127.0.0.1", 9323)), ("[::1]:9323", ("::1", 9323))],
)
def test_addresses(text: str, address: tuple[str, int] | None) -> None:
    assert metrics.parsed(text) == address


@pytest.mark.parametrize("text", ["9323", ":9323", "127.0.0.1", "::1:9323", "127.0.0.1:0", "127.0.0.1:99999"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SystemExit, match="write an address and a port"):
        metrics.parsed(text)
