"""`tinyo attach`: the streams of a container itself, or its terminal, for several clients, across restarts."""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.attach_pb2 import AttachSpec
from tinyo.v1.stdin_pb2 import STANDARD_INPUT_CLOSED, STANDARD_INPUT_ONCE
from tinyo.v1.stream_pb2 import ExecInput, ExecSpec
from tinyo.v1.userns_pb2 import USER_NAMESPACE_OFF, USER_NAMESPACE_ON

from tests.support import images
from tests.support.client import PATIENCE, Client
from tests.support.instance import PROGRAMS, Instance
from tests.support.seat import SILENT, Seat

#: Says the size of its terminal when that changes.
RESIZED = "sh -c \"trap 'stty size; kill \\$!' WINCH; sleep 1000 & echo trapped; wait; wait; echo resized\"\n"


@pytest.fixture(scope="module")
def image(host: str) -> str:
    return images.busybox_image(host, "alpine")


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[Client]:
    with Client(instance.socket("tinyo-node")) as made:
        yield made


def sh(image: str, script: str, **more: object) -> v1.ContainerSpec:
    """A container `c` that runs a script."""
    return v1.ContainerSpec(name="c", image=image, command=["sh", "-c", script], **more)  # type: ignore[arg-type]


def tinyo(instance: Instance, *arguments: str) -> subprocess.Popen[bytes]:
    """A command line with pipes."""
    pipe = subprocess.PIPE
    command = [str(PROGRAMS / "tinyo"), *arguments]
    return subprocess.Popen(command, env=instance.environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_a_container_has_a_terminal_of_its_own(instance: Instance, client: Client, image: str) -> None:
    """The first of its devpts; it controls the session, and is left by Ctrl-P Ctrl-Q without ending anything."""
    client.up(v1.ContainerSpec(name="c", image=image, command=["sh"], tty=True))
    seat = Seat(instance, "attach", "c")
    seat.type(f"{SILENT}\n")
    seat.until("begin\r\n")
    assert seat.ask("tty") == "/dev/pts/0\n=0=\n"
    assert seat.ask("tty </dev/tty; echo $TERM") == "/dev/tty\nxterm\n=0=\n"
    assert seat.ask("stty size") == "24 80\n=0=\n"
    seat.type(RESIZED)
    seat.until("trapped\r\n")
    seat.resize(33, 111)
    assert seat.until("resized") == "33 111\r\nresized"
    seat.type("\x10\x11")
    seat.until("detached: c goes on")
    assert seat.end() == 0
    again = Seat(instance, "attach", "c")
    again.type("echo be''gin\n")
    again.until("begin\r\n")
    assert again.ask("stty size") == "24 80\n=0=\n"
    again.type("exit 9\n")
    assert again.end() == 9
    assert b"/dev/pts/0\r\n" in client.logs("c")
    client.down("c")


@pytest.fixture
def restarted() -> Iterator[tuple[Instance, Client]]:
    """An instance whose services a test may end."""
    with Instance() as made, Client(made.socket("tinyo-node")) as client:
        yield made, client


def test_a_terminal_survives_restarts(restarted: tuple[Instance, Client], image: str) -> None:
    """Of the runtime, in whichever way it ended, and of the spawner: nobody hangs up on the container."""
    instance, client = restarted
    (before,) = client.up(v1.ContainerSpec(name="c", image=image, command=["sh"], tty=True))
    instance.stop("tinyo-runtime")
    instance.start("tinyo-runtime")
    echoed(instance, client, "one")
    instance.kill("tinyo-runtime")
    instance.start("tinyo-runtime")
    echoed(instance, client, "two")
    (spawner,) = instance.spawners()
    os.kill(spawner, signal.SIGKILL)
    echoed(instance, client, "three")
    joined(client)
    instance.kill("tinyo-runtime")
    instance.start("tinyo-runtime")
    echoed(instance, client, "four")
    assert client.get("c").status.pid == before.status.pid
    client.down("c")


def joined(client: Client) -> None:
    """Returns when a spawner is there that knows `c`: only then it has the terminal, too."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert client.run("c", "true") == (0, b"", b"")
            return
        except grpc.RpcError:
            assert time.monotonic() < deadline


def echoed(instance: Instance, client: Client, word: str) -> None:
    """A shell in a terminal does what is typed, and its log has what it says."""
    seat = Seat(instance, "attach", "--detach-keys=ctrl-e,x", "c")
    seat.type(f"echo +{word}''+\n")
    seat.until(rf"\+{word}\+\r\n")
    seat.type("\x05x")
    assert seat.end() == 0
    assert f"+{word}+\r\n".encode() in client.logs("c")


def test_bytes_pass_as_they_are(instance: Instance, client: Client, image: str) -> None:
    """Both ways, both streams, and the exit code; the end of input of one client ends that of a container with
    `once`."""
    data = bytes(range(256)) * 2000
    client.up(sh(image, "cat; echo bad >&2; exit 5", stdin=STANDARD_INPUT_ONCE))
    attached = tinyo(instance, "attach", "c")
    out, err = attached.communicate(data, PATIENCE)
    assert (attached.returncode, out, err) == (5, data, b"bad\n")
    client.down("c")


def test_input_is_held_open_for_the_next_client(instance: Instance, client: Client, image: str) -> None:
    """As is the default: a client that ends its input, or goes away, ends nobody else's."""
    client.up(sh(image, "while read line; do echo got $line; done"))
    first = tinyo(instance, "attach", "c")
    said(first, b"one\n", b"got one\n")
    assert first.stdin and first.stdout
    first.stdin.close()
    second = tinyo(instance, "attach", "c")
    said(second, b"two\n", b"got two\n")
    assert first.stdout.readline() == b"got two\n"
    lines = client.logs("c")
    assert lines == b"got one\ngot two\n"
    second.kill()
    second.wait()
    client.down("c")
    assert first.wait(PATIENCE) == 137


def said(client: subprocess.Popen[bytes], line: bytes, answer: bytes) -> None:
    """Says a line and reads the answer to it."""
    assert client.stdin and client.stdout
    client.stdin.write(line)
    client.stdin.flush()
    assert client.stdout.readline() == answer


def test_a_client_that_is_gone_ends_input_that_was_its_own(
    restarted: tuple[Instance, Client], image: str
) -> None:
    """With `once`; also after a restart of the runtime, before which nobody had sent any."""
    instance, client = restarted
    client.up(sh(image, "while read line; do echo got $line; done; exit 4", stdin=STANDARD_INPUT_ONCE))
    instance.kill("tinyo-runtime")
    instance.start("tinyo-runtime")
    watching = tinyo(instance, "attach", "--no-stdin", "c")
    sending = tinyo(instance, "attach", "c")
    said(sending, b"one\n", b"got one\n")
    assert watching.stdout
    while not select.select([watching.stdout], [], [], 0.01)[0]:  # until it is attached
        said(sending, b"more\n", b"got more\n")
    sending.kill()
    sending.wait()
    assert watching.wait(PATIENCE) == 4
    client.down("c")


def test_closed_input_is_dev_null(client: Client, image: str) -> None:
    script = "stat -Lc %t:%T /proc/self/fd/0; cat; exit 3"
    client.apply(sh(image, script, stdin=STANDARD_INPUT_CLOSED))
    assert attached(client, ExecInput(stdin=b"lost\n")) == (3, b"1:3\n")
    client.down("c")


@pytest.mark.parametrize("user", ["", "1000:1000"])
def test_closed_input_stays_the_hosts(client: Client, image: str, user: str) -> None:
    before = os.stat("/dev/null")
    client.apply(sh(image, "chmod 600 /proc/self/fd/0 && echo done", stdin=STANDARD_INPUT_CLOSED, user=user))
    said = attached(client)[1]
    assert b"Read-only file system" in said or (user and b"Operation not permitted" in said), said
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    client.down("c")


def attached(client: Client, *inputs: ExecInput) -> tuple[int, bytes]:
    """Exit code, and all that `c` has written, for a client that sends this and stays."""
    ended = threading.Event()

    def requests() -> Iterator[pb.AttachRequest]:
        yield pb.AttachRequest(start=pb.AttachStart(name="c", attach=AttachSpec(from_start=True)))
        for input in inputs:
            yield pb.AttachRequest(input=input)
        ended.wait(PATIENCE)

    answers = [answer.output for answer in client.node.Attach(requests(), timeout=PATIENCE)]
    ended.set()
    return answers[-1].exit.code, b"".join(answer.stdout + answer.stderr for answer in answers)


def test_signals_are_the_containers(instance: Instance, client: Client, image: str) -> None:
    """Each that it can have; with --sig-proxy=false they are ours, and it goes on."""
    traps = "trap 'echo interrupted' INT; trap 'exit 6' USR1"
    client.up(sh(image, f"{traps}; while :; do read line && echo got $line; done"))
    attached = tinyo(instance, "attach", "c")
    said(attached, b"one\n", b"got one\n")
    other = tinyo(instance, "attach", "--sig-proxy=false", "c")
    said(other, b"two\n", b"got two\n")
    assert attached.stdout and other.stdout
    assert attached.stdout.readline() == b"got two\n"
    attached.send_signal(signal.SIGINT)
    assert attached.stdout.readline() == b"interrupted\n"
    assert other.stdout.readline() == b"interrupted\n"
    other.send_signal(signal.SIGINT)
    assert other.wait(PATIENCE) == 130
    attached.send_signal(signal.SIGUSR1)
    assert attached.wait(PATIENCE) == 6
    client.down("c")


def test_only_what_runs_can_be_attached_to(instance: Instance, client: Client, image: str) -> None:
    client.up(sh(image, "read line"))
    client.node.Stop(pb.StopRequest(names=["c"]), timeout=PATIENCE)
    for name, why in (
        ("c", "container 'c' is not running: start it first"),
        ("x", "there is no container 'x'"),
    ):
        done = instance.cli("attach", name, check=False)
        assert done.returncode == 1 and why in done.stderr and done.stderr.count("\n") == 1
    client.down("c")


def test_who_sends_at_once_still_hears_why_not(client: Client, image: str) -> None:
    """The node's write into a call that the runtime has refused hid the refusal, now and then."""
    client.up(sh(image, "read line"))
    client.node.Stop(pb.StopRequest(names=["c"]), timeout=PATIENCE)
    more = [ExecInput(stdin=b"x" * 10_000)] * 20
    attach = [
        pb.AttachRequest(start=pb.AttachStart(name="c")),
        *(pb.AttachRequest(input=one) for one in more),
    ]
    run = [pb.ExecRequest(start=pb.ExecStart(name="c")), *(pb.ExecRequest(input=one) for one in more)]
    for _ in range(50):
        for call in (client.node.Attach(iter(attach)), client.node.Exec(iter(run))):
            with pytest.raises(grpc.RpcError) as refusal:
                next(call)
            assert "container 'c' is not running" in str(refusal.value)
    client.down("c")


def test_a_program_may_end_while_somebody_sends(client: Client, image: str) -> None:
    """Its exit was told, and then the call failed: what was sent came too late."""
    client.up(sh(image, "read line"))
    more = [pb.ExecRequest(input=ExecInput(stdin=b"x" * 1000))] * 20
    for _ in range(50):
        start = pb.ExecRequest(start=pb.ExecStart(name="c", exec=ExecSpec(command=["true"])))
        *_, last = client.node.Exec(iter([start, *more]), timeout=PATIENCE)
        assert last.output.exit.code == 0 and last.output.HasField("exit")
    client.down("c")


def test_who_reads_slowly_holds_nobody_up_and_misses_nothing(
    instance: Instance, client: Client, image: str
) -> None:
    """Far more than pipes and connections hold; the log has it all, and is what clients read."""
    script = "read go; head -c 12000000 /dev/zero; echo; echo over >/over; read go"
    client.up(sh(image, script))
    slow = tinyo(instance, "attach", "c")
    assert slow.stdin and slow.stdout
    slow.stdin.write(b"go\n")
    slow.stdin.flush()
    code, _, _ = client.run("c", "sh", "-c", "until [ -s /over ]; do :; done")
    assert code == 0
    assert len(slow.stdout.read(12000001)) == 12000001
    slow.stdin.write(b"go\n")
    slow.stdin.flush()
    assert slow.wait(PATIENCE) == 0
    client.down("c")


def test_a_user_and_a_user_namespace_have_terminals_too(
    instance: Instance, client: Client, image: str
) -> None:
    """Each is the user's, who can open it again by name."""
    script = "tty; stat -c %u:%g /dev/pts/0; echo again >/dev/pts/0; echo more >/dev/tty; echo and >/dev/console; id -u"
    for user, userns in (
        ("33:44", USER_NAMESPACE_ON),
        ("", USER_NAMESPACE_ON),
        ("33:44", USER_NAMESPACE_OFF),
    ):
        client.apply(sh(image, script, tty=True, user=user, userns=userns))
        code, out = attached(client)
        uid = user.partition(":")[0] or "0"
        assert (code, out.decode().split()) == (0, f"/dev/pts/0 {uid}:5 again more and {uid}".split())
        client.down("c")
