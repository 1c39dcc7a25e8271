"""An installation of TinyO that nobody else sees: a name of its own, and so folders, sockets and addresses.

    with Instance() as instance:
        instance.cli("+", "examples/basic/one-line.yml")
        instance.kill("tinyo-runtime")
        instance.start("tinyo-runtime")

At its end nothing may be left of it on the machine; then its folders go too.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.clean import GONE, Snapshot, assert_clean, descendants, links, snapshot

#: Where the programs are that belong to the interpreter that runs the tests.
PROGRAMS = Path(sys.executable).parent
#: In the order in which they are started.
SERVICES = ("tinyo-runtime", "tinyo-node")
#: Seconds that anything may take here before a test fails instead of hanging.
PATIENCE = 60


class Instance:
    """The services of one instance, and the command line to talk to them."""

    def __init__(self, *services: str, **environment: str) -> None:
        """With both services unless some are named; `environment` is added to theirs and to the command line's."""
        self.name = f"t{secrets.token_hex(4)}"
        self.state, self.run = Path("/var/lib", self.name), Path("/run", self.name)
        self.services = services or SERVICES
        # Nothing is made ahead, so that what is there after a test can be compared with what was before.
        ours = {"TINYO_INSTANCE": self.name, "TINYO_RUNTIME_READY": "0"}
        self.environment = {**os.environ, **ours, **environment}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.baseline: Snapshot | None = None

    def __enter__(self) -> Self:
        self.baseline = snapshot()
        try:
            for service in self.services:
                self.start(service)
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.destroy()

    def start(self, service: str) -> None:
        """Starts a service and returns when it says that it is ready (sd_notify(3))."""
        self.run.mkdir(mode=0o700, exist_ok=True)
        address = self.run / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log(service).open("ab") as log:
            ready.bind(str(address))
            ready.settimeout(PATIENCE)
            environment = {**self.environment, "NOTIFY_SOCKET": str(address)}
            self.running[service] = subprocess.Popen(
                [PROGRAMS / service], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
            except TimeoutError:
                raise AssertionError(f"{service} is not ready:\n{self.log(service).read_text()}") from None
            finally:
                address.unlink()

    def stop(self, service: str) -> None:
        """SIGTERM; the service must end by itself, without an error."""
        process = self.running.pop(service)
        process.terminate()
        status = process.wait(PATIENCE)
        assert status == 0, f"{service} ended with {status}:\n{self.log(service).read_text()}"

    def kill(self, service: str) -> None:
        """SIGKILL."""
        process = self.running.pop(service)
        process.kill()
        process.wait(PATIENCE)

    def pid(self, service: str) -> int:
        """Process id of a service."""
        return self.running[service].pid

    def log(self, service: str) -> Path:
        """Where a service says what it says."""
        return self.run / f"{service.removeprefix('tinyo-')}.log"

    def socket(self, service: str) -> str:
        """Address of a service for gRPC."""
        return f"unix:{self.run}/{service.removeprefix('tinyo-')}.sock"

    def cli(
        self, *arguments: str, check: bool = True, stdin: str = "", patience: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs `tinyo`, for so many seconds at most; with `check`, an exit code other than 0 fails the test with what was printed."""
        done = subprocess.run(
            [PROGRAMS / "tinyo", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience,
        )
        assert not check or done.returncode == 0, (
            f"tinyo {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def spawners(self) -> list[int]:
        """Process ids of who listens on the spawner's socket."""
        listed = Path("/proc/net/unix").read_text()
        inodes = re.findall(rf"(\d+) {re.escape(str(self.run / 'spawner.sock'))}$", listed, re.MULTILINE)
        return [
            pid
            for pid in descendants()
            if {f"socket:[{inode}]" for inode in inodes} & set(links(f"/proc/{pid}/fd"))
        ]

    def close(self) -> None:
        """Takes everything away in the ways that users have, and looks whether that was all."""
        if set(SERVICES) <= set(self.running) and (
            names := self.cli("ls", "-a", "-o", "name").stdout.split()
        ):
            self.cli("-", *names)
        for service in reversed(list(self.running)):
            self.stop(service)
        for pid in self.spawners():
            os.kill(pid, signal.SIGTERM)
        assert self.baseline
        assert_clean(self.baseline)

    def destroy(self) -> None:
        """Takes everything away that may still be there, whatever state it is in."""
        for pid in {
            *self.spawners(),
            *(process.pid for process in self.running.values()),
            *self._contained(),
        }:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.running.values():
            process.wait(PATIENCE)
        for folder in (self.state, self.run):
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if (target := line.split()[4]).startswith(f"{folder}/"):
                    subprocess.run(["umount", "--lazy", target], check=True)
        self._forget_in_kernel()
        for folder in (self.state, self.run):
            shutil.rmtree(folder, ignore_errors=True)

    def _forget_in_kernel(self) -> None:
        """What a service that was killed could not take back."""
        for family, option, record in (("ip", "-4", "pool"), ("ip6", "-6", "pool6")):
            subprocess.run(["nft", "delete", "table", family, self.name], capture_output=True)
            if (pool := self.run / record).exists():
                route = ["ip", option, "route", "del", "unreachable", pool.read_text()]
                subprocess.run(route, capture_output=True)
        for parent, names, _ in os.walk("/sys/fs/cgroup"):
            if self.name in names:
                for path, _, _ in os.walk(f"{parent}/{self.name}", topdown=False):
                    with suppress(OSError):
                        os.rmdir(path)

    def _contained(self) -> list[int]:
        """Processes in the containers of this instance."""
        found = []
        for pid in descendants():
            with suppress(*GONE):
                if f"/{self.name}/" in Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return found
