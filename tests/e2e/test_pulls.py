"""Clients that pull, wait, and go away, as people start and stop them: real services, a registry that waits."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.event_pb2 import EVENT_REASON_RUNNING, EVENT_REASON_STOPPING
from tinyo.v1.image_pb2 import PullProgress

from tests.support.client import Client
from tests.support.images import busybox_image, file, layer
from tests.support.instance import PATIENCE, PROGRAMS, Instance
from tests.support.slow import Slow, slow

#: Bytes of each blob that come at once; the image's first layer is smaller, its second is larger.
HELD = 2 << 20


@pytest.fixture
def slowly(host: str) -> Iterator[Slow]:
    """It gives only so many bytes of each blob, until it may go on."""
    with slow(host) as state:
        state.held = HELD
        yield state


@pytest.fixture
def reference(host: str, slowly: Slow) -> str:
    """An image of which the first layer comes at once."""
    busybox_image(host, "large", [layer(file("large", os.urandom(2 * HELD)))])
    return f"{slowly.address}/large:latest"


class Pull:
    """A client that pulls and says as a program how far it is."""

    def __init__(self, instance: Instance, reference: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAMS / "tinyo", "image", "pull", "-o", "json", reference],
            env=instance.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_held(self) -> "Pull":
        """As far as the registry lets it: the first layer is there, and so much of the second."""
        layers: dict[str, dict[str, Any]] = {}
        assert self.process.stdout
        for line in self.process.stdout:
            event = json.loads(line)
            layers[event["digest"]] = event
            states = {one["state"]: one["received_bytes"] for one in layers.values()}
            if states.keys() == {"done", "downloading"} and states["downloading"] == HELD:
                return self
        raise AssertionError(f"it ended before: {layers}")

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, what it still said, and its errors."""
        said, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, [json.loads(line) for line in said.splitlines()], errors

    def stop(self, number: int) -> int:
        """Sends a signal; how it ended."""
        self.process.send_signal(number)
        return self.end()[0]


def blobs(registry: Slow) -> list[int]:
    """How often each layer was asked for."""
    return sorted(count for path, count in registry.asked.items() if "/blobs/" in path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_two_clients_share_a_pull_and_one_may_go(
    instance: Instance, slowly: Slow, reference: str, number: int
) -> None:
    first = Pull(instance, reference).until_held()
    second = Pull(instance, reference).until_held()
    assert first.stop(number) == (130 if number == signal.SIGINT else -number)
    slowly.go_on()
    code, events, errors = second.end()
    assert (code, events[-1]["event"], errors) == (0, "image", "")
    assert blobs(slowly) == [1, 1, 1]  # two layers and the configuration
    assert not slowly.gone.acquire(blocking=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_the_last_client_goes_the_pull_stops_and_what_is_verified_stays(
    instance: Instance, slowly: Slow, reference: str, number: int
) -> None:
    pulls = [Pull(instance, reference).until_held() for _ in range(2)]
    for pull in pulls:
        pull.stop(number)
    assert slowly.gone.acquire(timeout=PATIENCE)  # the registry sees it
    slowly.go_on()
    code, events, _ = Pull(instance, reference).end()
    states = {event["digest"]: event["state"] for event in events if event["event"] == "layer"}
    assert code == 0 and sorted(states.values()) == ["done", "exists"]
    assert blobs(slowly)[0] == 1 and blobs(slowly)[-1] == 2  # the layer that stayed, the one that did not
    assert not os.listdir(instance.state / "pulling")


def test_an_apply_goes_on_without_its_client(
    instance: Instance, slowly: Slow, reference: str, tmp_path: Path
) -> None:
    """And somebody who applies the same meanwhile waits for the same pull, and is told at once how far it is."""
    slowly.held = 2000  # the configuration is smaller
    (tmp_path / "web.yml").write_text(f"container: {reference}\ncommand: [sleep, '1000']\n")
    command = [str(PROGRAMS / "tinyo"), "+", str(tmp_path / "web.yml")]
    first = subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE)
    assert slowly.waiting.acquire(timeout=PATIENCE)
    assert first.stdout and first.stdout.readline().startswith(b"web  pulling")
    first.kill()
    first.communicate(timeout=PATIENCE)
    with Client(instance.socket("tinyo-node")) as client:
        earlier, later = progress(client, "db", reference), progress(client, "cache", reference)
        next(one for one in earlier if received(one) == {2000})
        assert received(next(later)) == {2000}  # although nothing moves
        slowly.go_on()
        assert all(layer.complete for layer in [*later][-1].layers)
        for name in ("web", "db", "cache"):
            client.until(name, EVENT_REASON_RUNNING)
    assert blobs(slowly) == [1, 1, 1]
    assert not slowly.gone.acquire(blocking=False)


def progress(client: Client, name: str, reference: str) -> Iterator[PullProgress]:
    """What an Apply of one more container, when somebody asks, is told of its image."""
    spec = v1.ContainerSpec(name=name, image=reference, command=["sleep", "1000"])
    request = pb.ApplyRequest(containers=[spec], origin=f"/{name}.yml")
    for answer in client.node.Apply(request, timeout=PATIENCE):
        if answer.HasField("progress"):
            yield answer.progress


def received(progress: PullProgress) -> set[int]:
    """Bytes that came of its layers."""
    return {layer.received_bytes for layer in progress.layers}


def test_who_is_removed_does_not_wait_for_an_image(instance: Instance, slowly: Slow, reference: str) -> None:
    """At once, and the registry sees it; another that wants the same image has it, whoever began to pull."""
    slowly.held = 2000
    with Client(instance.socket("tinyo-node")) as client:
        for name in ("first", "second", "third"):
            next(one for one in progress(client, name, reference) if received(one) == {2000})
        for name in ("first", "third"):
            assert [event.reason for event in client.down(name)] == [EVENT_REASON_STOPPING]
        assert [one.spec.name for one in client.ls()] == ["second"]
        slowly.go_on()
        client.until("second", EVENT_REASON_RUNNING)
        assert client.get("second").status.phase == v1.PHASE_RUNNING
        client.down("second")
        events = client.events()
        assert {event.name for event in events if event.reason == EVENT_REASON_RUNNING} == {"second"}


def test_a_pull_that_nobody_wants_any_more_stops(instance: Instance, slowly: Slow, reference: str) -> None:
    """Because its container was removed, or is to have another image by now."""
    slowly.held = 2000
    with Client(instance.socket("tinyo-node")) as client:
        for undo in (
            lambda: client.down("web"),
            lambda: client.apply(v1.ContainerSpec(name="web", image="127.0.0.1:1/nope"), origin="/web.yml"),
        ):
            next(one for one in progress(client, "web", reference) if received(one) == {2000})
            undo()
            assert slowly.gone.acquire(timeout=PATIENCE)
        assert client.get("web").status.error.reason
        client.down("web")
    slowly.go_on()
