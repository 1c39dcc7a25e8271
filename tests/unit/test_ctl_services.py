"""The first command starts the services: with programs that do what services do at their start, and nothing else."""

import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import core_alone

TINYO = Path(sys.executable).with_name("tinyo")
PATIENCE = 60
#: A service: listens, says so, and ends on SIGTERM. It notes its start and what it has got from who started it.
SERVICE = """#!{python} -IS
import os, signal, socket, sys, time
name = os.path.basename(sys.argv[0]).removeprefix("tinyo-")
run = "/run/" + os.environ["TINYO_INSTANCE"]
print("starting", name, os.getpid() == os.getsid(0), os.getcwd(), os.path.realpath("/proc/self/fd/0"), flush=True)
if {dies!r} == name:
    sys.exit("\\x1b[2Jno luck")
listener = socket.socket(socket.AF_UNIX)
path = run + "/" + name + ".sock"
if os.path.exists(path):
    os.unlink(path)
listener.bind(path)
listener.listen()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
    ready.sendto(b"STATUS=almost", os.environ["NOTIFY_SOCKET"])
    ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.sigwait([signal.SIGTERM])
"""


@dataclass
class Services:
    """An instance of its own, with programs in place of the services."""

    programs: Path
    name: str

    @property
    def run(self) -> Path:
        return Path("/run", self.name)

    def write(self, dies: str = "") -> None:
        for service in ("node", "runtime"):
            program = self.programs / f"tinyo-{service}"
            program.write_text(SERVICE.format(python=sys.executable, dies=dies))
            program.chmod(0o755)

    def begin(
        self, *arguments: str, script: str = "from tinyo_ctl.cli import run; run()"
    ) -> subprocess.Popen[str]:
        """`tinyo`, as if it were installed beside these programs; or another script."""
        script = f"import sys; sys.executable = {str(self.programs / 'python')!r}\n{script}"
        return subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "TINYO_INSTANCE": self.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tinyo(self, *arguments: str) -> tuple[int, str, str]:
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def pid(self, service: str) -> int:
        file = self.run / f"{service}.pid"
        return int(file.read_text().split()[0]) if file.exists() else 0


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    if os.geteuid() != 0:
        pytest.skip("services are root's")
    made = Services(tmp_path, f"t{secrets.token_hex(4)}")
    made.write()
    yield made
    for service in ("node", "runtime"):
        pid = made.pid(service)
        command = Path(f"/proc/{pid}/cmdline")
        if pid and command.exists() and str(tmp_path).encode() in command.read_bytes():
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(made.run, ignore_errors=True)


def test_started_as_daemons_and_stopped(services: Services) -> None:
    assert services.tinyo("services", "status")[0] == 3
    code, out, err = services.tinyo("services", "start")
    assert (code, out, err) == (0, "tinyo-node started\ntinyo-runtime started\n", "")
    assert services.run.stat().st_mode & 0o777 == 0o700
    assert (services.run / "node.log").read_text() == "starting node True / /dev/null\n"
    code, out, _ = services.tinyo("services", "status")
    assert code == 0
    assert str(services.pid("node")) in out and out.count("running") == 2
    assert services.tinyo("services", "start")[1] == "tinyo-node runs already\ntinyo-runtime runs already\n"
    assert "node: starting node" in services.tinyo("services", "logs", "-n", "1")[1]
    assert not list(services.run.glob("*.ready"))


def test_the_core_alone_starts_them(services: Services, tmp_path: Path) -> None:
    core = str(core_alone.copy(tmp_path / "core"))
    launched = services.begin(
        script=f"sys.path.insert(0, {core!r})\nfrom tinyo_ctl.launch import launch; print(launch())"
    )
    out, err = launched.communicate(timeout=PATIENCE)
    assert (launched.returncode, out, err) == (0, "['node', 'runtime']\n", "")
    for service in ("node", "runtime"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(services.run / f"{service}.sock"))
            pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        os.kill(pid, signal.SIGTERM)
    assert not list(services.run.glob("*.ready"))


def test_one_that_was_killed_is_started_alone(services: Services) -> None:
    services.tinyo("services", "start")
    node, runtime = services.pid("node"), services.pid("runtime")
    ended = os.pidfd_open(runtime)
    os.kill(runtime, signal.SIGKILL)
    assert select.select([ended], [], [], PATIENCE)[0]
    os.close(ended)
    assert services.tinyo("services", "start")[1] == "tinyo-node runs already\ntinyo-runtime started\n"
    assert services.pid("node") == node
    assert services.pid("runtime") != runtime


def test_two_first_commands_start_them_once(services: Services) -> None:
    both = [services.begin("services", "start") for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (services.run / "node.log").read_text().count("starting") == 1
    assert (services.run / "runtime.log").read_text().count("starting") == 1


@pytest.mark.parametrize("dies", ["node", "runtime"])
def test_one_that_dies_has_its_last_words_shown_and_takes_the_other_with_it(
    services: Services, dies: str
) -> None:
    services.write(dies)
    code, out, err = services.tinyo("services", "start")
    assert (code, out) == (3, "")
    assert f"tinyo: tinyo-{dies} ended with code 1 before it was ready; the last lines of " in err
    assert err.endswith("\n  \\x1b[2Jno luck\n")
    assert services.tinyo("services", "status")[1].count("stopped") == 2
    assert not list(services.run.glob("*.ready"))


def test_one_that_is_missing(services: Services) -> None:
    (services.programs / "tinyo-node").unlink()
    code, _, err = services.tinyo("ls")
    assert code == 3
    assert err == f"tinyo: {services.programs}/tinyo-node cannot be started: No such file or directory\n"


def test_a_process_that_only_has_the_same_number_is_left_alone(services: Services) -> None:
    services.run.mkdir(mode=0o700)
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        (services.run / "node.pid").write_text(f"{bystander.pid} 1\n")
        assert services.tinyo("services", "stop")[1] == "no service runs\n"
        assert bystander.poll() is None
        bystander.kill()


def test_an_instance_needs_a_proper_name(services: Services) -> None:
    services.name = "../etc"
    assert services.tinyo("ls")[0] == 2
    services.name = "tnobody"
