"""After a restart of the runtime: what the last one left, compared with what the kernel has.

Sources: the boot records (run folder), the spawner (which outlived us, or is new), and the kernel
itself. A container whose process lives is taken over as it is; one that ended meanwhile gets its exit;
a process that no record knows was started by a call that nobody will hear the answer of, and ends.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.v1 import container_pb2 as v1

from tinyo_runtime import oom, pausing, records, trash
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.health import watch as health
from tinyo_runtime.network import Adopted
from tinyo_runtime.options import limits
from tinyo_runtime.spawnclient import Process


class Earlier:
    """The containers of the last runtime, which `containers` has from now on."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._records = list(records.load(containers.run))
        trash.empty(containers.folder)
        states = [record.state for record in self._records]
        for state in states:
            state.paused = state.paused and pausing.is_held(containers.cgroups, state.config.id)
        pausing.end_all(containers.cgroups, [state.config.id for state in states if state.paused])
        for record in self._records:
            id = record.state.config.id
            folder = containers.folder / "containers" / id
            containers.all[id] = Container(record.state.config, folder, record.state, record.interface)

    def living(self) -> Iterator[Adopted]:
        """What the network has to know of those that lived when the last runtime ended."""
        return map(adopted, self._live())

    def resume(self) -> None:
        """Takes over those that lived, and ends what nobody knows; the spawner and the network are open."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._containers.spawner.keeper.reap)
        for record in self._live():
            resume(self._containers, record)
        for id, process in list(self._containers.spawner.processes.items()):
            if id not in self._containers.all or not self._containers.all[id].process:
                self._containers.spawner.keeper.end(process)

    def _live(self) -> list[BootRecord]:
        phases = (v1.PHASE_RUNNING, v1.PHASE_STOPPING)
        return [record for record in self._records if record.state.phase in phases]


def adopted(record: BootRecord) -> Adopted:
    """What the network has to know of a container."""
    config = record.state.config
    ports = list(config.spec.ports)
    state, interface = record.state, record.interface
    return Adopted(config.spec.name, state.address, interface, ports, config, state.address6)


def resume(containers: Containers, record: BootRecord) -> None:
    """Takes over one container that ran: from the spawner, or from the kernel when that one died too."""
    container = containers.all[record.state.config.id]
    name, endpoint = record.state.config.spec.name, containers.network.endpoint(adopted(record))
    container.resources.push_async_callback(containers.network.release, name, endpoint)
    container.resources.push_async_callback(containers.cgroups.remove, record.state.config.id)
    limits.resume(containers.cgroups, record.state.config.id, container.resources)
    oom.watch(containers, container, container.resources)
    container.resources.push_async_callback(pausing.thaw, containers, container)
    health.resume(containers, container)
    process = containers.spawner.processes.get(record.state.config.id)
    if not process and records.start_ticks(record.state.pid) == record.start_ticks:
        process = take_orphan(containers, record)
    if not process:
        process = Process(container.config.id, 0, -1, *pipes_to_nothing())
        containers.spawner.processes[process.id] = process
        process.exited = asyncio.get_running_loop().create_future()
        process.exited.set_result(v1.ExitStatus(code=-1))
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
            process = containers.spawner.hold(container_id, record.state.pid, pidfd, *pipes_to_nothing())
            containers.spawner.keeper.adopt(process)
            return process
        os.close(pidfd)
    return None
