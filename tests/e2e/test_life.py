"""Containers from Apply to Remove: real services, real images from a real registry, the real kernel."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.stream_pb2 import ExecSpec

from tests.support import images
from tests.support.client import Client
from tests.support.instance import PATIENCE, PROGRAMS, SERVICES, Instance
from tests.support.registry import free_port


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def own() -> Iterator[Instance]:
    """An instance whose services may be killed."""
    with Instance() as made:
        yield made


def shell(name: str, image: str, script: str = "") -> v1.ContainerSpec:
    """A container that runs a script; without one, a shell that stays up."""
    return v1.ContainerSpec(name=name, image=image, command=["sh", "-c", script] if script else [])


def test_events_tell_the_whole_story_in_order(client: Client, image: str) -> None:
    answers = client.apply(shell("web", image))
    assert answers[0].accepted.changes[0].action == pb.CHANGE_ACTION_CREATE
    assert answers[-1].settled.containers[0].status.phase == v1.PHASE_RUNNING
    reasons = [ev.EventReason.Name(a.event.reason)[13:] for a in answers if a.HasField("event")]
    assert reasons == ["APPLIED", "SCHEDULED", "PULLING", "PULLED", "CREATED", "RUNNING"]
    gone = client.down("web")
    assert [event.reason for event in gone] == [ev.EVENT_REASON_STOPPING, ev.EVENT_REASON_REMOVED]
    numbers = [event.sequence for event in client.events()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_same_again_changes_nothing_and_a_change_replaces(client: Client, image: str) -> None:
    first = client.up(shell("web", image))[0]
    again = client.apply(shell("web", image))
    assert again[0].accepted.changes[0].action == pb.CHANGE_ACTION_NONE
    assert [a.WhichOneof("result") for a in again] == ["accepted", "settled"]
    changed = shell("web", image)
    changed.env["COLOUR"] = "blue"
    answers = client.apply(changed)
    change = answers[0].accepted.changes[0]
    assert (change.action, list(change.fields)) == (pb.CHANGE_ACTION_REPLACE, ["env"])
    second = answers[-1].settled.containers[0]
    assert second.id != first.id
    assert not Path(f"/proc/{first.status.pid}").exists()
    assert client.run("web", "sh", "-c", "echo $COLOUR") == (0, b"blue\n", b"")


def test_names_and_ports_belong_to_somebody(client: Client, image: str) -> None:
    web = shell("web", image)
    web.ports.add(host_port=free_port(), container_port=80)
    client.up(web, origin="/one.yml")
    with pytest.raises(grpc.RpcError) as caught:
        client.apply(shell("web", image), origin="/two.yml")
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert "/one.yml" in str(caught.value.details())
    other = shell("other", image)
    other.ports.add(host_port=web.ports[0].host_port, container_port=81)
    with pytest.raises(grpc.RpcError) as caught:
        client.apply(other, origin="/two.yml")
    assert "container 'web'" in str(caught.value.details())
    assert [container.spec.name for container in client.ls()] == ["web"]


def test_exits_are_told_with_their_code_and_wait(client: Client, image: str) -> None:
    client.apply(shell("quick", image, "echo out; echo err >&2; exit 3"))
    client.until("quick", ev.EVENT_REASON_EXITED)
    container = client.get("quick")
    assert (container.status.phase, container.status.exit.code) == (v1.PHASE_EXITED, 3)
    assert sorted(client.logs("quick").splitlines()) == [b"err", b"out"]
    again = client.apply(shell("quick", image, "echo out; echo err >&2; exit 3"))
    assert again[0].accepted.changes[0].action == pb.CHANGE_ACTION_START
    assert client.get("quick").id == container.id


def test_stop_and_start_keep_the_files(client: Client, image: str) -> None:
    client.up(shell("web", image))
    assert client.run("web", "sh", "-c", "echo kept > /file")[0] == 0
    stopped = client.node.Stop(pb.StopRequest(names=["web"]), timeout=30).containers[0]
    assert stopped.status.phase == v1.PHASE_EXITED
    started = client.node.Start(pb.StartRequest(names=["web"]), timeout=30).containers[0]
    assert started.status.phase == v1.PHASE_RUNNING
    assert client.run("web", "cat", "/file") == (0, b"kept\n", b"")


def test_a_process_that_listens_gets_its_grace(client: Client, image: str) -> None:
    client.up(shell("polite", image, "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
    follow = client.node.Logs(pb.LogsRequest(name="polite", follow=True), timeout=30)
    assert next(entry.data for answer in follow for entry in answer.entries) == b"ready\n"
    stopped = client.node.Stop(pb.StopRequest(names=["polite"]), timeout=30).containers[0]
    assert stopped.status.exit.code == 5
    assert client.logs("polite") == b"ready\nbye\n"


def test_exec_is_binary_clean_and_passes_codes(client: Client, image: str) -> None:
    client.up(shell("web", image))
    data = bytes(range(256)) * 4096
    assert client.run("web", "cat", stdin=data) == (0, data, b"")
    assert client.run("web", "sh", "-c", "echo no >&2; exit 9") == (9, b"", b"no\n")
    for command, reason in (("nope", "was not found"), ("/etc/passwd", "cannot be executed")):
        with pytest.raises(grpc.RpcError) as caught:
            client.run("web", command)
        assert reason in str(caught.value.details())


def test_an_exec_that_is_cancelled_leaves_nothing(instance: Instance, client: Client, image: str) -> None:
    container = client.up(shell("web", image))[0]
    (spawner,) = instance.spawners()
    before = len(os.listdir(f"/proc/{spawner}/fd"))

    def request() -> Iterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=pb.ExecStart(name="web", exec=ExecSpec(command=["sh", "-c", "echo; cat"])))

    for _ in range(5):
        stream = client.node.Exec(request(), timeout=30)
        assert next(stream).output.stdout == b"\n"
        stream.cancel()
    wait_for(lambda: len(os.listdir(f"/proc/{spawner}/fd")) == before)
    assert children(spawner) == [container.status.pid]


def test_logs_follow_and_tail(client: Client, image: str) -> None:
    client.apply(
        shell("count", image, "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; printf end")
    )
    whole = client.logs("count", follow=True)
    assert whole == b"".join(b"line %d\n" % n for n in range(1000)) + b"end"
    assert client.logs("count", tail=2) == b"line 999\nend"


def test_what_cannot_start_says_why_and_leaves_nothing(client: Client, image: str, tmp_path: Path) -> None:
    missing = shell("missing", image)
    missing.mounts.add(source=str(tmp_path / "not-there"), target="/x")
    cases = {
        "COMMAND_NOT_FOUND": v1.ContainerSpec(name="a", image=image, command=["nope"]),
        "COMMAND_NOT_EXECUTABLE": v1.ContainerSpec(name="b", image=image, command=["/etc/passwd"]),
        "MOUNT_SOURCE_MISSING": missing,
        "IMAGE_NOT_FOUND": v1.ContainerSpec(name="d", image=image.replace("alpine", "nothing")),
        "IMAGE_REFERENCE_INVALID": v1.ContainerSpec(name="e", image="http://UPPER case"),
        "REGISTRY_UNREACHABLE": v1.ContainerSpec(name="f", image=f"127.0.0.1:{free_port()}/x"),
    }
    for reason, spec in cases.items():
        container = client.apply(spec)[-1].settled.containers[0]
        assert container.status.phase == v1.PHASE_FAILED
        assert container.status.error.reason == reason
        assert len(container.status.error.message) > 20


def test_one_hundred_layers(client: Client, image: str) -> None:
    reference = image.replace("alpine", "deep")
    images.push(images.many_layers(100), reference)
    client.up(shell("deep", reference))
    assert client.run("deep", "sh", "-c", "echo $(ls / | wc -l)")[0] == 0


@pytest.mark.parametrize("service", ["tinyo-runtime", "tinyo-node", "spawner"])
def test_sigkill_of_a_service_is_not_noticed_by_containers(own: Instance, image: str, service: str) -> None:
    with Client(own.socket("tinyo-node")) as client:
        before = client.up(shell("web", image))[0]
        if service == "spawner":
            (spawner,) = own.spawners()
            os.kill(spawner, signal.SIGKILL)
            wait_for(lambda: own.spawners() not in ([], [spawner]))
        else:
            own.kill(service)
            own.start(service)
        wait_for(lambda: client.get("web").status.phase == v1.PHASE_RUNNING)
        after = client.get("web")
        assert (after.id, after.status.pid) == (before.id, before.status.pid)
        wait_for(lambda: succeeds(lambda: client.run("web", "echo", "alive") == (0, b"alive\n", b"")))
        newest = client.events()[-1].sequence
        os.kill(after.status.pid, signal.SIGKILL)
        assert client.until("web", ev.EVENT_REASON_EXITED, newest).exit.code == 137


def test_all_three_killed_one_after_another(own: Instance, image: str) -> None:
    with Client(own.socket("tinyo-node")) as client:
        before = client.up(shell("web", image))[0]
        for _ in range(2):
            own.kill("tinyo-node")
            own.kill("tinyo-runtime")
            own.start("tinyo-node")
            own.start("tinyo-runtime")
            (spawner,) = own.spawners()
            os.kill(spawner, signal.SIGKILL)
            wait_for(lambda: succeeds(lambda: client.run("web", "echo", "alive")[0] == 0))
        assert client.get("web").status.pid == before.status.pid


def test_an_exit_while_the_runtime_is_dead_is_told_afterwards(own: Instance, image: str) -> None:
    with Client(own.socket("tinyo-node")) as client:
        script = "trap 'echo last words; exit 42' TERM; while :; do sleep 0.05; done"
        container = client.up(shell("web", image, script))[0]
        newest = client.events()[-1].sequence
        wait_for(lambda: caught(container.status.pid, signal.SIGTERM))
        own.kill("tinyo-runtime")
        os.kill(container.status.pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{container.status.pid}").exists())
        own.start("tinyo-runtime")
        assert client.until("web", ev.EVENT_REASON_EXITED, newest).exit.code == 42
        assert client.logs("web") == b"last words\n"


def test_fifty_up_and_down_twice(client: Client, image: str) -> None:
    names = [f"many-{number}" for number in range(50)]
    for _ in range(2):
        client.up(*(shell(name, image) for name in names))
        client.down(*names)


def wait_for(check: object, seconds: float = 20) -> None:
    """Waits, bounded, for something that tells nobody when it happens."""
    assert callable(check)
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes that another one is the parent of."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def caught(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def succeeds(check: object) -> bool:
    """False instead of an error of the call."""
    assert callable(check)
    try:
        return bool(check())
    except grpc.RpcError:
        return False


def test_sockets_are_for_their_owner_alone(instance: Instance) -> None:
    assert instance.run.stat().st_mode & 0o777 == 0o700
    for socket in instance.run.glob("*.sock"):
        assert socket.stat().st_mode & 0o777 == 0o600, socket


def test_who_is_not_root_finds_a_root_that_is_open(client: Client, image: str, tmp_path: Path) -> None:
    """Folders and files that we make for a container are for its users, whatever umask the runtime has."""
    spec = shell("web", image)
    spec.user = "65534:65534"
    spec.mounts.add(source=str(tmp_path / "made/here"), target="/data", create=True)
    client.up(spec)
    script = "stat -c %a / /data /etc/hosts; cat /etc/hosts /etc/hostname /etc/resolv.conf > /dev/null; id -u"
    assert client.run("web", "sh", "-c", script) == (0, b"755\n755\n644\n65534\n", b"")


def test_the_root_is_as_the_image_has_it(client: Client, image: str) -> None:
    host, extra = image.rpartition("/")[0], images.layer(images.folder(".", mode=0o711))
    client.up(shell("web", images.busybox_image(host, "root", [extra])))
    assert client.run("web", "stat", "-c", "%a", "/")[1] == b"711\n"


@pytest.mark.parametrize("service", SERVICES)
def test_an_instance_has_each_service_once(
    instance: Instance, client: Client, image: str, service: str
) -> None:
    """Two runtimes made each other's tables of nftables again, for ever."""
    client.up(v1.ContainerSpec(name="one", image=image, command=["sleep", "1000"]))
    second = subprocess.run(
        [PROGRAMS / service], env=instance.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert second.returncode == 1 and second.stderr.count("\n") == 1, second.stderr
    assert second.stderr.startswith(f"another {service}") or second.stderr.startswith("another node answers")
    assert str(instance.run) in second.stderr and "stop it first" in second.stderr
    assert client.run("one", "echo", "here")[:2] == (0, b"here\n")
    client.down("one")
