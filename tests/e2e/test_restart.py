"""Restart policies: real containers that end, and services that are killed meanwhile."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1 import policy_pb2 as policy

from tests.support.client import PATIENCE, Client
from tests.support.instance import Instance

ON_FAILURE, ALWAYS = policy.RESTART_KIND_ON_FAILURE, policy.RESTART_KIND_ALWAYS
UNLESS_STOPPED = policy.RESTART_KIND_UNLESS_STOPPED
EXITED, RUNNING = ev.EVENT_REASON_EXITED, ev.EVENT_REASON_RUNNING


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def spec(
    name: str, image: str, kind: policy.RestartKind.ValueType, script: str = "", most: int = 0
) -> v1.ContainerSpec:
    """A container with a restart policy that runs a script; without one, a shell that stays up."""
    made = v1.ContainerSpec(name=name, image=image, command=["sh", "-c", script] if script else [])
    made.restart.kind, made.restart.max_restarts = kind, most
    return made


def waits(client: Client, name: str, restarts: int) -> v1.Container:
    """The container when it waits for its start of this number in a row, or of a later one."""
    return until(
        client, name, lambda one: one.status.restarts >= restarts and one.status.HasField("next_start_at")
    )


def until(client: Client, name: str, check: Callable[[v1.Container], bool]) -> v1.Container:
    """The container, once this is so."""
    deadline = time.monotonic() + PATIENCE
    while not check(container := client.get(name)):
        assert time.monotonic() < deadline, container
        time.sleep(0.02)
    return container


def end(container: v1.Container) -> None:
    """Ends its process, as if it had failed."""
    os.kill(container.status.pid, signal.SIGKILL)


def runs_anew(container: v1.Container) -> Callable[[v1.Container], bool]:
    """Whether another process of it runs."""
    return lambda one: one.status.phase == v1.PHASE_RUNNING and one.status.pid != container.status.pid


def test_on_failure_gives_up_and_lets_success_be(client: Client, image: str) -> None:
    client.apply(
        spec("fails", image, ON_FAILURE, "echo once; exit 3", most=2),
        spec("works", image, ON_FAILURE, "exit 0"),
    )
    client.until("works", EXITED)
    until(
        client,
        "fails",
        lambda one: (
            one.status.restarts == 2
            and one.status.phase == v1.PHASE_EXITED
            and not one.status.HasField("next_start_at")
        ),
    )
    client.up(spec("later", image, ALWAYS))  # the node looked at the others before
    ended = {one.spec.name: one.status for one in client.ls()}
    assert (ended["works"].restarts, ended["works"].HasField("next_start_at")) == (0, False)
    assert [event.reason for event in client.events() if event.name == "fails"].count(EXITED) == 3
    assert client.logs("fails") == b"once\n" * 3


def test_always_comes_back_with_its_files(client: Client, image: str) -> None:
    (first,) = client.up(spec("web", image, ALWAYS))
    assert client.run("web", "sh", "-c", "echo kept >/file")[0] == 0
    end(first)
    second = until(client, "web", runs_anew(first))
    assert (second.id, second.status.restarts) == (first.id, 1)
    assert client.run("web", "cat", "/file") == (0, b"kept\n", b"")


def test_who_is_stopped_stays_so(client: Client, instance: Instance, image: str) -> None:
    """Whether it runs or waits; others with the same waits go on meanwhile."""
    client.apply(
        *(spec(name, image, ALWAYS, "exit 1") for name in ("loops", "goes-on")), spec("runs", image, ALWAYS)
    )
    waits(client, "loops", 4)
    assert re.search(r"^loops +restarting \(\d+, in \d+ s\)", instance.cli("ls").stdout, re.MULTILINE)
    instance.cli("stop", "loops", "runs", "-t", "0")
    newest = client.events()[-1].sequence
    waits(client, "goes-on", 6)
    assert {event.name for event in client.events(newest) if event.reason == RUNNING} == {"goes-on"}
    for name in ("loops", "runs"):
        status = client.get(name).status
        assert (status.phase, status.restarts, status.HasField("next_start_at")) == (
            v1.PHASE_EXITED,
            0,
            False,
        )
    instance.cli("start", "runs")
    assert client.get("runs").status.phase == v1.PHASE_RUNNING


def test_another_policy_holds_at_once(client: Client, image: str) -> None:
    (first,) = client.up(spec("web", image, policy.RESTART_KIND_NO))
    assert not first.spec.HasField("restart")
    answers = client.apply(spec("web", image, UNLESS_STOPPED))
    change = answers[0].accepted.changes[0]
    assert (change.action, [*change.fields]) == (pb.CHANGE_ACTION_UPDATE, ["restart"])
    assert client.get("web").status.pid == first.status.pid
    end(first)
    assert until(client, "web", runs_anew(first)).id == first.id


def test_a_node_that_was_killed_goes_on(image: str) -> None:
    """With the count, and with what ended while it, or the runtime too, was dead."""
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        client.apply(spec("loops", image, ALWAYS, "exit 1"), spec("web", image, UNLESS_STOPPED))
        web, loops = client.get("web"), waits(client, "loops", 4)
        own.kill("tinyo-node")
        end(web)
        own.start("tinyo-node")
        assert client.get("loops").status.restarts >= loops.status.restarts
        waits(client, "loops", loops.status.restarts + 1)
        web = until(client, "web", runs_anew(web))
        own.kill("tinyo-node")
        own.kill("tinyo-runtime")
        end(web)
        own.start("tinyo-runtime")
        own.start("tinyo-node")
        until(client, "web", runs_anew(web))


def test_after_a_reboot(image: str) -> None:
    """The run folder is empty then."""
    kinds = {"failed": ON_FAILURE, "always": ALWAYS, "unless-stopped": UNLESS_STOPPED, "runs": UNLESS_STOPPED}
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        runs = client.up(*(spec(name, image, kind) for name, kind in kinds.items()))[-1]
        client.node.Stop(pb.StopRequest(names=[*kinds][:-1], grace_ms=0), timeout=PATIENCE)
        own.stop("tinyo-node")
        own.stop("tinyo-runtime")
        end(runs)
        for record in Path(own.run, "containers").iterdir():
            record.unlink()
        own.start("tinyo-runtime")
        own.start("tinyo-node")
        for name in ("always", "runs"):
            until(client, name, lambda one: one.status.phase == v1.PHASE_RUNNING)
        phases = {one.spec.name: one.status.phase for one in client.ls()}
        assert phases["failed"] == phases["unless-stopped"] == v1.PHASE_EXITED
