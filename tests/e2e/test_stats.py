"""What containers take of the machine: as a stream, as a table, and as metrics over HTTP."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.resources_pb2 import Resources
from tinyo.v1.stats_pb2 import ContainerStats

from tests.support import openmetrics
from tests.support.client import Client
from tests.support.instance import PATIENCE, Instance
from tests.support.registry import free_port


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def instance(port: int) -> Iterator[Instance]:
    with Instance(TINYO_NODE_METRICS=f"127.0.0.1:{port}") as made:
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance, image: str) -> Iterator[Client]:
    """A client of a node with two containers: one with limits that works, one without that does nothing."""
    with Client(instance.socket("tinyo-node")) as made:
        resources = Resources(memory_bytes=64 << 20, pids=50, cpu_millis=500)
        busy = v1.ContainerSpec(name="busy", image=image, resources=resources)
        busy.command.extend(["sh", "-c", "while :; do :; done"])
        made.up(busy, v1.ContainerSpec(name="idle", image=image))
        yield made


def samples(client: Client, **request: object) -> Iterator[dict[str, ContainerStats]]:
    for answer in client.node.Stats(pb.StatsRequest(**request), timeout=PATIENCE):  # type: ignore[arg-type]
        yield {one.name: one for one in answer.stats}


def test_stats_come_again_and_again(client: Client) -> None:
    stream = samples(client, interval_ms=100)
    first, second = next(stream), next(stream)
    assert [*first] == ["busy", "idle"]
    busy = second["busy"]
    assert busy.cpu_usage_ns > first["busy"].cpu_usage_ns > 0
    assert busy.time.ToNanoseconds() > first["busy"].time.ToNanoseconds()
    assert (busy.memory_limit_bytes, busy.pids, busy.pids_limit) == (64 << 20, 1, 50)
    assert 0 < busy.memory_working_set_bytes <= busy.memory_usage_bytes < 64 << 20
    assert not second["idle"].HasField("memory_limit_bytes")
    assert second["idle"].pids_limit == 4096


def test_what_went_over_the_network_is_counted_from_inside(client: Client) -> None:
    """What a container sends is what its end on the host receives."""

    def sent() -> tuple[int, int]:
        one = next(samples(client, names=["idle"]))["idle"]
        return one.sent.packets, one.received.packets

    before = sent()
    code, _, _ = client.run("idle", "sh", "-c", "echo hello | nc -w 1 192.0.2.1 9 || echo")
    assert code == 0
    assert sent()[0] > before[0]


def test_only_those_that_are_named(client: Client) -> None:
    assert [*next(samples(client, names=["idle"]))] == ["idle"]


def test_the_table_and_the_objects(instance: Instance, client: Client) -> None:
    table = instance.cli("stats", "--no-stream").stdout.splitlines()
    assert table[0].split()[:3] == ["NAME", "CPU", "THROTTLED"]
    busy = next(line for line in table if line.startswith("busy"))
    assert "/ 64 MiB" in busy and " % " in busy
    (line,) = instance.cli("stats", "--no-stream", "-o", "json", "busy").stdout.splitlines()
    facts = json.loads(line)
    assert facts["name"] == "busy" and facts["memory_limit_bytes"] == 64 << 20
    assert facts["cpu_percent"] > 0
    wrong = instance.cli("stats", "nobody", check=False)
    assert wrong.returncode == 1 and "there is no container 'nobody'" in wrong.stderr


def asked(
    address: str | tuple[str, int], request: bytes = b"GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n"
) -> bytes:
    """All that is answered over HTTP."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_metrics_are_openmetrics(instance: Instance, client: Client, image: str, port: int) -> None:
    path = instance.run / "metrics.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    for address in (str(path), ("127.0.0.1", port)):
        head, _, body = asked(address).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n" in head
        families = openmetrics.families(body.decode())
        (usage,) = (
            one for one in families["container_cpu_usage_seconds"].samples if one.labels["name"] == "busy"
        )
        assert usage.name == "container_cpu_usage_seconds_total" and usage.value > 0
        assert usage.labels["cluster"] == "default" and usage.labels["image"] == image
        assert usage.labels["id"] == client.get("busy").id
        phases = {one.labels["phase"]: one.value for one in families["tinyo_containers"].samples}
        assert phases == {"running": 2}
        assert families["tinyo_runtime_up"].samples[0].value == 1
        assert families["tinyo_events"].samples[0].value >= 10


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"hello\r\n\r\n", b"400"),
        (b"HEAD /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics?x HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_other_requests(instance: Instance, client: Client, request_: bytes, status: bytes) -> None:
    head, _, body = asked(str(instance.run / "metrics.sock"), request_).partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert bool(body) != request_.startswith(b"HEAD")


def test_who_asks_too_much_or_nothing_stops_nobody(instance: Instance, client: Client) -> None:
    path = str(instance.run / "metrics.sock")
    try:
        asked(path, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000)
    except ConnectionError:
        pass
    silent = [socket.socket(socket.AF_UNIX) for _ in range(16)]
    try:
        for one in silent:
            one.connect(path)
        while not asked(path).startswith(b"HTTP/1.1 503"):  # all of them have been noticed
            pass
    finally:
        for one in silent:
            one.close()
    while asked(path).startswith(b"HTTP/1.1 503"):
        pass
    assert [*next(samples(client))] == ["busy", "idle"]


def test_without_a_runtime_the_node_tells_of_itself(instance: Instance, client: Client) -> None:
    path = Path(instance.run / "metrics.sock")
    with Instance("tinyo-node") as alone:
        body = asked(str(alone.run / "metrics.sock")).partition(b"\r\n\r\n")[2].decode()
    families = openmetrics.families(body)
    assert families["tinyo_runtime_up"].samples[0].value == 0
    assert not families["container_cpu_usage_seconds"].samples
    assert path.exists()
