"""How a process is asked to end before it is made to."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.container_pb2 import PHASE_STOPPING

from tinyo_runtime import pausing

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers

#: The number of rt_sigtimedwait(2).
SIGTIMEDWAIT = {"x86_64": "128", "aarch64": "137"}[os.uname().machine]
#: A number; a name; SIGRTMIN+0 to SIGRTMIN+30, or SIGRTMAX-0 to SIGRTMAX-30.
SIGNAL = re.compile(
    r"([0-9]|[1-5][0-9]|6[0-4])|(?:SIG)?(?:RT(MIN|MAX)((?<=MIN)\+(?:[12]?[0-9]|30)|(?<=MAX)-(?:[12]?[0-9]|30))?|([A-Z0-9]+))"
)


async def ask(containers: "Containers", container: "Container", grace: float) -> None:
    """Sends the stop signal of spec or image, and waits until the container has ended, or for `grace` seconds."""
    await wake(containers, container)
    process, ending = container.process, container.ending
    if not process or not ending or grace <= 0:
        return
    image = containers.images.get(container.config.image_digest)
    number = signal_number(container.config.spec.stop_signal or image.config.stop_signal)
    if catches(process.pid, number):
        containers.changed(container, PHASE_STOPPING)
        process.kill(number)
        await asyncio.wait([ending], timeout=grace)


async def wake(containers: "Containers", container: "Container") -> None:
    """Lets it go on if it is paused, or it would not end."""
    await pausing.thaw(containers, container)


def signal_number(name: str) -> int:
    """Of "SIGTERM", "TERM", "15", "SIGRTMIN+3"; SIGTERM for what is none of these, as an image may say anything."""
    match = SIGNAL.fullmatch(name.upper())
    if not match:
        return signal.SIGTERM
    number, real_time, offset, known = match.groups()
    if real_time:
        return int(signal.SIGRTMIN if real_time == "MIN" else signal.SIGRTMAX) + int(offset or 0)
    return int(number or signal.Signals.__members__.get(f"SIG{known}", signal.SIGTERM)) or signal.SIGTERM


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or has it blocked to read it, or waits for it. The first process of
    a pid namespace gets no other (pid_namespaces(7)), so there is no point in sending it and waiting."""
    try:
        return masked(pid, number) or waits(pid) or masked(pid, number)  # it may go to and fro meanwhile
    except (FileNotFoundError, ProcessLookupError):
        return False


def masked(pid: int, number: int) -> bool:
    """Whether a signal is caught or blocked."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigBlk:", "SigCgt:"))]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def waits(pid: int) -> bool:
    """Whether a process is in sigwait(3), as tini and dumb-init are: what it waits for does not look blocked then."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] == SIGTIMEDWAIT
