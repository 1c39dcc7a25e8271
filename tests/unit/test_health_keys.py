"""The key `health`: what can be written, what it means, and what a node takes."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, ContainerSpec
from tinyo.v1.health_pb2 import Health, HttpCheck
from tinyo_ctl.mistakes import StatefileError
from tinyo_ctl.statefile import load
from tinyo_node import checks


def written(folder: Path, text: str) -> Health:
    """What a Statefile says."""
    (folder / "web.yml").write_text(f"container: a\nhealth: {text}\n")
    return load(str(folder / "web.yml")).containers[0].health


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("none", {"none": True}),
        ("{exec: pg_isready -q}", {"exec": {"command": ["/bin/sh", "-c", "pg_isready -q"]}}),
        ("{exec: [pg_isready, -q]}", {"exec": {"command": ["pg_isready", "-q"]}}),
        ("{http: /health?a=b}", {"http": {"path": "/health?a=b"}}),
        (
            "{http: {port: 8080, path: /, scheme: https, headers: {Host: a}, status: [200, 204]}}",
            {
                "http": {
                    "port": 8080,
                    "path": "/",
                    "tls": True,
                    "headers": {"Host": "a"},
                    "statuses": [200, 204],
                }
            },
        ),
        ("{http: {port: 80, scheme: http, status: 401}}", {"http": {"port": 80, "statuses": [401]}}),
        (
            "{tcp: 5432, interval: 10, timeout: 1.5s, retries: 5, start_period: 1m30s, start_interval: 500ms}",
            {
                "tcp": {"port": 5432},
                "interval_ms": 10_000,
                "timeout_ms": 1500,
                "retries": 5,
                "start_period_ms": 90_000,
                "start_interval_ms": 500,
            },
        ),
        ("{tcp: 1, start_period: 0s, restart: true}", {"tcp": {"port": 1}, "restart": True}),
        ("{tcp: 1, interval: 1h}", {"tcp": {"port": 1}, "interval_ms": 3_600_000}),
    ],
)
def test_what_can_be_written(tmp_path: Path, text: str, meant: dict[str, Any]) -> None:
    said = MessageToDict(written(tmp_path, text), preserving_proto_field_name=True)
    assert said == meant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("all", "2:9: 'all' is no check: write none, or a mapping with one of exec, http, tcp"),
        ("{interval: 3s}", "2:9: a check is missing here: write one of exec, http, tcp"),
        ("{exec: a, tcp: 80}", "2:19: there can be one check, and 'exec' is there"),
        ("{tcp: 80, every: 3s}", "2:19: unknown key 'every'"),
        ("{tcp: 0}", "2:15: '0' is no port"),
        ("{tcp: [80]}", "2:15: one value is expected here"),
        ("{exec: ' '}", "2:16: a program is expected here"),
        ("{exec: []}", "2:16: a program is expected here"),
        ("{http: health}", "2:16: 'health' is no path"),
        ("{http: {scheme: ftp}}", "2:25: 'ftp' is no scheme"),
        ("{http: {status: 20}}", "2:25: '20' is no status"),
        ("{tcp: 80, interval: soon}", "2:29: 'soon' is no time: write it as in 30s"),
        ("{tcp: 80, interval: 0s}", "2:29: '0s' is no time to wait"),
        ("{tcp: 80, interval: 1.2.3}", "2:29: '1.2.3' is no time"),
        ("{tcp: 80, timeout: 25h}", "2:28: '25h' is longer than a day"),
        ("{tcp: 80, retries: 0}", "2:28: '0' is no number from 1 upwards"),
        ("{tcp: 80, restart: always}", "2:28: 'always' is neither true nor false"),
    ],
)
def test_what_cannot_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(StatefileError) as caught:
        written(tmp_path, text)
    assert f"web.yml:{told}" in str(caught.value)
    assert len(caught.value.mistakes) == 1


def spec(**health: Any) -> ContainerSpec:
    """A container with a check, filled in as a node does."""
    made = ContainerSpec(name="web", image="a", health=Health(**health))
    checks.fill(made)
    return made


def test_a_node_fills_in_what_docker_would() -> None:
    health = spec(tcp={"port": 80}).health
    assert (health.interval_ms, health.timeout_ms, health.retries) == (30_000, 30_000, 3)
    assert (health.start_period_ms, health.start_interval_ms) == (0, 5_000)
    assert spec(tcp={"port": 80}, interval_ms=1000).health.start_interval_ms == 1000
    assert not spec().HasField("health")
    assert spec(none=True).health == Health(none=True)


def test_a_request_goes_to_the_first_port_that_is_published() -> None:
    made = ContainerSpec(name="web", image="a", health=Health(http=HttpCheck(path="/")))
    made.ports.add(host_port=53, container_port=53, protocol=PROTOCOL_UDP)
    made.ports.add(host_port=80, container_port=8080, protocol=PROTOCOL_TCP)
    checks.fill(made)
    assert made.health.http.port == 8080
    assert spec(http={"path": "/"}).health.http.port == 80
    assert spec(http={"tls": True}).health.http.port == 443


@pytest.mark.parametrize(
    ("health", "field"),
    [
        ({"interval_ms": 1000}, "health"),
        ({"none": False}, "health"),
        ({"tcp": {}}, "health.tcp"),
        ({"tcp": {"port": 65536}}, "health.tcp"),
        ({"tcp": {"port": 1}, "interval_ms": 99}, "health.interval_ms"),
        ({"tcp": {"port": 1}, "timeout_ms": 9}, "health.timeout_ms"),
        ({"tcp": {"port": 1}, "start_period_ms": 86_400_001}, "health.start_period_ms"),
        ({"tcp": {"port": 1}, "retries": 1001}, "health.retries"),
        ({"exec": {}}, "health.exec.command"),
        ({"exec": {"command": ["a\0b"]}}, "health.exec.command"),
        ({"exec": {"command": ["a", "b" * 65_536]}}, "health.exec.command"),
        ({"http": {"path": "/a b"}}, "health.http.path"),
        ({"http": {"path": "/a\r\nX: y"}}, "health.http.path"),
        ({"http": {"headers": {"X": "a\r\nY: b"}}}, "health.http.headers[X]"),
        ({"http": {"headers": {"X: a": "b"}}}, "health.http.headers"),
        ({"http": {"headers": {"Content-Length": "7"}}}, "health.http.headers"),
        ({"http": {"statuses": [600]}}, "health.http.statuses[0]"),
    ],
)
def test_a_node_takes_only_what_can_be_done(health: dict[str, Any], field: str) -> None:
    assert [*dict(checks.check(spec(**health)))] == [field]
    assert not dict(checks.check(spec(http={"path": "/%20?a=b", "headers": {"Host": "a.example"}})))
