"""`tinyo` as people and programs meet it: a process, driven against a node in memory."""

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.error_pb2 import Error

from tests.support.fake_node import FakeNode, entry

TINYO = str(Path(sys.executable).with_name("tinyo"))
PATIENCE = 60
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tinyo(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TINYO, *arguments],
            env=environment,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def on_terminal(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    """What a terminal is sent when `tinyo` runs on it."""
    master, slave = pty.openpty()
    command = [TINYO, *arguments]
    process = subprocess.Popen(command, env=environment, cwd=cwd, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    sent = b""
    try:
        while data := os.read(master, 4096):
            sent += data
    except OSError as error:  # how Linux says that nobody has the other side open any more
        assert error.errno == errno.EIO
    process.wait(PATIENCE)
    os.close(master)
    return sent.decode()


def untimed(text: str) -> str:
    return re.sub(r"\(\d+\.\d s\)", "(T s)", text)


def test_apply_comes_up_then_is_up_to_date_then_is_replaced(tinyo: Run, tmp_path: Path) -> None:
    file = tmp_path / "Web 1.yml"
    file.write_text("container: alpine\nport: '8080:80'\n")
    first = tinyo("+", file.name)
    assert (first.returncode, first.stderr) == (0, "")
    assert untimed(first.stdout) == ("web-1  pulling alpine\n✓ web-1  running  10.77.0.2  8080 → 80  (T s)\n")
    assert tinyo("apply", file.name).stdout == "web-1 is up to date\n"
    file.write_text("container: alpine\nport: '8080:80'\nenv: {A: no}\n")
    assert untimed(tinyo("+", file.name).stdout).startswith("web-1  replacing: env changed\n✓ web-1  running")


def test_what_is_sent_is_what_the_file_says(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "real.yml").write_text("container: alpine\nmounts: [./data:/data:ro]\n")
    (tmp_path / "link.yml").symlink_to("real.yml")
    assert tinyo("+", "link.yml").returncode == 0
    request = node.requests[0]
    assert isinstance(request, pb.ApplyRequest)
    assert request.origin == str(tmp_path / "real.yml")
    assert request.statefile == (tmp_path / "real.yml").read_text()
    assert request.containers[0].name == "link"
    assert request.containers[0].mounts[0].source == str(tmp_path / "data")
    assert request.correlation_id


def test_standard_input_is_a_statefile_too(tinyo: Run, node: FakeNode) -> None:
    assert tinyo("+", "-", stdin="container: alpine\n").returncode == 2
    assert tinyo("+", "-", stdin="container: alpine\nname: piped\n").returncode == 0
    assert node.containers["piped"].origin == "-"


def test_nothing_is_sent_when_one_of_the_files_is_wrong(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("container: alpine\n")
    (tmp_path / "bad.yml").write_text("contaner: alpine\n")
    assert tinyo("+", "good.yml", "bad.yml").returncode == 2
    assert not node.requests


@pytest.mark.parametrize(
    ("image", "code", "said"),
    [
        ("exits:0", 0, "✓ one  exited with code 0  (T s)\n"),
        ("exits:3", 1, "✗ one  exited with code 3: `tinyo logs one` shows what it said\n"),
        ("fails", 1, "✗ one  port 80 is held by \\x1b[2Jnginx\n"),
    ],
)
def test_the_exit_code_says_whether_everything_runs(
    tinyo: Run, tmp_path: Path, image: str, code: int, said: str
) -> None:
    (tmp_path / "one.yml").write_text(f"container: {image}\n")
    (tmp_path / "two.yml").write_text("container: alpine\n")
    done = tinyo("+", "one.yml", "two.yml")
    assert done.returncode == code
    assert said in untimed(done.stdout + done.stderr)
    assert "✓ two  running" in done.stdout


def test_an_error_within_the_stream_finds_its_line(tinyo: Run, tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("container: unmounted\nmounts:\n  - source: /nowhere\n    target: /x\n")
    done = tinyo("+", "one.yml")
    assert done.returncode == 1
    assert done.stderr == (
        "one.yml:3:13: there is no /nowhere: make it, or say create: true\n"
        "  3 |   - source: /nowhere\n"
        "    |             ^\n"
    )


@pytest.mark.parametrize(
    ("reason", "metadata", "place"),
    [
        ("IMAGE_NOT_FOUND", {}, "one.yml:1:12: "),
        ("REGISTRY_UNREACHABLE", {}, "one.yml:1:12: "),
        ("COMMAND_NOT_FOUND", {}, "one.yml:2:10: "),
        ("PORT_IN_USE", {"port": "81"}, "one.yml:3:12: "),
        ("MOUNT_SOURCE_MISSING", {"source": "/b"}, "one.yml:4:17: "),
        ("MOUNT_SOURCE_MISSING", {"source": "/c"}, "✗ one  "),
        ("DISK_FULL", {"path": "/b"}, "✗ one  "),
    ],
)
def test_an_error_without_a_field_finds_its_line_by_its_facts(
    tinyo: Run, node: FakeNode, tmp_path: Path, reason: str, metadata: dict[str, str], place: str
) -> None:
    (tmp_path / "one.yml").write_text(
        "container: alpine\ncommand: x\nport: [80, 81]\nmounts: [/a:/a, /b:/b]\n"
    )
    error = Error(code=9, reason=reason, message="it is so", metadata=metadata)
    node.outcomes["alpine"] = v1.ContainerStatus(phase=v1.PHASE_FAILED, error=error)
    done = tinyo("+", "one.yml")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{place}it is so\n")


def test_field_violations_find_their_lines_in_the_order_of_the_file(
    tinyo: Run, node: FakeNode, tmp_path: Path
) -> None:
    (tmp_path / "one.yml").write_text("container: alpine\nport: 80\nworkdir: x\n")
    fields = {"containers__workdir": "not absolute", "containers__ports__host_port": "taken"}
    node.refuse(3, "INVALID_SPEC", "not absolute", **fields)
    done = tinyo("+", "one.yml")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("one")] == [
        "one.yml:2:7: taken",
        "one.yml:3:10: not absolute",
    ]


def test_a_node_without_a_runtime_is_unreachable(tinyo: Run, node: FakeNode) -> None:
    node.refuse(14, "RUNTIME_UNAVAILABLE", "the runtime does not answer")
    done = tinyo("ls")
    assert (done.returncode, done.stderr) == (3, "tinyo: the runtime does not answer\n")


def test_nobody_at_the_host(tinyo: Run, tmp_path: Path) -> None:
    done = tinyo("--host", f"unix:{tmp_path}/nobody.sock", "ls")
    assert done.returncode == 3
    assert done.stderr.startswith("tinyo: the node cannot be reached: ")


def test_interrupting_an_apply_says_that_it_goes_on(
    node: FakeNode, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "one.yml").write_text("container: alpine\n")
    node.gate.clear()
    process = subprocess.Popen(
        [TINYO, "+", "one.yml"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "one  pulling alpine\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said == "interrupted: the apply goes on in the node; `tinyo ls` shows how far it is\n"


def test_remove_by_name_and_by_file(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yml").write_text("container: alpine\n")
    tinyo("+", "one.yml", "two.yml", "three.yml")
    (tmp_path / "two.yml").unlink()
    done = tinyo("-", "one", "two.yml", "-t", "3")
    assert (done.returncode, done.stdout) == (0, "✓ one  removed\n✓ two  removed\n")
    assert list(node.containers) == ["three"]
    requests = [one for one in node.requests if isinstance(one, pb.RemoveRequest)]
    assert {one.grace_ms for one in requests} == {3000}


def test_remove_shows_what_the_node_says(tinyo: Run, node: FakeNode) -> None:
    node.refuse(5, "CONTAINER_NOT_FOUND", "there is no 'x'")
    done = tinyo("-", "x")
    assert done.returncode == 1
    assert "there is no 'x'" in done.stderr


def test_list(tinyo: Run, tmp_path: Path) -> None:
    assert "tinyo + FILE" in tinyo("ls").stderr
    (tmp_path / "one.yml").write_text("container: alpine\nport: 80\n")
    (tmp_path / "two.yml").write_text("container: exits:3\nport: 127.0.0.1:53:5353/udp\n")
    tinyo("+", "one.yml", "two.yml")
    assert tinyo("ls").stdout == (
        "NAME   STATUS       SINCE   ADDRESS     PORTS                     IMAGE\n"
        "one    running              10.77.0.2   80 → 80                   alpine\n"
        "two    exited (3)                       127.0.0.1:53 → 5353/udp   exits:3\n"
    )
    assert tinyo("ps", "-o", "name").stdout == "one\ntwo\n"
    data = json.loads(tinyo("ls", "-o", "json").stdout)
    assert [one["spec"]["image"] for one in data] == ["alpine", "exits:3"]
    assert yaml.safe_load(tinyo("ls", "-o", "yaml").stdout) == data


def test_what_was_stopped_is_listed_only_when_asked_for(tinyo: Run, tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("container: alpine\n")
    tinyo("+", "one.yml")
    assert tinyo("stop", "one").stdout == "✓ one  stopped, exited (143)\n"
    listed = tinyo("ls")
    assert (listed.stdout, "tinyo ls -a" in listed.stderr) == ("", True)
    assert tinyo("ls", "-a", "-o", "name").stdout == "one\n"
    assert tinyo("start", "one").stdout == "✓ one  running  10.77.0.3\n"
    assert tinyo("ls", "-o", "name").stdout == "one\n"


def test_events(tinyo: Run, tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("container: alpine\n")
    tinyo("+", "one.yml")
    assert re.fullmatch(r" +1  \d{4}-\d\d-\d\d .*  one  running\n", tinyo("events").stdout)


def test_images(tinyo: Run) -> None:
    assert tinyo("image", "ls", "-o", "name").stdout == "docker.io/library/alpine:latest\n"
    assert "sha256:abababababab   linux/amd64   3.4 MB" in tinyo("image", "ls").stdout
    assert tinyo("image", "pull", "alpine").stdout == "✓ alpine  sha256:00  5 B  (nothing to transfer)\n"
    assert tinyo("image", "rm", "a", "b").stdout == "✓ a  removed\n✓ b  removed\n"


def test_logs_are_whole_where_a_program_reads_them(tinyo: Run, node: FakeNode) -> None:
    node.entries = [entry(b"\x1b]0;title\x07 plain\n"), entry(b"oops\n", error=True)]
    done = tinyo("logs", "-n", "5", "one")
    assert (done.stdout, done.stderr) == ("\x1b]0;title\x07 plain\n", "oops\n")
    request = node.requests[0]
    assert isinstance(request, pb.LogsRequest)
    assert (request.tail, request.follow) == (5, False)


def test_logs_cannot_command_a_terminal(node: FakeNode, environment: dict[str, str], tmp_path: Path) -> None:
    split = "é".encode()
    node.entries = [
        entry(b"\x1b]0;title\x07\x1b[31mred\x1b[0m \x1b[2J\x9b2J \rover\r\n"),
        entry(split[:1]),
        entry(split[1:] + "\u202e\n".encode()),
    ]
    sent = on_terminal(environment, tmp_path, "logs", "one")
    assert "\x1b[31mred\x1b[0m" in sent
    assert re.findall(r"\x1b(?!\[[\d;]*m)", sent) == []
    assert "\x07" not in sent and "\u202e" not in sent and "\x9b" not in sent
    assert "\\rover\r\né\\u202e\r\n" in sent


def test_exec_is_clean_for_bytes_and_passes_the_code_on(node: FakeNode, environment: dict[str, str]) -> None:
    data = os.urandom(1 << 20)
    command = [TINYO, "exec", "-e", "A=1=2", "one", "--", "cat", "--", "-x"]
    done = subprocess.run(command, env=environment, input=data, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout == data, done.stderr) == (7, True, b"ready\n")
    request = node.requests[0]
    assert isinstance(request, pb.ExecRequest)
    assert list(request.start.exec.command) == ["cat", "--", "-x"]
    assert dict(request.start.exec.env) == {"A": "1=2"}


def test_interrupting_an_exec_interrupts_the_program(node: FakeNode, environment: dict[str, str]) -> None:
    command = [TINYO, "exec", "one", "--", "sleep"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stderr=pipe) as process:
        assert process.stderr
        assert process.stderr.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT


def test_exec_needs_a_program(tinyo: Run) -> None:
    assert tinyo("exec", "one").returncode == 2
    assert tinyo("exec", "one", "--").returncode == 2


def test_colours_only_on_a_terminal_that_wants_them(
    node: FakeNode, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "one.yml").write_text("container: alpine\n")
    first = on_terminal(environment, tmp_path, "+", "one.yml")
    assert "\x1b[32m✓\x1b[0m one  running" in first
    (tmp_path / "two.yml").write_text("container: alpine\n")
    plain = on_terminal({**environment, "NO_COLOR": "1", "TERM": "dumb"}, tmp_path, "+", "two.yml")
    assert "\x1b" not in plain


@pytest.mark.parametrize(
    ("words", "nearest"),
    [("lss", "'ls'"), ("aply", "'apply'"), ("image lsit", "'image ls'"), ("servics stop", "'services stop'")],
)
def test_a_typo_gets_the_nearest_command(tinyo: Run, words: str, nearest: str) -> None:
    done = tinyo(*words.split())
    assert done.returncode == 2
    assert f"did you mean {nearest}?" in done.stderr


def test_help_and_version(tinyo: Run) -> None:
    assert "tinyo + web.yml" in tinyo("--help").stdout
    assert tinyo().stdout == tinyo("-h").stdout
    assert "FILE|NAME" in tinyo("-", "--help").stdout
    assert tinyo("ls", "--nope").returncode == 2
    assert "tinyo-node     9.8.7  contract v1.0  abc\n" in tinyo("version").stdout


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], node: FakeNode) -> None:
    node.entries = [entry(b"x" * 100_000)]
    read, write = os.pipe()
    os.close(read)
    command = [TINYO, "logs", "one"]
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", (["version"], ["completion", "bash"]))
def test_a_full_disk_behind_the_output_is_said(environment: dict[str, str], command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [TINYO, *command],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert done.stderr.endswith("tinyo: the output cannot be written: No space left on device\n")


def test_only_root(environment: dict[str, str], tmp_path: Path) -> None:
    nobody = {key: value for key, value in environment.items() if key != "TINYO_HOST"}
    # In a user namespace that maps nobody; the interpreter may lie where only root can read it.
    script = (
        "import ctypes, sys; assert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
        "from tinyo_ctl.cli import run; run()"
    )
    for arguments, code in ((["ls"], 1), (["services", "stop"], 1), (["version"], 0), (["--help"], 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=nobody,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == code
        assert (done.stderr == "tinyo: tinyo needs root: run it with sudo\n") == (code == 1)
