"""Starts the services of this machine when they do not answer.

systemd starts them where it has their units; elsewhere they are started here, as daemons that say READY=1 to
$NOTIFY_SOCKET (sd_notify(3)). A lock makes two commands that come first start them once.
"""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tinyo.node.v1.node_pb2_grpc import NodeServiceStub

from tinyo_ctl import Failure, UsageError
from tinyo_ctl.client import connect

#: In the order in which they are stopped.
SERVICES = ("node", "runtime")
INSTANCE = os.environ.get("TINYO_INSTANCE", "tinyo")
RUN = Path("/run", INSTANCE)
#: Seconds for a service to say that it is ready.
PATIENCE = 30


class ServicesError(Failure):
    """The services could not be started, or stopped."""

    exit_code = 3


@contextmanager
def node(host: str) -> Iterator[NodeServiceStub]:
    """The node at `host`; without one this machine's, whose services are started when they do not answer."""
    if host and not host.startswith("unix:"):
        raise UsageError(f"{host!r} is no host: write unix:PATH, the path of a node's socket")
    if not host:
        need_root()
        ensure()
    with connect(host or address()) as calls:
        yield calls


def need_root() -> None:
    """Failure when this is not root."""
    if os.geteuid() != 0:
        raise Failure("tinyo needs root: run it with sudo")


def address(service: str = "node") -> str:
    """Where gRPC reaches a service."""
    return f"unix:{RUN}/{service}.sock"


def answers(service: str) -> bool:
    """Whether somebody listens on a service's socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(RUN / f"{service}.sock")) == 0


def systemd() -> bool:
    """Whether systemd runs here and has the units; they are for the instance "tinyo" alone."""
    if INSTANCE != "tinyo" or not Path("/run/systemd/system").exists():
        return False
    units = [f"tinyo-{service}.service" for service in SERVICES]
    return subprocess.run(["systemctl", "cat", *units], capture_output=True).returncode == 0


def ensure() -> list[str]:
    """Starts those services that do not answer, and returns which, when they are ready. ServicesError."""
    if all(map(answers, SERVICES)):
        return []
    with locked():
        missing = [service for service in SERVICES if not answers(service)]
        if missing and systemd():
            units = [f"tinyo-{service}" for service in missing]
            done = subprocess.run(["systemctl", "start", *units], capture_output=True, text=True)
            if done.returncode != 0:
                raise ServicesError(f"systemd could not start the services: {done.stderr.strip()}")
        elif missing:
            _start(missing)
    return missing


@contextmanager
def locked() -> Iterator[None]:
    """One command at a time starts or stops services."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    with open(RUN / "services.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(services: list[str]) -> None:
    """Starts services side by side; when one does not become ready, none of them stays."""
    with ExitStack() as undo:
        waiting = {}
        for service in services:
            ready = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            path = RUN / f"{service}.ready"
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            undo.callback(path.unlink)
            process = _spawn(service, path)
            undo.push(lambda kind, *_, process=process: process.terminate() if kind else None)
            waiting[service] = (process, ready)
        deadline = time.monotonic() + PATIENCE
        for service, (process, ready) in waiting.items():
            _await(service, process, ready, deadline)


def _spawn(service: str, ready: Path) -> subprocess.Popen[bytes]:
    """Starts a service that outlives this command, and notes who it is."""
    program = Path(sys.executable).with_name(f"tinyo-{service}")
    with open(RUN / f"{service}.log", "ab") as log:
        try:
            process = subprocess.Popen(
                [program],
                env={**os.environ, "NOTIFY_SOCKET": str(ready)},
                cwd="/",
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise ServicesError(f"{program} cannot be started: {error.strerror}") from None
    (RUN / f"{service}.pid").write_text(f"{process.pid} {_started(process.pid)}\n")
    return process


def _await(service: str, process: subprocess.Popen[bytes], ready: socket.socket, deadline: float) -> None:
    """Returns when a service says that it is ready. ServicesError with its last words when it does not."""
    pidfd = os.pidfd_open(process.pid)
    try:
        while remaining := max(0.0, deadline - time.monotonic()):
            readable, _, _ = select.select([ready.fileno(), pidfd], [], [], remaining)
            if ready.fileno() in readable and b"READY=1" in ready.recv(4096).split(b"\n"):
                return
            if readable == [pidfd]:
                raise ServicesError(f"tinyo-{service} ended with code {process.wait()}{last_words(service)}")
    finally:
        os.close(pidfd)
    raise ServicesError(f"tinyo-{service} is not ready after {PATIENCE} s{last_words(service)}")


def last_words(service: str, lines: int = 10) -> str:
    """The end of a service's log, to be put behind a sentence."""
    log = RUN / f"{service}.log"
    said = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f"; the last lines of {log}:", *(f"  {line}" for line in said)])


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot: field 22 of proc_pid_stat(5); "" when there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def process(service: str) -> int:
    """Process id of a service that was started here and still runs, or 0."""
    with suppress(OSError, ValueError):
        pid, started = (RUN / f"{service}.pid").read_text().split()
        if _started(int(pid)) == started:
            return int(pid)
    return 0


def stop() -> list[str]:
    """Ends the services that run, node first, and returns which. Containers go on. ServicesError."""
    with locked():
        if systemd():
            subprocess.run(["systemctl", "stop", *(f"tinyo-{service}" for service in SERVICES)], check=True)
            return list(SERVICES)
        return [service for service in SERVICES if _stop(service)]


def _stop(service: str) -> bool:
    """Ends one service; False when it does not run."""
    if not (pid := process(service)):
        if answers(service):
            raise ServicesError(f"tinyo-{service} was not started by tinyo: end it where it was started")
        return False
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], PATIENCE)[0]:
            raise ServicesError(f"tinyo-{service} (process {pid}) still runs {PATIENCE} s after SIGTERM")
    finally:
        os.close(pidfd)
    (RUN / f"{service}.pid").unlink()
    return True
