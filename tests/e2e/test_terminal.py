"""`tinyo exec -t`: somebody sits at a terminal, and works in a container as if it were there."""

import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.stream_pb2 import ExecInput, ExecSpec, TerminalSize
from tinyo.v1.userns_pb2 import USER_NAMESPACE_ON

from tests.support import images
from tests.support.client import PATIENCE, Client
from tests.support.instance import PROGRAMS, Instance
from tests.support.seat import SILENT, Seat

#: What goes on when its client has left.
LEFT = "trap '' HUP; echo begun; until [ -e /gone ]; do :; done; head -c 300000 /dev/zero; tty >/over"

#: A first process that waits for whoever is left behind.
REAPER = "trap exit TERM; sleep 10000 & wait"


@pytest.fixture(scope="module")
def image(host: str) -> str:
    return images.busybox_image(host, "alpine")


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance, image: str) -> Iterator[Client]:
    """A client of a node that has a container, `web`."""
    with Client(instance.socket("tinyo-node")) as made:
        made.up(v1.ContainerSpec(name="web", image=image, command=["sh", "-c", REAPER]))
        yield made
        made.down("web")


@pytest.fixture
def seat(instance: Instance, client: Client) -> Iterator[Seat]:
    """Somebody in a silent shell in `web`."""
    made = Seat(instance, "exec", "-it", "web", "--", "sh")
    made.until("# ")  # the prompt
    made.type(f"{SILENT}\n")
    made.until("begin\r\n")
    yield made
    if made.process.poll() is None:
        made.type("\x03\nexit\n")
        made.end()


def test_a_shell_has_the_containers_terminal(seat: Seat, client: Client) -> None:
    """Its own, and the first that there is; it belongs to the user, controls the session, and is known by name."""
    assert seat.ask("tty") == "/dev/pts/0\n=0=\n"
    assert seat.ask("tty </dev/tty") == "/dev/tty\n=0=\n"
    assert seat.ask("stat -c '%u:%g %a' /dev/pts/0") == "0:5 620\n=0=\n"
    assert seat.ask("echo $TERM") == "xterm\n=0=\n"
    code, out = typed(client, ExecSpec(command=["ls", "/proc/self/fd"], tty=True))
    assert (code, out.split()) == (0, [b"0", b"1", b"2", b"3"])  # the last is the folder itself


def test_the_size_is_that_of_the_window(seat: Seat) -> None:
    assert seat.ask("stty size") == "24 80\n=0=\n"
    seat.type(
        "sh -c \"trap 'stty size; kill \\$!' WINCH; sleep 1000 & echo trapped; wait; wait; echo resized\"\n"
    )
    seat.until("trapped\r\n")
    seat.resize(33, 111)
    assert seat.until("resized") == "33 111\r\nresized"


def test_ctrl_c_is_the_programs(seat: Seat) -> None:
    """It ends what runs in front, and neither the shell nor us."""
    seat.type("sh -c 'echo sleeping; exec sleep 1000'\n")
    seat.until("sleeping\r\n")
    seat.type("\x03echo =$?=\n")
    seat.until("=130=")
    assert seat.process.poll() is None


def test_who_leaves_with_keys_lets_it_go_on(instance: Instance, client: Client) -> None:
    """Also a program that then writes more than anybody holds. Without such keys they are the program's."""
    seat = Seat(instance, "exec", "-it", "--detach-keys", "ctrl-p,ctrl-q", "web", "--", "sh", "-c", LEFT)
    seat.until("begun")
    seat.type("\x10\x11")
    seat.until("detached: the program goes on, and what it writes is lost")
    assert seat.end() == 0
    code, out, _ = client.run("web", "sh", "-c", "touch /gone; until [ -s /over ]; do :; done; cat /over")
    assert (code, out) == (0, b"/dev/pts/0\n")
    seat = Seat(
        instance, "exec", "-it", "web", "--", "sh", "-c", "stty raw -echo; echo raw; head -c 2 | od -An -tx1"
    )
    seat.until("raw")
    seat.type("\x10\x11")
    seat.until("10 11")
    assert seat.end() == 0


def test_the_exit_code_comes_through(seat: Seat) -> None:
    seat.type("exit 7\n")
    assert seat.end() == 7


def test_ctrl_d_leaves(seat: Seat) -> None:
    seat.type("\x04")
    assert seat.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_is_itself_again_whatever_ends_us(seat: Seat, client: Client, number: int) -> None:
    """And the program ends with us."""
    assert termios.tcgetattr(seat.slave) != seat.settings
    shell = seat.ask("echo $$").split()[0]
    seat.process.send_signal(number)
    assert seat.end() == 128 + number
    deadline = time.monotonic() + PATIENCE
    while client.run("web", "kill", "-0", shell)[0] == 0:
        assert time.monotonic() < deadline


def test_a_program_that_cannot_start_leaves_the_terminal_as_it_was(
    instance: Instance, client: Client
) -> None:
    for arguments, why in (
        (("web", "--", "nope"), "was not found in the image"),
        (("nobody", "--", "sh"), "no container"),
    ):
        seat = Seat(instance, "exec", "-it", *arguments)
        seat.until(why)
        assert seat.end() == 1


def test_a_container_that_has_no_terminals_is_told_as_such(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    """Something else is mounted in their place."""
    spec = v1.ContainerSpec(name="covered", image=image)
    spec.mounts.add(source=str(tmp_path), target="/dev/pts")
    client.up(spec)
    seat = Seat(instance, "exec", "-it", "covered", "--", "sh")
    seat.until("no terminal can be opened in the container: No such device: /dev/pts; leave out -t")
    assert seat.end() == 1
    client.down("covered")


def test_without_a_terminal_there_is_one_error(instance: Instance, client: Client) -> None:
    done = instance.cli("exec", "-it", "web", "--", "true", check=False)
    expected = "tinyo: standard input is not a terminal: leave out -t, or run it in one\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_all_bytes_pass_without_one(instance: Instance, client: Client) -> None:
    """-i changes nothing: what is sent to `cat` comes back as it was."""
    data = bytes(range(256)) * 4096
    command = [str(PROGRAMS / "tinyo"), "exec", "-i", "web", "--", "cat"]
    done = subprocess.run(
        command, env=instance.environment, input=data, capture_output=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_the_whole_output_comes_before_the_end(client: Client) -> None:
    """Also when the program has long ended, and something in the background still has the terminal."""
    script = "trap '' HUP; sleep 1000 & echo $! >/left; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 3"
    code, out = typed(client, ExecSpec(command=["sh", "-c", script], tty=True))
    assert code == 3
    assert out.splitlines() == [b"line %d" % number for number in range(20000)]
    assert client.run("web", "sh", "-c", "kill $(cat /left)") == (0, b"", b"")


def test_clients_may_send_anything(client: Client) -> None:
    """Sizes that no terminal has, an end of input, a size without a terminal, and a TERM of their own."""
    huge = TerminalSize(rows=2**32 - 1, columns=70000)
    script = "stty size; cat; echo $TERM"
    spec = ExecSpec(command=["sh", "-c", script], tty=True, env={"TERM": "vt100"}, size=huge)
    inputs = [ExecInput(resize=huge), ExecInput(stdin=b"typed\n"), ExecInput(end_of_input=True)]
    code, out = typed(client, spec, *inputs, ExecInput(resize=huge), ExecInput(end_of_input=True))
    assert code == 0
    assert out.split().count(b"typed") == 2  # what was typed, and what cat said
    assert out.endswith(b"vt100\r\n")
    code, out = typed(client, ExecSpec(command=["cat"]), *inputs)
    assert (code, out) == (0, b"typed\n")


def test_a_user_and_a_user_namespace_have_terminals_too(client: Client, image: str) -> None:
    """It is the user's, who can open it again by name."""
    client.up(v1.ContainerSpec(name="mapped", image=image, userns=USER_NAMESPACE_ON))
    script = "tty; stat -c %u:%g /dev/pts/0; echo again >/dev/pts/0; echo more >/dev/tty; id -u"
    for name, user in (("web", "33:44"), ("mapped", "33:44"), ("mapped", "")):
        code, out = typed(client, ExecSpec(command=["sh", "-c", script], tty=True, user=user), name=name)
        uid = user.partition(":")[0] or "0"
        expected = f"/dev/pts/0 {uid}:5 again more {uid}"
        assert (code, out.decode().split()) == (0, expected.split())
    client.down("mapped")


def typed(client: Client, spec: ExecSpec, *inputs: ExecInput, name: str = "web") -> tuple[int, bytes]:
    """Exit code and output of a program in a container; no standard error comes."""

    def requests() -> Iterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=pb.ExecStart(name=name, exec=spec))
        for input in inputs:
            yield pb.ExecRequest(input=input)

    answers = [answer.output for answer in client.node.Exec(requests(), timeout=PATIENCE)]
    assert not any(answer.stderr for answer in answers)
    return answers[-1].exit.code, b"".join(answer.stdout for answer in answers)
