"""How the first command starts the services: as daemons that outlive it."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket
from subprocess import DEVNULL, Popen

from tinyo_ctl import access, startup
from tinyo_ctl.services import RUN, SERVICES, answers


def launch() -> list[str]:
    """Starts those services that do not answer, and returns which, when they are ready. ServicesError."""
    access.need_root()
    RUN.mkdir(mode=0o700, exist_ok=True)
    with startup.alone(), ExitStack() as stack:
        missing = [service for service in SERVICES if not answers(service)]
        if not startup.by_systemd(missing):
            for watch, ready in [start(service, stack) for service in missing]:
                said = b""
                while b"READY=1" not in said.split(b"\n"):
                    watch.wait()
                    said = ready.recv(4096)
    return missing


def start(service: str, stack: ExitStack) -> tuple[startup.Watch, socket]:
    """Starts a service, and gives the socket where it says READY=1 (sd_notify(3))."""
    address = RUN / f"{service}.ready"
    address.unlink(missing_ok=True)
    ready = stack.enter_context(socket(AF_UNIX, SOCK_DGRAM))
    ready.bind(str(address))
    stack.callback(address.unlink)
    program = Path(sys.executable).with_name(f"tinyo-{service}")
    environ = {**os.environ, "NOTIFY_SOCKET": str(address)}
    with startup.explained(program), open(RUN / f"{service}.log", "ab") as log:
        process = Popen(
            [program], env=environ, cwd="/", stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return stack.enter_context(startup.Watch(service, process, ready)), ready
