"""The services after their start: who they are, and how they end."""

import os
import select
import signal
import socket
import struct
from contextlib import suppress

from tinyo_ctl import systemd
from tinyo_ctl.failures import ServicesError
from tinyo_ctl.services import INSTANCE, RUN, SERVICES, answers
from tinyo_ctl.startup import PATIENCE, alone, started

#: struct ucred: pid, uid, gid.
CREDENTIALS = struct.Struct("3i")


def process(service: str) -> int:
    """Process id of a service that was started by a command and still runs, or 0."""
    with suppress(FileNotFoundError, ValueError):
        pid, since = (RUN / f"{service}.pid").read_text().split()
        return int(pid) if started(int(pid)) == since else 0
    return 0


def listener(service: str) -> int:
    """Process id of who listens on a service's socket, whoever started it (unix(7), SO_PEERCRED), or 0."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(RUN / f"{service}.sock")) != 0:
            return 0
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(credentials)[0])


def stop() -> list[str]:
    """Ends the services that run, node first, and returns which. Containers go on. ServicesError."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    with alone():
        if systemd.has_units(INSTANCE):
            running = [service for service in SERVICES if answers(service)]
            systemd.control("stop", SERVICES)
            return running
        return [service for service in SERVICES if _stop(service)]


def _stop(service: str) -> bool:
    """Ends one service; False when it does not run."""
    if not (pid := process(service)):
        if answers(service):
            raise ServicesError(f"tinyo-{service} was not started by tinyo: end it where it was started")
        return False
    pidfd = os.pidfd_open(pid)
    try:
        if process(service) != pid:  # it ended before the descriptor could hold on to it
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], PATIENCE)[0]:
            raise ServicesError(f"tinyo-{service} (process {pid}) still runs {PATIENCE} s after SIGTERM")
    finally:
        os.close(pidfd)
    (RUN / f"{service}.pid").unlink(missing_ok=True)
    return True
