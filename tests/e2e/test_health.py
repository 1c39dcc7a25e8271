"""Health: containers that are checked, what is told of it, and services that are killed meanwhile."""

import json
import os
import re
import select
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1 import health_pb2 as health
from tinyo.v1 import network_pb2 as network

from tests.support import images
from tests.support.client import Client
from tests.support.instance import Instance

HEALTHY, UNHEALTHY, RUNNING = ev.EVENT_REASON_HEALTHY, ev.EVENT_REASON_UNHEALTHY, ev.EVENT_REASON_RUNNING
#: Often enough for a test; a check that is made once; one that asks for a file.
OFTEN = {"interval_ms": 100, "start_interval_ms": 100, "retries": 2}
ONCE = {"interval_ms": 3_600_000, "start_interval_ms": 100, "retries": 1}
FILE = {"exec": {"command": ["test", "-e", "/ok"]}, **OFTEN}
#: A shell that waits for input that never comes.
IDLE = ["sh", "-c", "read never"]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def spec(name: str, image: str, check: dict[str, Any] | None, *command: str, **more: Any) -> v1.ContainerSpec:
    """A container that is checked so."""
    made = v1.ContainerSpec(name=name, image=image, command=command or IDLE, **more)
    if check is not None:
        made.health.CopyFrom(health.Health(**check))
    return made


def now(client: Client) -> int:
    """Number of the last event."""
    return client.events()[-1].sequence


def test_it_becomes_unhealthy_and_healthy_and_everybody_hears_of_it(
    client: Client, instance: Instance, image: str
) -> None:
    check = {"exec": {"command": ["sh", "-c", r"printf '\033[31mred\n'; test -e /ok"]}, **OFTEN}
    client.up(spec("web", image, check))
    told = client.until("web", UNHEALTHY)
    assert told.message == "2 failures: \x1b[31mred"
    line = next(line for line in instance.cli("events").stdout.splitlines() if "unhealthy" in line)
    assert "web  unhealthy  2 failures" in line and "\x1b" not in line
    assert re.search(r"running \(unhealthy, \d+ failures\)", instance.cli("ls").stdout)
    shown = instance.cli("ls", "-o", "json").stdout
    assert "\x1b" not in shown
    (one,) = json.loads(shown)
    results = one["status"]["health"]["results"]
    assert {(result["output"], result["code"]) for result in results} == {("\x1b[31mred", 1)}
    client.run("web", "touch", "/ok")
    client.until("web", HEALTHY, told.sequence)
    assert "running (healthy)" in instance.cli("ls").stdout
    status = client.get("web").status.health
    assert (status.state, status.failures, status.was_healthy) == (health.HEALTH_STATE_HEALTHY, 0, True)
    client.run("web", "rm", "/ok")
    client.until("web", UNHEALTHY, now(client))


def test_failures_of_the_start_period_do_not_count(client: Client, instance: Instance, image: str) -> None:
    script = "echo >>/checks; test -e /ok && test $(wc -l </checks) -gt 4"
    check = {"exec": {"command": ["sh", "-c", script]}, **OFTEN, "start_period_ms": 3_600_000}
    client.up(spec("slow", image, check))
    assert "running (starting)" in instance.cli("ls").stdout
    client.run("slow", "touch", "/ok")
    client.until("slow", HEALTHY)
    assert UNHEALTHY not in {event.reason for event in client.events() if event.name == "slow"}


def test_a_page_is_asked_for_where_others_ask(client: Client, image: str) -> None:
    server = ("sh", "-c", "mkdir /www; exec httpd -f -p 8080 -h /www")
    client.up(spec("page", image, {"http": {"path": "/fine", "port": 8080}, **OFTEN}, *server))
    told = client.until("page", UNHEALTHY)
    assert told.message == "2 failures: HTTP/1.1 404 Not Found"
    assert client.get("page").status.health.results[-1].code == 404
    client.run("page", "touch", "/www/fine")
    client.until("page", HEALTHY, told.sequence)


@pytest.mark.parametrize("kind", [network.NETWORK_KIND_NONE, network.NETWORK_KIND_UNSPECIFIED])
def test_a_connection_needs_nothing_of_the_host(client: Client, image: str, kind: int) -> None:
    server = ("sh", "-c", "while :; do nc -l -p 70 </dev/null; done")
    on = network.Network(kind=kind)  # type: ignore[arg-type]
    more = {"network": on} if kind else {}
    client.up(
        spec(f"good-{kind}", image, {"tcp": {"port": 70}, **OFTEN}, *server, **more),
        spec(f"bad-{kind}", image, {"tcp": {"port": 71}, **OFTEN}, *server, **more),
    )
    client.until(f"good-{kind}", HEALTHY)
    told = client.until(f"bad-{kind}", UNHEALTHY).message
    address = client.get(f"bad-{kind}").status.address or "127.0.0.1"
    assert told == f"2 failures: {address}:71: Connection refused"


def running(words: str) -> list[int]:
    """Processes with this command line."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"".join(
                word.encode() + b"\0" for word in shlex.split(words)
            ):
                found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize(
    ("name", "script", "why"),
    [
        ("long", "sleep 98761 & sleep 98761", "1 failure: not done in 500 ms"),
        ("much", "sleep 98761 & yes", "1 failure: it wrote more than 1048576 bytes"),
    ],
)
def test_what_is_not_done_in_time_ends_with_all_that_it_started(
    client: Client, image: str, name: str, script: str, why: str
) -> None:
    timeout = 500 if "ms" in why else 30_000
    client.up(spec(name, image, {"exec": {"command": ["sh", "-c", script]}, **ONCE, "timeout_ms": timeout}))
    assert client.until(name, UNHEALTHY).message == why
    gone(lambda: running("sleep 98761"))
    assert client.get(name).status.phase == v1.PHASE_RUNNING


def gone(found: Callable[[], list[int]]) -> None:
    """Waits for the end of processes that were killed."""
    for pid in found():
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(10_000), f"{pid} lives"
        os.close(fd)
    assert not found()


def test_what_cannot_be_run_is_a_failure(client: Client, image: str) -> None:
    client.up(spec("cannot", image, {"exec": {"command": ["nothing-of-that-name"]}, **ONCE}))
    said = client.until("cannot", UNHEALTHY).message
    assert said == "1 failure: command 'nothing-of-that-name' was not found in the image"


def test_an_image_has_a_check_of_its_own(client: Client, host: str, image: str) -> None:
    own = {"StartInterval": 1_000_000_000, "Interval": 1_000_000_000, "Retries": 1}
    tests = {
        "shell": ["CMD-SHELL", "test -e /ok"],
        "program": ["CMD", "true"],
        "none": ["NONE"],
        "odd": ["CMD", 1],
    }
    made = {
        name: images.busybox_image(host, f"health-{name}", Healthcheck={"Test": test, **own})
        for name, test in tests.items()
    }
    client.up(
        *(spec(name, reference, None) for name, reference in made.items()),
        spec("off", made["shell"], {"none": True}),
        spec("other", made["shell"], {"exec": {"command": ["true"]}, **OFTEN}),
    )
    for name, reason in {"shell": UNHEALTHY, "program": HEALTHY, "other": HEALTHY}.items():
        client.until(name, reason)
    checked = {one.spec.name for one in client.ls() if one.status.HasField("health")}
    assert checked == {"shell", "program", "other"}


def test_unhealthy_ones_are_started_again_when_that_is_wanted(client: Client, image: str) -> None:
    check = {**FILE, "restart": True}
    (first,) = client.up(
        spec("again", image, check, "sh", "-c", "test -e /once && touch /ok; touch /once; read never")
    )
    told = client.until("again", UNHEALTHY)
    client.until("again", RUNNING, told.sequence)
    client.until("again", HEALTHY, told.sequence)
    second = client.get("again")
    assert (second.id, second.status.restarts) == (first.id, 1)
    assert second.status.pid != first.status.pid


def test_another_check_replaces_the_container(client: Client, image: str) -> None:
    (first,) = client.up(spec("other", image, FILE))
    answers = client.apply(spec("other", image, FILE))
    assert answers[0].accepted.changes[0].action == pb.CHANGE_ACTION_NONE
    answers = client.apply(spec("other", image, {**FILE, "retries": 7}))
    change = answers[0].accepted.changes[0]
    assert (change.action, [*change.fields]) == (pb.CHANGE_ACTION_REPLACE, ["health"])
    assert client.get("other").id != first.id


def test_services_that_were_killed_go_on(image: str) -> None:
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        client.up(spec("web", image, FILE, "sh", "-c", "touch /ok; read never"))
        client.until("web", HEALTHY)
        for services in (["tinyo-node"], ["tinyo-runtime"], ["tinyo-node", "tinyo-runtime"]):
            before = now(client)
            for service in services:
                own.kill(service)
            for service in reversed(services):
                own.start(service)
            status = client.get("web").status
            assert (status.health.state, status.health.was_healthy) == (health.HEALTH_STATE_HEALTHY, True)
            client.run("web", "rm", "/ok")
            client.until("web", UNHEALTHY, before)
            client.run("web", "touch", "/ok")
            client.until("web", HEALTHY, before)


def test_one_that_is_paused_is_not_checked(client: Client, instance: Instance, image: str) -> None:
    client.up(spec("still", image, {"exec": {"command": ["true"]}, **OFTEN}))
    client.until("still", HEALTHY)
    instance.cli("pause", "still")
    script = (
        "echo >>/checks; test $(wc -l </checks) -lt 10"  # as many checks as would make it unhealthy, and more
    )
    client.up(spec("clock", image, {"exec": {"command": ["sh", "-c", script]}, **OFTEN}))
    client.until("clock", UNHEALTHY)
    assert client.get("still").status.health.state == health.HEALTH_STATE_HEALTHY
    instance.cli("unpause", "still")
