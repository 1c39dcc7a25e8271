"""The containers of this runtime, and what each has of the kernel while it runs.

A container is a folder (from `create` to `delete`) and, between `start` and its exit, an address,
published ports, a cgroup, and a process. What `start` takes is put on the container's `resources`
stack with the call that gives it back; the exit unwinds that stack, and so does a start that fails.
"""

import asyncio
import contextlib
import errno
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig, ContainerState, WatchResponse
from tinyo.v1 import container_pb2 as v1

from tinyo_runtime import records, rootfs
from tinyo_runtime.cgroups import Cgroups
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore
from tinyo_runtime.logs import LogWriter
from tinyo_runtime.network import Network
from tinyo_runtime.settings import Settings
from tinyo_runtime.spawnclient import Process, SpawnClient, SpawnError

#: Where programs are looked for when neither image nor Statefile says.
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Changes that are kept for watchers that come back.
CHANGES_KEPT = 4096


@dataclass
class Container:
    """One container; `lock` is held by whatever changes it."""

    state: ContainerState
    folder: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: Process | None = None
    interface: str = ""
    log: LogWriter | None = None
    #: Undoes what `start` took, last first.
    resources: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    #: Set while there is no process.
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def config(self) -> ContainerConfig:
        return self.state.config


class Containers:
    """Every container of one instance."""

    def __init__(self, settings: Settings, images: ImageStore, network: Network) -> None:
        self.images = images
        self.network = network
        self.cgroups = Cgroups(settings.instance)
        self.run, self.folder = Path(settings.run), Path(settings.state) / "containers"
        self.spawner = SpawnClient(self.run / "spawner.sock", self.run / "root", ready=settings.ready != "0")
        self.all: dict[str, Container] = {}
        self.changes = Changes()
        self.layers = Path(settings.state) / "layers"
        for folder in (self.folder, self.layers, self.run / "root"):
            folder.mkdir(parents=True, exist_ok=True)
        self._endings: set[asyncio.Future[None]] = set()

    def get(self, id: str) -> Container:
        """CONTAINER_NOT_FOUND when there is none."""
        if container := self.all.get(id):
            return container
        raise TinyoError(
            grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", f"there is no container {id!r}", {"name": id}
        )

    async def create(self, config: ContainerConfig) -> Container:
        """Makes the folder. The same id again is the same container."""
        if config.id not in self.all:
            self.images.get(config.image_digest)
            folder = self.folder / config.id
            rootfs.make(folder)
            container = Container(ContainerState(config=config, phase=v1.PHASE_CREATED), folder)
            container.ended.set()
            self.all[config.id] = container
            self.changed(container)
        return self.all[config.id]

    async def start(self, container: Container) -> None:
        """Gives the container an address, ports, a cgroup and a process; all of it or nothing."""
        async with container.lock:
            if container.process or container.config.id not in self.all:
                return
            config, id = container.config, container.config.id
            image = self.images.get(config.image_digest)
            async with contextlib.AsyncExitStack() as resources:
                endpoint = await self.network.acquire()
                resources.push_async_callback(self.network.release, config.spec.name, endpoint)
                await self.network.publish(config.spec.name, endpoint.address, config.spec.ports)
                cgroups = self.cgroups.make(id)
                resources.callback(self.cgroups.remove, id)
                describing = rootfs.describe(container.folder, config.spec, endpoint.address)
                with rootfs.opened([*config.spec.mounts, *describing]) as mounts:
                    fds = [endpoint.netns, *cgroups, *(fd for _, fd, _ in mounts)]
                    plan = process_plan(config.spec, image) | {
                        "id": id,
                        "hostname": config.spec.name,
                        "netns": 0,
                        "layers_dir": str(self.layers),
                        "cgroups": list(range(1, 1 + len(cgroups))),
                        "layers": list(image.layers),
                        "upper": f"../containers/{id}/upper",
                        "work": f"../containers/{id}/work",
                        "mounts": [
                            (target, 1 + len(cgroups) + index, folder)
                            for index, (target, _, folder) in enumerate(mounts)
                        ],
                    }
                    try:
                        process = await self.spawner.start(plan, fds, keep=True)
                    except SpawnError as error:
                        raise explain(error, plan["argv"][0], config.spec) from error
                    finally:
                        for fd in cgroups:
                            os.close(fd)
                container.resources = resources.pop_all()
            container.interface = endpoint.interface
            container.state.address = endpoint.address
            container.state.started_at.GetCurrentTime()
            container.state.ClearField("exit")
            container.state.ClearField("finished_at")
            self.running(container, process)

    def running(self, container: Container, process: Process) -> None:
        """The container has this process from now on."""
        container.process = process
        container.log = LogWriter(process, str(container.folder / "log"))
        container.ended.clear()
        container.state.pid = process.pid
        self._set_phase(container, v1.PHASE_RUNNING)
        ending = asyncio.ensure_future(self._end(container, process))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end(self, container: Container, process: Process) -> None:
        """When the process has ended: reads what is left in its pipes, gives everything back, says how."""
        exit = await process.exited
        assert container.log
        with contextlib.suppress(TimeoutError):  # something outside of the container holds a pipe
            await asyncio.wait_for(container.log.ended.wait(), 1)
        container.log.close()
        await container.resources.aclose()
        container.process, container.log, container.interface = None, None, ""
        container.state.pid, container.state.address = 0, ""
        container.state.finished_at.GetCurrentTime()
        container.state.exit.CopyFrom(v1.ExitStatus(code=exit.code, signal=exit.signal))
        self._set_phase(container, v1.PHASE_EXITED)
        self.spawner.forget(container.config.id)
        container.ended.set()

    async def stop(self, container: Container, grace: float) -> None:
        """Asks the process to end, and after `grace` seconds makes it end."""
        async with container.lock:
            if not container.process:
                return
            stop_signal = self._stop_signal(container)
            if grace > 0 and catches(container.process.pid, stop_signal):
                self._set_phase(container, v1.PHASE_STOPPING)
                container.process.kill(stop_signal)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(container.ended.wait(), grace)
            if container.process:
                container.process.kill(signal.SIGKILL)
            await container.ended.wait()

    def _stop_signal(self, container: Container) -> int:
        name = self.images.get(container.config.image_digest).config.stop_signal or "SIGTERM"
        if name.isdecimal() and 0 < int(name) < signal.NSIG:
            return int(name)
        full = name if name.startswith("SIG") else f"SIG{name}"
        return int(getattr(signal, full, signal.SIGTERM)) if full.isalnum() else signal.SIGTERM

    async def delete(self, container: Container) -> None:
        """Ends the process at once and takes everything away."""
        await self.stop(container, grace=0)
        async with container.lock:
            if self.all.pop(container.config.id, None):
                await asyncio.to_thread(rootfs.remove, container.folder, self.folder.parent / "trash")
                records.remove(self.run, container.config.id)
                self.changes.add(WatchResponse(state=container.state, deleted=True))

    async def close(self) -> None:
        """Ends our work. Where nothing runs, nothing of ours stays in the kernel; else all of it does."""
        idle = not self.spawner.processes
        self.spawner.close()
        await self.network.close(remove=idle)
        if idle:
            self.cgroups.close()

    def _set_phase(self, container: Container, phase: v1.Phase.ValueType) -> None:
        container.state.phase = phase
        self.changed(container)

    def changed(self, container: Container) -> None:
        """Writes the boot record and tells the watchers."""
        container.state.sequence = self.changes.sequence + 1
        records.save(self.run, container.state, container.interface)
        self.changes.add(WatchResponse(state=container.state))


class Changes:
    """The latest changes, numbered. Numbers begin with the clock's microseconds, so that they never go
    back across restarts and a watcher of an earlier runtime notices that it missed something."""

    def __init__(self) -> None:
        now = Timestamp()
        now.GetCurrentTime()
        self.sequence = now.ToMicroseconds()
        self._kept: deque[WatchResponse] = deque(maxlen=CHANGES_KEPT)
        self._added = asyncio.Event()

    def add(self, change: WatchResponse) -> None:
        """Numbers a change, copies it, and wakes the watchers."""
        self.sequence += 1
        kept = WatchResponse(sequence=self.sequence)
        kept.MergeFrom(change)
        self._kept.append(kept)
        self._added.set()
        self._added = asyncio.Event()

    async def watch(self, after: int) -> AsyncIterator[WatchResponse]:
        """Every change after that number, for ever. OUT_OF_RANGE when some are no longer kept."""
        while True:
            first = self.sequence - len(self._kept)
            if not first <= after <= self.sequence:
                raise TinyoError(
                    grpc.StatusCode.OUT_OF_RANGE,
                    "EVENTS_GONE",
                    f"changes after {after} are not kept: list, then watch",
                    {"oldest": str(first)},
                )
            added = self._added
            for change in list(self._kept)[after - first :]:
                after = change.sequence
                yield change
            if after == self.sequence:
                await added.wait()


def process_plan(spec: v1.ContainerSpec, image: Image) -> dict[str, Any]:
    """What image and spec together say of the process, as in the spawner's plan."""
    argv = [*image.config.entrypoint, *(spec.command or image.config.cmd)]
    if not argv:
        raise TinyoError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "COMMAND_NOT_FOUND",
            "the image has no command: say `command` in the Statefile",
            {"command": ""},
        )
    env = dict(entry.split("=", 1) for entry in (DEFAULT_PATH, *image.config.env) if "=" in entry)
    env |= spec.env
    return {
        "argv": argv,
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": spec.workdir or image.config.workdir or "/",
        "user": spec.user or image.config.user,
    }


def explain(error: SpawnError, program: str, spec: v1.ContainerSpec) -> TinyoError:
    """A failed step in the user's words, with the field of the spec that is to blame if one is."""
    failed = grpc.StatusCode.FAILED_PRECONDITION
    command = "command" if spec.command else ""
    if error.step == "execute" and error.errno == errno.ENOENT:
        message = f"command {program!r} was not found in the image"
        return TinyoError(failed, "COMMAND_NOT_FOUND", message, {"command": program}, command)
    if error.step == "execute" and error.errno in (errno.EACCES, errno.ENOEXEC):
        message = f"command {program!r} cannot be executed: {os.strerror(error.errno)}"
        return TinyoError(failed, "COMMAND_NOT_EXECUTABLE", message, {"command": program}, command)
    what = {"step": error.step, "errno": str(error.errno), "object": error.about}
    reason = f"{os.strerror(error.errno)}: {error.about}" if error.errno else error.about
    message = f"the container could not {error.step.replace('_', ' ')}: {reason}"
    if error.step == "enter_cwd" and spec.workdir:
        message = f"the working directory {spec.workdir!r} cannot be entered: {os.strerror(error.errno)}"
        return TinyoError(failed, "START_FAILED", message, what, "workdir")
    if error.step == "drop_privileges" and error.about == spec.user:
        message = f"the image knows no user or group {spec.user!r}"
        return TinyoError(failed, "START_FAILED", message, what, "user")
    return TinyoError(grpc.StatusCode.INTERNAL, "START_FAILED", message, what)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal. The first process of a pid namespace gets no other
    (pid_namespaces(7)), so there is no point in sending it and waiting."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
