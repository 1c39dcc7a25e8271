"""Starts the services of this machine when they do not answer.

systemd starts them where it has their units; elsewhere they are started here, as daemons that say READY=1 to
$NOTIFY_SOCKET (sd_notify(3)). A lock makes two commands that come first start them once.
"""

import fcntl
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tinyo.node.v1.node_pb2_grpc import NodeServiceStub

from tinyo_ctl import Failure, ServicesError, UsageError, systemd
from tinyo_ctl.client import connect
from tinyo_ctl.render import safe

#: In the order in which they are stopped.
SERVICES = ("node", "runtime")
INSTANCE = os.environ.get("TINYO_INSTANCE", "tinyo")
RUN = Path("/run", INSTANCE)
#: Seconds for a service to say that it is ready.
PATIENCE = 30


@contextmanager
def node(host: str) -> Iterator[NodeServiceStub]:
    """The node at `host`; without one this machine's, whose services are started when they do not answer."""
    if not host:
        ensure()
    with connect(host or address()) as calls:
        yield calls


def need_access(host: str) -> None:
    """Failure unless there can be a node to talk to: at `host`, at a socket that is open to this user, or as root."""
    if host and not host.startswith("unix:"):
        raise UsageError(f"{host!r} is no host: write unix:PATH, the path of a node's socket")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", INSTANCE):
        raise UsageError(f"TINYO_INSTANCE={INSTANCE!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    if not host and not answers("node"):
        need_root()


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


def ensure() -> list[str]:
    """Starts those services that do not answer, and returns which, when they are ready. ServicesError."""
    if all(map(answers, SERVICES)):
        return []
    need_root()
    with locked():
        missing = [service for service in SERVICES if not answers(service)]
        if missing and systemd.has_units(INSTANCE):
            systemd.control("start", missing)
        else:
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
        waiting = []
        for service in services:
            address = RUN / f"{service}.ready"
            address.unlink(missing_ok=True)
            ready = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            ready.bind(str(address))
            undo.callback(address.unlink)
            process = _spawn(service, address)
            undo.push(lambda failed, *_, process=process: _end(process) if failed else None)
            waiting.append((service, process, ready))
        for service, process, ready in waiting:
            _await(service, process, ready)


def _spawn(service: str, ready: Path) -> subprocess.Popen[bytes]:
    """Starts a service that outlives this command, and notes who it is."""
    program = Path(sys.executable).with_name(f"tinyo-{service}")
    environment = {**os.environ, "NOTIFY_SOCKET": str(ready)}
    try:
        with open(RUN / f"{service}.log", "ab") as log:
            process = subprocess.Popen(
                [program],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise ServicesError(f"{program} cannot be started: {error.strerror}") from None
    (RUN / f"{service}.pid").write_text(f"{process.pid} {started(process.pid)}\n")
    return process


def _await(service: str, process: subprocess.Popen[bytes], ready: socket.socket) -> None:
    """Returns when a service says that it is ready. ServicesError with its last words when it does not."""
    ending = os.pidfd_open(process.pid)
    try:
        while readable := select.select([ready.fileno(), ending], [], [], PATIENCE)[0]:
            if readable == [ending]:
                reason = f"ended with code {process.wait()} before it was ready"
                break
            if b"READY=1" in ready.recv(4096).split(b"\n"):
                return
        else:
            reason = f"was not ready within {PATIENCE} s"
    finally:
        os.close(ending)
    raise ServicesError(f"tinyo-{service} {reason}{last_words(service)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Takes back the start of a service."""
    process.terminate()
    process.wait(PATIENCE)


def last_words(service: str, lines: int = 10) -> str:
    """The end of a service's log, to be put behind a sentence."""
    log = RUN / f"{service}.log"
    said = [safe(line) for line in log.read_text(errors="replace").splitlines()[-lines:]]
    return "\n  ".join([f"; the last lines of {log}:", *said])


def started(pid: int) -> str:
    """Start time of a process in clock ticks since boot (proc_pid_stat(5), field 22); "" when there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
