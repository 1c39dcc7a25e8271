"""The verbs of a container's life besides coming and going: real services, real processes, services that are killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1 import verbs_pb2 as verbs
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1 import policy_pb2 as policy
from tinyo.v1.image_pb2 import CommitOptions
from tinyo.v1.network_pb2 import NETWORK_KIND_CONTAINER
from tinyo.v1.top_pb2 import ContainerProcess
from tinyo.v1.userns_pb2 import USER_NAMESPACE_ON

from tests.support.client import PATIENCE, Client
from tests.support.instance import PROGRAMS, Instance

ALWAYS = policy.RestartPolicy(kind=policy.RESTART_KIND_ALWAYS)
RUNNING, EXITED = v1.PHASE_RUNNING, v1.PHASE_EXITED
#: Says what it hears, and when it is ready to.
HEARS = "trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def mortal(image: str) -> Iterator[tuple[Instance, Client]]:
    """An instance whose services may be killed."""
    with Instance() as made, Client(made.socket("tinyo-node")) as client:
        yield made, client
        if names := [container.spec.name for container in client.ls()]:
            made.cli("-", "-t", "0", *names)


def spec(image: str, name: str, script: str = "", **more: object) -> v1.ContainerSpec:
    """A container that runs a script; without one, a shell that stays up."""
    command = ["sh", "-c", script] if script else []
    return v1.ContainerSpec(name=name, image=image, command=command, **more)  # type: ignore[arg-type]


def says(client: Client, name: str, line: bytes) -> None:
    """Returns when the log of a container has a line."""
    text = b""
    for answer in client.node.Logs(pb.LogsRequest(name=name, follow=True), timeout=PATIENCE):
        text += b"".join(entry.data for entry in answer.entries)
        if line in text.splitlines():
            return
    raise AssertionError(f"{name} ended, and said {text!r}")


def newest(client: Client) -> int:
    return client.events()[-1].sequence


def reasons(client: Client, after: int) -> list[tuple[str, str]]:
    """What happened since: name and reason."""
    return [
        (event.name, ev.EventReason.Name(event.reason).removeprefix("EVENT_REASON_"))
        for event in client.events(after)
    ]


def refused(instance: Instance, *arguments: str) -> str:
    """What a command says that fails: one line."""
    done = instance.cli(*arguments, check=False)
    assert done.returncode in (1, 2) and done.stdout == "", done
    assert done.stderr.startswith("tinyo: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("tinyo: ").strip()


def waiting(instance: Instance, *names: str) -> "subprocess.Popen[str]":
    """`tinyo wait`, which has begun to."""
    return subprocess.Popen(
        [PROGRAMS / "tinyo", "wait", *names],
        env=instance.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def state(pid: int) -> str:
    """Of a process (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ticks(pid: int) -> int:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def stands_still(container: v1.Container) -> bool:
    """Whether the kernel lets a busy process run: what it used does not change while another one uses as much."""
    pid = container.status.pid
    before = ticks(pid)
    begun = os.times()
    while (now := os.times()).user + now.system < begun.user + begun.system + 0.05:
        pass
    return ticks(pid) == before


def test_a_signal_is_heard_and_the_container_goes_on(client: Client, instance: Instance, image: str) -> None:
    (web,) = client.up(spec(image, "web", HEARS))
    says(client, "web", b"ready")
    assert instance.cli("kill", "-s", "usr1", "web").stdout == "✓ web  SIGUSR1 sent\n"
    says(client, "web", b"usr1")
    unheard = instance.cli("kill", "-s", "SIGHUP", "web")
    assert unheard.stderr == "web  has no handler for SIGHUP: it did not hear it\n"
    again = client.get("web")
    assert (again.status.pid, again.desired) == (web.status.pid, v1.DESIRED_STATE_RUNNING)


def test_a_signal_that_ends_it_is_the_business_of_its_restart_policy(client: Client, image: str) -> None:
    (web,) = client.up(spec(image, "web", HEARS, restart=ALWAYS))
    says(client, "web", b"ready")
    after = newest(client)
    client.node.Kill(verbs.KillRequest(names=["web"], signal=signal.SIGTERM), timeout=PATIENCE)
    assert client.until("web", ev.EVENT_REASON_EXITED, after).exit.code == 7
    client.until("web", ev.EVENT_REASON_RUNNING, after)
    assert client.get("web").status.pid != web.status.pid


def test_who_is_killed_stays_so_whatever_the_policy(client: Client, instance: Instance, image: str) -> None:
    client.up(spec(image, "web", HEARS, restart=ALWAYS), spec(image, "db", restart=ALWAYS))
    assert instance.cli("kill", "web", "db").stdout == (
        "✓ web  killed, exited (137)\n✓ db  killed, exited (137)\n"
    )
    for name in ("web", "db"):
        container = client.get(name)
        assert (container.desired, container.status.phase) == (v1.DESIRED_STATE_STOPPED, EXITED)
        assert not container.status.HasField("next_start_at")


def test_a_stop_that_takes_long_is_cut_short_by_a_kill(
    client: Client, instance: Instance, image: str
) -> None:
    client.up(spec(image, "web", "trap 'echo not yet' TERM; echo ready; while :; do sleep 0.05; done"))
    says(client, "web", b"ready")
    stop = client.node.Stop.future(pb.StopRequest(names=["web"], grace_ms=50_000), timeout=40)
    says(client, "web", b"not yet")
    instance.cli("kill", "web")
    assert stop.result().containers[0].status.phase == EXITED


def test_paused_ones_stand_still_whoever_is_restarted(mortal: tuple[Instance, Client], image: str) -> None:
    """The node, the runtime, both; and a commit leaves them paused."""
    own, client = mortal
    (web,) = client.up(spec(image, "web", "while :; do :; done"))
    assert not stands_still(web)
    assert own.cli("pause", "web").stdout == "✓ web  paused\n"
    assert stands_still(web)
    for services in (["tinyo-node"], ["tinyo-runtime"], ["tinyo-node", "tinyo-runtime"]):
        for service in services:
            own.kill(service)
        for service in reversed(services):
            own.start(service)
        client.ls()
        assert own.cli("ls").stdout.splitlines()[1].split()[:2] == ["web", "paused"]
        assert stands_still(web)
    request = pb.CommitContainerRequest(name="web", reference="still:1", options=CommitOptions())
    client.node.CommitContainer(request, timeout=PATIENCE)
    assert stands_still(web) and client.get("web").status.paused
    assert own.cli("unpause", "web").stdout == "✓ web  running\n"
    again = client.get("web")
    assert (again.status.pid, again.status.paused) == (web.status.pid, False)
    assert not stands_still(web)
    own.cli("pause", "web")
    own.kill("tinyo-runtime")
    forget_the_pause(own.run / "containers" / web.id)
    after = newest(client)
    own.start("tinyo-runtime")
    client.until("web", ev.EVENT_REASON_UNPAUSED, after)
    assert not stands_still(web)


def forget_the_pause(record: Path) -> None:
    """As after a runtime that died while it had a container paused for a commit: the kernel has it paused, and nobody
    asked for that."""
    known = BootRecord.FromString(record.read_bytes())
    known.state.paused = False
    record.write_bytes(known.SerializeToString())


def test_nothing_is_run_in_a_paused_container(client: Client, instance: Instance, image: str) -> None:
    client.up(spec(image, "web"))
    instance.cli("pause", "web")
    paused = "container 'web' is paused: `tinyo unpause web` lets it go on"
    assert refused(instance, "exec", "web", "--", "true") == paused
    assert refused(instance, "start", "web") == paused
    instance.cli("pause", "web")  # as it is
    instance.cli("unpause", "web")
    assert client.run("web", "true")[0] == 0


@pytest.mark.parametrize("command", ["stop -t 5 web", "kill web", "- web", "restart web", "kill -s TERM web"])
def test_whoever_ends_a_paused_container_lets_it_go_on(
    client: Client, instance: Instance, image: str, command: str
) -> None:
    client.up(spec(image, "web", HEARS))
    says(client, "web", b"ready")
    instance.cli("pause", "web")
    after = newest(client)
    instance.cli(*command.split())
    if command == "- web":
        assert client.ls() == []
        return
    exit = client.until("web", ev.EVENT_REASON_EXITED, after).exit
    assert exit.code == (137 if command == "kill web" else 7)
    assert not client.get("web").status.paused


def test_a_paused_container_is_deleted_at_once(client: Client, instance: Instance, image: str) -> None:
    """The node asks it to stop before; whoever else talks to a runtime need not."""
    (web,) = client.up(spec(image, "web"))
    instance.cli("pause", "web")
    with grpc.insecure_channel(instance.socket("tinyo-runtime")) as channel:
        request = rt.DeleteRequest(ids=[web.id])
        (result,) = RuntimeServiceStub(channel).Delete(request, timeout=20).results
    assert not result.HasField("error") and not Path(f"/proc/{web.status.pid}").exists()


def test_programs_that_run_in_it_are_paused_with_it(client: Client, instance: Instance, image: str) -> None:
    client.up(spec(image, "web"))
    process = subprocess.Popen(
        [PROGRAMS / "tinyo", "exec", "web", "--", "sh", "-c", "echo begun; read line; echo $line"],
        env=instance.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stdout.readline() == "begun\n"
    (running,) = [one for one in top(client, "web") if "read line" in str(one)]
    instance.cli("pause", "web")
    process.stdin.write("heard\n")
    process.stdin.flush()
    assert running.host_pid in {one.host_pid for one in top(client, "web")}  # it cannot have read it
    instance.cli("unpause", "web")
    assert process.communicate(timeout=PATIENCE)[0] == "heard\n"


def top(client: Client, name: str) -> list[ContainerProcess]:
    return list(client.node.Top(verbs.TopRequest(name=name), timeout=PATIENCE).processes)


def test_restart_gives_another_process_and_counts_anew(
    client: Client, instance: Instance, image: str
) -> None:
    (web,) = client.up(spec(image, "web", HEARS))
    says(client, "web", b"ready")
    after = newest(client)
    assert instance.cli("restart", "web").stdout.startswith("✓ web  running  10.")
    again = client.get("web")
    assert (again.id, again.desired) == (web.id, v1.DESIRED_STATE_RUNNING)
    assert again.status.pid != web.status.pid and not again.HasField("restart_of")
    told = [reason for _, reason in reasons(client, after)]
    assert told == ["STOPPING", "EXITED", "RUNNING"]
    instance.cli("stop", "web")
    instance.cli("restart", "web")
    assert client.get("web").status.phase == RUNNING


def test_who_is_started_while_it_still_ends_runs_again(client: Client, image: str) -> None:
    (web,) = client.up(spec(image, "web", "trap 'echo bye' TERM; echo ready; while :; do sleep 0.05; done"))
    says(client, "web", b"ready")
    stop = client.node.Stop.future(pb.StopRequest(names=["web"], grace_ms=500), timeout=PATIENCE)
    says(client, "web", b"bye")
    (again,) = client.node.Start(pb.StartRequest(names=["web"]), timeout=PATIENCE).containers
    stop.result()
    assert again.status.phase == RUNNING and again.status.pid != web.status.pid
    client.node.Kill(verbs.KillRequest(names=["web"]), timeout=PATIENCE)


def test_restart_ends_the_wait_of_a_restart_policy(client: Client, instance: Instance, image: str) -> None:
    client.apply(spec(image, "loops", "test -e /once || { touch /once; exit 1; }; read line", restart=ALWAYS))
    client.until("loops", ev.EVENT_REASON_EXITED)
    instance.cli("restart", "loops")
    status = client.get("loops").status
    assert (status.phase, status.restarts) == (RUNNING, 0)


def test_restarts_and_waits_outlive_a_node(mortal: tuple[Instance, Client], image: str) -> None:
    """It, and the client, die while the first process still ends, and while somebody waits for two others."""
    own, client = mortal
    web, job = client.up(
        spec(image, "web", "trap 'echo bye' TERM; echo ready; while :; do sleep 0.05; done"),
        spec(image, "job", "read line; exit 6"),
    )
    says(client, "web", b"ready")
    client.apply(spec(image, "done", "exit 5"))
    client.until("done", ev.EVENT_REASON_EXITED)
    process = waiting(own, "done", "job")
    assert process.stdout and process.stdout.readline() == "done  5\n"  # it watches
    request = verbs.RestartRequest(names=["web"], grace_ms=1000)
    call = client.node.Restart.future(request, timeout=PATIENCE)
    says(client, "web", b"bye")
    call.cancel()
    own.kill("tinyo-node")
    with open(f"/proc/{job.status.pid}/fd/0", "wb", buffering=0) as stdin:
        stdin.write(b"\n")
    own.start("tinyo-node")
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, err) == ("job  6\n", "the node has gone; waiting until it is back\n")
    after = 0
    while client.get("web").status.started_at == web.status.started_at:
        after = client.until("web", ev.EVENT_REASON_RUNNING, after).sequence
    assert client.get("web").status.phase == RUNNING


@pytest.mark.parametrize(
    ("verb", "services"),
    [
        ("stop", ("tinyo-runtime",)),
        ("restart", ("tinyo-node", "tinyo-runtime")),
        ("remove", ("tinyo-node", "tinyo-runtime")),
    ],
)
def test_time_to_end_outlives_services(
    mortal: tuple[Instance, Client], image: str, verb: str, services: tuple[str, ...]
) -> None:
    """They die while it still ends, and would give it ten minutes by its spec afterwards."""
    own, client = mortal
    script = "trap 'echo bye' TERM; echo ready; while :; do sleep 0.05; done"
    client.up(spec(image, "web", script, stop_grace_ms=600_000))
    says(client, "web", b"ready")
    after = newest(client)
    names, grace = ["web"], 1500
    call: grpc.RpcContext
    match verb:
        case "stop":
            call = client.node.Stop.future(pb.StopRequest(names=names, grace_ms=grace), timeout=PATIENCE)
        case "restart":
            restart = verbs.RestartRequest(names=names, grace_ms=grace)
            call = client.node.Restart.future(restart, timeout=PATIENCE)
        case _:
            call = client.node.Remove(pb.RemoveRequest(names=names, grace_ms=grace), timeout=PATIENCE)
    client.until("web", ev.EVENT_REASON_STOPPING, after)
    call.cancel()
    for service in services:
        own.kill(service)
    for service in reversed(services):
        own.start(service)
    last = {"stop": ev.EVENT_REASON_EXITED, "restart": ev.EVENT_REASON_RUNNING}
    client.until("web", last.get(verb, ev.EVENT_REASON_REMOVED), after)


def test_time_to_end_is_for_one_end_alone(client: Client, instance: Instance, image: str) -> None:
    """Not for the one after it, nor when there was nothing to end."""
    client.up(spec(image, "web", HEARS))
    says(client, "web", b"ready")
    instance.cli("stop", "web", "-t", "0")
    assert client.get("web").status.exit.signal == signal.SIGKILL
    for again in ("start", "restart"):
        instance.cli("stop", "web", "-t", "0")
        instance.cli(again, "web")
        assert client.run(
            "web", "sh", "-c", "until grep -q 'SigCgt.*[4-7c-f]...$' /proc/1/status; do sleep 0.02; done"
        )
        instance.cli("stop", "web")
        assert client.get("web").status.exit.code == 7


def test_wait_prints_codes_as_they_come(client: Client, instance: Instance, image: str) -> None:
    client.up(spec(image, "a", "read line; exit 3"), spec(image, "b", "read line; exit 4"))
    client.apply(spec(image, "done", "exit 5"))
    client.until("done", ev.EVENT_REASON_EXITED)
    assert instance.cli("wait", "done").stdout == "5\n"
    process = waiting(instance, "a", "done", "b")
    assert process.stdout and process.stdout.readline() == "done  5\n"
    for name, code in (("b", 4), ("a", 3)):
        with open(f"/proc/{client.get(name).status.pid}/fd/0", "wb", buffering=0) as stdin:
            stdin.write(b"\n")
        assert process.stdout.readline() == f"{name}  {code}\n"
    assert process.communicate(timeout=PATIENCE) == ("", "") and process.returncode == 0


def test_wait_says_what_will_never_end(client: Client, instance: Instance, image: str) -> None:
    client.apply(spec(image, "bad", workdir="/nowhere"))
    done = instance.cli("wait", "bad", check=False)
    assert done.returncode == 1 and "/nowhere" in done.stderr and done.stdout == ""
    client.up(spec(image, "web"))
    client.apply(spec(image, "done", "exit 5"))
    client.until("done", ev.EVENT_REASON_EXITED)
    process = waiting(instance, "done", "web")
    assert process.stdout and process.stdout.readline() == "done  5\n"
    client.down("web")
    assert process.communicate(timeout=PATIENCE) == ("", "✗ web  was removed meanwhile\n")
    assert process.returncode == 1


def test_another_name_is_known_everywhere(client: Client, instance: Instance, image: str) -> None:
    web, _ = client.up(spec(image, "web", "echo from web; read line"), spec(image, "cache"), origin="-")
    after = newest(client)
    assert instance.cli("rename", "web", "shop").stdout == "✓ shop  was web\n"
    assert reasons(client, after) == [("shop", "RENAMED")]
    again = client.get("shop")
    assert (again.id, again.status.pid, again.status.phase) == (web.id, web.status.pid, RUNNING)
    assert client.logs("shop") == b"from web\n"
    assert [one.spec.name for one in client.ls()] == ["cache", "shop"]
    code, out, _ = client.run("cache", "nslookup", "shop")
    assert code == 0 and web.status.address.encode() in out
    assert client.run("cache", "nslookup", "web")[0] != 0
    (other,) = client.up(spec(image, "web"), origin="-")  # the name before is free
    assert client.run("cache", "nslookup", "web")[0] == 0
    client.down("shop")
    assert client.get("web").status.pid == other.status.pid
    assert client.run("cache", "nslookup", "web")[0] == 0


def test_another_name_outlives_services_that_die(mortal: tuple[Instance, Client], image: str) -> None:
    """Also when only the node has heard of it."""
    own, client = mortal
    (web,) = client.up(spec(image, "web"), origin="-")
    own.cli("rename", "web", "shop")
    for service in ("tinyo-runtime", "tinyo-node"):
        own.kill(service)
    own.start("tinyo-runtime")
    own.start("tinyo-node")
    assert client.get("shop").status.pid == web.status.pid
    own.kill("tinyo-runtime")
    call = client.node.Rename.future(verbs.RenameRequest(name="shop", new_name="third"), timeout=PATIENCE)
    client.until("third", ev.EVENT_REASON_RENAMED)
    own.kill("tinyo-node")
    with pytest.raises(grpc.RpcError):
        call.result()
    own.start("tinyo-runtime")
    own.start("tinyo-node")
    client.up(spec(image, "other"), origin="-")
    container = client.get("third")
    assert (container.id, container.status.pid) == (web.id, web.status.pid)
    assert client.run("other", "nslookup", "third")[0] == 0
    own.cli("restart", "third", "-t", "0")
    assert client.run("third", "hostname")[1] == b"third\n"


def test_who_waits_to_be_restarted_does_so_under_another_name(client: Client, image: str) -> None:
    script = "test $(wc -l </count) -gt 3 && read line; echo >>/count; exit 1"
    client.apply(spec(image, "loops", f"touch /count; {script}", restart=ALWAYS), origin="-")
    client.until("loops", ev.EVENT_REASON_EXITED)
    after = newest(client)
    client.node.Rename(verbs.RenameRequest(name="loops", new_name="still"), timeout=PATIENCE)
    client.until("still", ev.EVENT_REASON_EXITED, after)
    client.until("still", ev.EVENT_REASON_RUNNING, after)


def test_a_statefile_must_agree_to_another_name(
    client: Client, instance: Instance, image: str, tmp_path: Path
) -> None:
    file = tmp_path / "web.yml"
    file.write_text(f"container: {image}\n")
    instance.cli("+", str(file))
    assert f"came from {file}, which would bring up another 'web'" in refused(
        instance, "rename", "web", "shop"
    )
    file.write_text(f"container: {image}\nname: shop\n")
    instance.cli("rename", "web", "shop")
    assert instance.cli("+", str(file)).stdout == "shop is up to date\n"
    assert [one.spec.name for one in client.ls()] == ["shop"]
    file.unlink()
    instance.cli("rename", "shop", "free")
    assert [one.spec.name for one in client.ls()] == ["free"]


def test_top_shows_who_is_in_it_harmlessly(client: Client, instance: Instance, image: str) -> None:
    client.up(spec(image, "web", "sleep 1000 & read line", user="12:34"))
    both = top(client, "web")
    assert [(one.pid, one.comm, one.uid) for one in both] == [(1, "sh", 12), (both[1].pid, "sleep", 12)]
    assert list(both[1].command) == ["sleep", "1000"] and both[1].pid > 1
    for one in both:
        assert Path(f"/proc/{one.host_pid}/comm").read_text().strip() == one.comm
        assert one.rss_bytes > 0
    script = 'echo begun; read line; exit 0 "$0"'
    process = subprocess.Popen(
        [PROGRAMS / "tinyo", "exec", "-u", "root", "web", "--", "sh", "-c", script, "\x1b[2J\nevil\u202e"],
        env=instance.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    table = instance.cli("top", "web").stdout
    assert r"\x1b[2J\nevil\u202e" in table and len(table.splitlines()) == 4
    assert table.splitlines()[3].split()[2] == "root"
    json = instance.cli("top", "-o", "json", "web").stdout
    assert json.isascii() and r"\u001b[2J\nevil\u202e" in json
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    "script",
    [
        "ln -sf /proc/1/environ /etc/passwd",  # as /proc/kmsg, which is nobody else's once we read it
        "rm -f /etc/passwd; mkfifo /etc/passwd",
        "rm -f /etc/passwd; mkdir /etc/passwd",
        "ln -sf /proc/1/root/etc/passwd /etc/passwd",
        "ln -sf /etc/passwd /etc/passwd",
        "head -c 3000000 /dev/zero >/etc/passwd",
        "echo 'a:x:0:0::/:' >/etc/passwd; echo 'b:x:\u0663:' >>/etc/passwd",
    ],
)
def test_top_reads_nothing_but_files_of_the_container(client: Client, image: str, script: str) -> None:
    """It may be anything: what would block whoever reads it, or belongs to the host."""
    client.up(spec(image, "web", f"{script}; echo ready; read line", env={"A": "\nevil:x:0:\n"}))
    says(client, "web", b"ready")
    (shell,) = top(client, "web")
    assert (shell.uid, shell.user) == (0, "a" if "a:x" in script else "")


def test_top_counts_ids_as_the_container_does(client: Client, image: str) -> None:
    client.up(spec(image, "web", userns=USER_NAMESPACE_ON))
    (shell,) = top(client, "web")
    assert (shell.pid, shell.uid, shell.user) == (1, 0, "root")
    assert os.stat(f"/proc/{shell.host_pid}").st_uid != 0


def test_port_says_what_docker_says(client: Client, instance: Instance, image: str) -> None:
    ports = [
        v1.Port(host_port=18080, container_port=80),
        v1.Port(host_ip="127.0.0.1", host_port=15353, container_port=53, protocol=v1.PROTOCOL_UDP),
    ]
    client.up(spec(image, "web", ports=ports))
    assert instance.cli("port", "web").stdout == "80/tcp -> 0.0.0.0:18080\n53/udp -> 127.0.0.1:15353\n"
    assert instance.cli("port", "web", "53/udp").stdout == "127.0.0.1:15353\n"
    assert refused(instance, "port", "web", "53") == (
        "port 53/tcp of 'web' is not published; published are: 80/tcp, 53/udp"
    )
    instance.cli("stop", "-t", "0", "web")
    assert refused(instance, "port", "web") == (
        "'web' does not run (exited (137)), so nothing of it is published"
    )


def test_what_is_wrong_is_said_once_and_nothing_is_done(
    client: Client, instance: Instance, image: str
) -> None:
    client.up(spec(image, "web"), spec(image, "off"), origin="-")
    instance.cli("stop", "-t", "0", "off")
    after = newest(client)
    for command in ("kill", "pause", "unpause", "restart", "wait"):
        assert refused(instance, command, "web", "nope").startswith("there is no container 'nope'")
    for command in ("kill", "pause", "unpause"):
        assert refused(instance, command, "web", "off") == ("container 'off' is not running: start it first")
    assert refused(instance, "top", "off") == "container 'off' is not running: start it first"
    assert refused(instance, "kill", "-s", "65", "web").startswith("'65' is no signal")
    assert refused(instance, "rename", "web", "web") == "'web' is its name already"
    assert refused(instance, "rename", "web", "No!").startswith("name 'No!': use at most 63 of a-z")
    assert refused(instance, "rename", "web", "off").startswith("there is a container 'off' already")
    with pytest.raises(grpc.RpcError, match="there is no signal 65"):
        client.node.Kill(verbs.KillRequest(names=["web"], signal=65), timeout=PATIENCE)
    assert newest(client) == after
    container = client.get("web")
    assert (container.status.phase, container.status.paused) == (RUNNING, False)


def test_a_name_that_others_need_stays(client: Client, image: str) -> None:
    joins = spec(image, "joins")
    joins.network.kind, joins.network.container = NETWORK_KIND_CONTAINER, "web"
    client.up(spec(image, "web"), origin="-")
    client.up(joins, origin="-")
    with pytest.raises(grpc.RpcError, match="joins would not find 'web' any more"):
        client.node.Rename(verbs.RenameRequest(name="web", new_name="shop"), timeout=PATIENCE)
    assert client.get("web").status.phase == RUNNING
