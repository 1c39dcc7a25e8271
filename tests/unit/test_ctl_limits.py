"""`tinyo update` and `tinyo stats`, against a node that says what a test wants."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.resources_pb2 import Resources
from tinyo.v1.stats_pb2 import ContainerStats

from tests.support.fake_node import FakeNode

TINYO = str(Path(sys.executable).with_name("tinyo"))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tinyo(environment: dict[str, str]) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TINYO, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )

    return run


def test_only_what_is_said_is_changed(tinyo: Run, node: FakeNode) -> None:
    node.containers["web"] = v1.Container(spec=v1.ContainerSpec(name="web"))
    done = tinyo(
        "update", "web", "--memory", "1.5g", "--memory-swap", "-1", "--cpuset", "none", "--pids", "none"
    )
    assert (done.returncode, done.stdout) == (0, "✓ web  updated\n")
    (request,) = (one for one in node.requests if isinstance(one, pb.UpdateRequest))
    assert request.resources == Resources(memory_bytes=3 << 29, memory_swap_bytes=-1)
    assert [*request.fields] == ["memory_bytes", "memory_swap_bytes", "cpuset", "pids"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to change"),
        (["--memory", "much"], "--memory: 'much' is no size"),
        (["--cpu-weight", "-3"], "--cpu-weight: '-3' is no number from 1 upwards"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_asked(
    tinyo: Run, node: FakeNode, arguments: list[str], said: str
) -> None:
    done = tinyo("update", "web", *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert not node.requests


def sample(seconds: int, cpu: float, **more: int) -> ContainerStats:
    one = ContainerStats(id="1", name="web\x1b[2J", cpu_usage_ns=int(cpu * 1e9), pids=3, **more)  # type: ignore[arg-type]
    one.time.FromSeconds(seconds)
    return one


def test_a_table_of_differences(tinyo: Run, node: FakeNode) -> None:
    first = sample(1, 0, cpu_periods=0)
    second = sample(3, 1, cpu_periods=20, cpu_throttled_periods=5, memory_limit_bytes=1 << 20)
    second.memory_working_set_bytes, second.oom_kills = 1 << 18, 2
    node.samples = [[first], [second]]
    done = tinyo("stats", "--no-stream")
    heading, row = done.stdout.splitlines()
    assert " ".join(row.split()) == "web\\x1b[2J 50.0 % 25% 256 KiB / 1 MiB 25% - - 3 2"
    assert heading.startswith("NAME")


def test_objects_for_programs(tinyo: Run, node: FakeNode) -> None:
    node.samples = [[sample(1, 0)], [sample(2, 1, io_read_bytes=1 << 40)], [sample(3, 1)]]
    lines = tinyo("stats", "-o", "json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first["cpu_percent"], first["io_read_bytes"], first["cpu_usage_ns"]) == (100, 1 << 40, 10**9)
    assert second["cpu_percent"] == 0 and "io_read_bytes" not in second


def test_a_stream_that_ends_at_once_is_no_error(tinyo: Run, node: FakeNode) -> None:
    done = tinyo("stats")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
