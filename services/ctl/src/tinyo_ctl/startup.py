"""What can go wrong while services start: two commands at once, no program, one that ends or never gets ready."""

import fcntl
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from subprocess import Popen
from types import TracebackType
from typing import Self

from tinyo_ctl import systemd
from tinyo_ctl.failures import ServicesError
from tinyo_ctl.services import INSTANCE, RUN
from tinyo_ctl.tell import safe

#: Seconds for a service to say that it is ready.
PATIENCE = 30


@contextmanager
def alone() -> Iterator[None]:
    """One command at a time starts or stops services."""
    with open(RUN / "services.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def by_systemd(services: Sequence[str]) -> bool:
    """Has systemd start services, where it has their units, and says whether it did. ServicesError."""
    if not services or not systemd.has_units(INSTANCE):
        return False
    systemd.control("start", services)
    return True


@contextmanager
def explained(program: Path) -> Iterator[None]:
    """ServicesError when a program cannot be started."""
    try:
        yield
    except OSError as error:
        raise ServicesError(f"{program} cannot be started: {error.strerror}") from None


class Watch:
    """Over a service that starts: who it is is noted, and its start taken back when this is left with an error."""

    def __init__(self, service: str, process: Popen[bytes], ready: socket) -> None:
        self.service, self.process, self.ready = service, process, ready

    def __enter__(self) -> Self:
        pid = self.process.pid
        (RUN / f"{self.service}.pid").write_text(f"{pid} {started(pid)}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            self.process.terminate()
            self.process.wait(PATIENCE)

    def wait(self) -> None:
        """Returns when it has said something. ServicesError with its last words when it ends, or says nothing."""
        ending = os.pidfd_open(self.process.pid)
        try:
            readable = select.select([self.ready.fileno(), ending], [], [], PATIENCE)[0]
        finally:
            os.close(ending)
        if self.ready.fileno() in readable:
            return
        if readable:
            reason = f"ended with code {self.process.wait()} before it was ready"
        else:
            reason = f"was not ready within {PATIENCE} s"
        raise ServicesError(f"tinyo-{self.service} {reason}{last_words(self.service)}")


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
