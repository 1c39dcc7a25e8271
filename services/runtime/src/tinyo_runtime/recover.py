"""After a restart of the runtime: what the last one left, compared with what the kernel has.

Sources: the boot records (run folder), the spawner (which outlived us, or is new), and the kernel
itself. A container whose process lives is taken over as it is; one that ended meanwhile gets its exit;
a process that no record knows was started by a call that nobody will hear the answer of, and ends.
"""

import asyncio
import contextlib
import os
import shutil
import signal

from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.v1 import container_pb2 as v1

from tinyo_runtime import records
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.network import Adopted
from tinyo_runtime.spawnclient import Exit, Process


async def recover(containers: Containers) -> None:
    """Brings `containers` to what is, and the network with it."""
    shutil.rmtree(containers.folder.parent / "trash", ignore_errors=True)
    found = list(records.load(containers.run))
    for record in found:
        id = record.state.config.id
        container = Container(record.state, containers.folder / id, interface=record.interface)
        container.ended.set()
        containers.all[id] = container
    await containers.spawner.open()
    live = [record for record in found if record.state.phase in (v1.PHASE_RUNNING, v1.PHASE_STOPPING)]
    await containers.network.open([adopted(record) for record in live])
    for record in live:
        resume(containers, record)
    for id, process in list(containers.spawner.processes.items()):
        if id not in containers.all or not containers.all[id].process:
            process.kill(signal.SIGKILL)


def adopted(record: BootRecord) -> Adopted:
    """What the network has to know of a container that lived when the last runtime ended."""
    spec = record.state.config.spec
    return Adopted(spec.name, record.state.address, record.interface, list(spec.ports))


def resume(containers: Containers, record: BootRecord) -> None:
    """Takes over one container that ran: from the spawner, or from the kernel when that one died too."""
    container = containers.all[record.state.config.id]
    name, endpoint = record.state.config.spec.name, containers.network.endpoint(adopted(record))
    container.resources.push_async_callback(containers.network.release, name, endpoint)
    container.resources.callback(containers.cgroups.remove, record.state.config.id)
    process = containers.spawner.processes.get(record.state.config.id)
    if not process and records.start_ticks(record.state.pid) == record.start_ticks:
        process = take_orphan(containers, record)
    if not process:
        process = Process(container.config.id, 0, -1, *pipes_to_nothing(), exited=asyncio.Future())
        process.exited.set_result(Exit(-1, 0))
    containers.running(container, process)


def pipes_to_nothing() -> tuple[int, int, int]:
    """In place of pipes that were lost: everything goes in, and the end comes out."""
    stdin, stdout, stderr = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    for unused in (stdin[0], stdout[1], stderr[1]):
        os.close(unused)
    return stdin[1], stdout[0], stderr[0]


def take_orphan(containers: Containers, record: BootRecord) -> Process | None:
    """A process whose spawner and runtime both died: its pipes are lost, its life is not."""
    container_id = record.state.config.id
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(record.state.pid)
        if records.start_ticks(record.state.pid) == record.start_ticks:  # it was this one that we opened
            process = Process(
                container_id, record.state.pid, pidfd, *pipes_to_nothing(), exited=asyncio.Future()
            )
            containers.spawner.adopt(process)
            return process
        os.close(pidfd)
    return None
