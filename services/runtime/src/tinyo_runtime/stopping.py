"""How a process is asked to end before it is made to."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.container_pb2 import PHASE_STOPPING

from tinyo_runtime import pausing

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers


async def ask(containers: "Containers", container: "Container", grace: float) -> None:
    """Sends the stop signal of the image, and waits until the container has ended, or for `grace` seconds."""
    await wake(containers, container)
    process, ending = container.process, container.ending
    if not process or not ending or grace <= 0:
        return
    number = signal_number(containers.images.get(container.config.image_digest).config.stop_signal)
    if catches(process.pid, number):
        containers.changed(container, PHASE_STOPPING)
        process.kill(number)
        await asyncio.wait([ending], timeout=grace)


async def wake(containers: "Containers", container: "Container") -> None:
    """Lets it go on if it is paused, or it would not end."""
    await pausing.thaw(containers, container)


def signal_number(name: str) -> int:
    """Of "SIGTERM", "TERM", "15"; SIGTERM for what is none of these."""
    if name.isdecimal() and 0 < int(name) < signal.NSIG:
        return int(name)
    full = name if name.startswith("SIG") else f"SIG{name}"
    return int(getattr(signal, full, signal.SIGTERM)) if full.isalnum() else signal.SIGTERM


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or waits for it with sigwaitinfo(2) or signalfd(2). The first process
    of a pid namespace gets no other (pid_namespaces(7)), so there is no point in sending it and waiting."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigCgt:", "SigBlk:"))]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
