"""`tinyo run`: one container, here and now, with the streams and the exit code of who runs it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import event_pb2 as ev

from tests.support import images
from tests.support.client import PATIENCE, Client
from tests.support.instance import PROGRAMS, Instance
from tests.support.seat import Seat
from tests.support.slow import slow


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


def begun(instance: Instance, *arguments: str) -> subprocess.Popen[bytes]:
    """`tinyo run` with pipes."""
    pipe = subprocess.PIPE
    command = [str(PROGRAMS / "tinyo"), "run", *arguments]
    return subprocess.Popen(command, env=instance.environment, stdin=pipe, stdout=pipe, stderr=pipe)


def run(instance: Instance, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit code, output and errors."""
    process = begun(instance, *arguments)
    out, err = process.communicate(stdin, PATIENCE)
    return process.returncode, out, err


def names(client: Client) -> list[str]:
    return [one.spec.name for one in client.ls()]


def test_output_and_exit_code_come_through_and_nothing_stays(
    instance: Instance, client: Client, image: str
) -> None:
    """The whole output, however soon it ends; what is said of the image's way here is no part of it."""
    script = "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done; echo bad >&2; exit 7"
    code, out, err = run(instance, "--rm", image, "sh", "-c", script)
    assert (code, out.split(), err.splitlines()[-1]) == (7, [b"%d" % n for n in range(5000)], b"bad")
    assert run(instance, "--rm", image, "true") == (0, b"", b"")
    assert names(client) == []


def test_input_is_sent_only_on_request(instance: Instance, client: Client, image: str) -> None:
    data = bytes(range(256)) * 2000
    assert run(instance, "--rm", "-i", image, "cat", stdin=data) == (0, data, b"")
    assert run(instance, "--rm", image, "cat", stdin=data) == (0, b"", b"")


def test_what_is_asked_for_is_what_it_has(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    """Its name is the image's and something of its own; without --rm it stays."""
    tmp_path.chmod(0o755)
    script = "pwd; id -u; echo $A $TINYO_INSTANCE $NONE.; cat file"
    (tmp_path / "file").write_text("mounted\n")
    options = ("-e", "A=1", "-e", "TINYO_INSTANCE", "-e", "NONE", "-v", f"{tmp_path}:/x:ro", "-w", "/x")
    code, out, _ = run(instance, *options, "-u", "1000:1000", image, "--", "sh", "-c", script)
    assert (code, out.decode()) == (0, f"/x\n1000\n1 {instance.name} .\nmounted\n")
    (name,) = names(client)
    assert re.fullmatch("alpine-[0-9a-f]{6}", name)
    client.down(name)


def test_options_are_what_the_keys_of_a_statefile_are(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    """All the way into the kernel; an entrypoint is one word, as with docker."""
    (tmp_path / "variables").write_text("A=file\nB=file\n")
    script = "hostname; echo $A $B; echo x >/x; echo y >/t/y && cat /t/y; grep CapEff /proc/self/status"
    options = ("--hostname", "h.example.com", "--env-file", str(tmp_path / "variables"), "-e", "A=said")
    more = (
        "--read-only",
        "--tmpfs",
        "/t:size=1m",
        "--cap-drop=ALL",
        "--cap-add=CHOWN",
        "--init",
        "-m",
        "64m",
    )
    found = run(instance, "--rm", *options, *more, "--entrypoint", "sh", image, "-c", script)
    assert found[:2] == (0, b"h.example.com\nsaid file\ny\nCapEff:\t0000000000000001\n")
    assert b"Read-only file system" in found[2]


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("IMAGE", "nope"), 127, "command 'nope' was not found in the image"),
        (("IMAGE", "/etc/passwd"), 126, "command '/etc/passwd' cannot be executed"),
        (("127.0.0.1:1/nope", "true"), 125, "registry 127.0.0.1:1 cannot be reached"),
        (("-p", "99999", "IMAGE"), 125, "-p: 99999 is no port"),
        (("-v", "foo", "IMAGE"), 125, "-v: 'foo' is no mount"),
        (("-w", "rel", "IMAGE"), 125, "workdir 'rel' is not an absolute path"),
        (("-it", "IMAGE", "sh"), 125, "standard input is not a terminal"),
        (("--cpus", "0", "IMAGE"), 125, "--cpus: '0' is no number of processors"),
        (("--stop-signal", "NOPE", "IMAGE"), 125, "'NOPE' is no signal"),
        (("--restart", "always", "IMAGE"), 125, "--rm and --restart do not go together"),
    ],
)
def test_what_cannot_be_run_is_one_error(
    instance: Instance, client: Client, image: str, arguments: tuple[str, ...], code: int, why: str
) -> None:
    """With docker's exit codes; nothing stays with --rm."""
    words = [image if word == "IMAGE" else word for word in arguments]
    found = run(instance, "--rm", *words)
    assert (found[0], found[1]) == (code, b"")
    assert why in found[2].decode() and found[2].count(b"\n") == 1
    assert names(client) == []


def test_a_name_that_is_taken_is_never_replaced(instance: Instance, client: Client, image: str) -> None:
    code, out, _ = run(instance, "-d", "--name", "mine", image, "sleep", "1000")
    assert (code, out) == (0, b"mine\n")
    code, _, err = run(instance, "--rm", "--name", "mine", image, "true")
    assert code == 125 and b"the name 'mine' belongs to run" in err
    assert names(client) == ["mine"]
    client.down("mine")


def test_somebody_sits_at_its_terminal(instance: Instance, client: Client, image: str) -> None:
    """From its very first word; who detaches comes back, and it is removed by its end alone."""
    seat = Seat(instance, "run", "--rm", "-it", "--name", "seat", image, "sh", "-c", "echo first; exec sh")
    seat.until("first\r\n")
    seat.type("tty; stty size\n")
    seat.until("/dev/pts/0\r\n24 80\r\n")
    seat.type("\x10\x11")
    seat.until("detached: seat goes on")
    assert seat.end() == 0
    seat = Seat(instance, "attach", "seat")
    seat.type("exit 3\n")
    assert seat.end() == 3
    client.until("seat", ev.EVENT_REASON_REMOVED)
    assert names(client) == []


def test_ctrl_c_is_its_own(instance: Instance, client: Client, image: str) -> None:
    process = begun(instance, "--rm", image, "sh", "-c", "trap 'exit 5' INT; echo ready; sleep 1000 & wait")
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 5
    assert names(client) == []


def test_who_does_not_care_is_left_at_the_third_ctrl_c(
    instance: Instance, client: Client, image: str
) -> None:
    """It goes on, and is removed when it ends."""
    script = "trap 'echo no' INT; trap 'exit' TERM; echo ready; while :; do sleep 1000 & wait; done"
    process = begun(instance, "--rm", "--name", "stubborn", image, "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.startswith(b"interrupted: stubborn goes on")
    assert names(client) == ["stubborn"]
    client.node.Stop(pb.StopRequest(names=["stubborn"]), timeout=PATIENCE)
    client.until("stubborn", ev.EVENT_REASON_REMOVED)


def test_rm_holds_when_we_are_killed(instance: Instance, client: Client, image: str) -> None:
    """The node removes it once it has ended, here because its input has."""
    script = "echo ready; cat; exit 1"
    process = begun(instance, "--rm", "-i", "--name", "left", image, "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    client.until("left", ev.EVENT_REASON_REMOVED)
    assert names(client) == []


def test_ctrl_c_before_it_runs_takes_it_back(instance: Instance, client: Client, host: str) -> None:
    """At once, also when its image is on its way; that is no output of it."""
    images.busybox_image(host, "new", [images.layer(images.file("new", os.urandom(10000)))])
    with slow(host) as registry:
        registry.held = 1000
        process = begun(instance, "--name", "early", f"{registry.address}/new", "echo", "out")
        client.until("early", ev.EVENT_REASON_PULLING)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (130, b"")
        assert b"interrupted: early is taken back" in err
        assert names(client) == []
        registry.go_on()
