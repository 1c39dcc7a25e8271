"""The containers of this runtime, and what each has of the kernel while it runs.

A container is a folder (from `create` to `delete`) and, between `start` and its exit, an address,
published ports, a cgroup, and a process. What `start` takes is put on the container's `resources`
stack with the call that gives it back; the exit unwinds that stack, and so does a start that fails.
"""

import asyncio
import contextlib
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig, ContainerState
from tinyo.v1 import container_pb2 as v1

from tinyo_runtime import cgroups, failures, logs, options, records, rootfs, roots, sources, stopping, trash
from tinyo_runtime.changes import Changes
from tinyo_runtime.images import Image, ImageStore
from tinyo_runtime.network import Network
from tinyo_runtime.options import arguments
from tinyo_runtime.settings import Settings
from tinyo_runtime.spawnclient import Process, SpawnClient

#: Where programs are looked for when neither image nor Statefile says.
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Folders of a container for overlayfs.
WRITABLE = ("upper", "work")


@dataclass
class Container:
    """One container; `lock` is held by whatever changes it."""

    config: ContainerConfig
    folder: Path
    state: ContainerState
    interface: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: Process | None = None
    #: Done when the present or last process has ended and everything was given back.
    ending: asyncio.Future[None] | None = None
    log: logs.LogWriter | None = None
    #: Undoes what `start` took, last first.
    resources: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)


class Containers:
    """Every container of one instance."""

    def __init__(self, settings: Settings, images: ImageStore, network: Network) -> None:
        self.settings, self.images, self.network = settings, images, network
        self.cgroups = cgroups.Cgroups(settings.instance)
        self.run, self.folder = Path(settings.run), Path(settings.state)
        (self.run / "root").mkdir(parents=True, exist_ok=True)
        self.spawner = SpawnClient(self.run / "spawner.sock", self.run / "root", ready=settings.ready != "0")
        #: Deletes the files of containers that are gone.
        self.sweeper = ThreadPoolExecutor(1)
        self.all: dict[str, Container] = {}
        self.changes = Changes()

    def get(self, id: str) -> Container:
        """CONTAINER_NOT_FOUND when there is none."""
        if id not in self.all:
            raise failures.not_found(id)
        return self.all[id]

    async def create(self, config: ContainerConfig, *, start: bool) -> None:
        """Makes the folder. The same id again is the same container."""
        if config.id not in self.all:
            image, folder = self.images.get(config.image_digest), self.folder / "containers" / config.id
            for name in WRITABLE:  # there already after a reboot
                (folder / name).mkdir(parents=True, exist_ok=True)
            await roots.prepare(self.folder / "layers", image.layers, folder / "upper")
            container = Container(config, folder, ContainerState(config=config))
            self.all[config.id] = container
            self.changed(container, v1.PHASE_CREATED)
        if start:
            await self.start(config.id)

    async def start(self, id: str) -> None:
        """Gives the container an address, ports, a cgroup and a process; all of it or nothing."""
        container = self.get(id)
        async with container.lock, contextlib.AsyncExitStack() as resources:
            if container.process or id not in self.all:
                return
            spec, image = container.config.spec, self.images.get(container.config.image_digest)
            endpoint = await self.network.acquire(container.config)
            resources.push_async_callback(self.network.release, spec.name, endpoint)
            if spec.ports:
                await self.network.publish(spec.name, endpoint.address, spec.ports)
            resources.push_async_callback(self.cgroups.remove, id)
            self.cgroups.make(id)
            mounts = [*sources.prepare(container.folder, container.config, endpoint)] or spec.mounts
            with rootfs.opened(mounts) as opened, self.cgroups.opened(id) as joined:
                fds = [endpoint.netns, *joined, *(fd for _, fd, _ in opened)]
                plan = process_plan(spec, image) | {"id": id, "hostname": spec.name, "netns": 0}
                plan["cgroups"] = [fds.index(fd) for fd in joined]
                plan |= {"layers_dir": str(self.folder / "layers"), "layers": list(image.layers)}
                plan |= {name: f"../containers/{id}/{name}" for name in WRITABLE}
                plan["mounts"] = [(target, fds.index(fd), is_folder) for target, fd, is_folder in opened]
                async with options.completed(self, container, plan, fds, resources) as said:
                    with failures.explained(plan["argv"][0], spec):
                        process = await self.spawner.start(plan, fds, keep=True)
            container.resources, container.interface = resources.pop_all(), endpoint.interface
            addresses: dict[str, Any] = {"address": endpoint.address, "address6": endpoint.address6}
            container.state = ContainerState(config=container.config, **addresses, **said)
            container.state.started_at.GetCurrentTime()
            self.running(container, process)

    def running(self, container: Container, process: Process) -> None:
        """The container has this process from now on."""
        container.process, container.state.pid = process, process.pid
        container.ending = asyncio.ensure_future(self._end(container, process))
        logs.keep(self, container, process)
        self.changed(container, v1.PHASE_RUNNING)

    async def _end(self, container: Container, process: Process) -> None:
        """When the process has ended: gives everything back, and says how it ended."""
        exit = await process.exited
        try:
            await container.resources.aclose()
        finally:  # whatever could not be given back, this container no longer runs
            container.process, container.interface = None, ""
            container.state.pid, container.state.address, container.state.address6 = 0, "", ""
            container.state.finished_at.GetCurrentTime()
            container.state.exit.CopyFrom(exit)
            self.spawner.forget(process.id)
            self.changed(container, v1.PHASE_EXITED)

    async def stop(self, id: str, grace: float) -> None:
        """Asks the process to end, and after `grace` seconds makes it end."""
        container = self.get(id)
        async with container.lock:
            await stopping.ask(self, container, grace)
            await self._kill(container)

    async def delete(self, id: str) -> None:
        """Ends the process at once and takes everything away. One that does not exist is no error."""
        if container := self.all.get(id):
            async with container.lock:
                await self._kill(container)
                doomed = trash.moved(container.folder) or container.folder
                trash.watch(self.sweeper.submit(shutil.rmtree, doomed))
                records.remove(self.run, id)
                if self.all.pop(id, None):
                    self.changes.add(container.state, deleted=True)

    async def _kill(self, container: Container) -> None:
        if container.process and container.ending:
            container.process.kill(signal.SIGKILL)
            await stopping.wake(self, container)
            await container.ending

    def changed(self, container: Container, phase: v1.Phase.ValueType) -> None:
        """Writes the boot record and tells the watchers."""
        container.state.phase, container.state.sequence = phase, self.changes.sequence + 1
        records.save(self.run, container.state, container.interface)
        self.changes.add(container.state)

    async def close(self) -> None:
        """Ends our work. Where nothing runs, nothing of ours stays in the kernel; else all of it does."""
        idle = not self.spawner.processes
        await self.network.close(remove=idle)
        self.cgroups.close(remove=idle)
        self.sweeper.shutdown()


def process_plan(spec: v1.ContainerSpec, image: Image) -> dict[str, Any]:
    """What image and spec together say of the process, as in the spawner's plan."""
    argv = arguments.of(spec, image.config) or [*image.config.entrypoint, *(spec.command or image.config.cmd)]
    env = dict(entry.split("=", 1) for entry in (DEFAULT_PATH, *image.config.env) if "=" in entry)
    env |= spec.env
    cwd, user = spec.workdir or image.config.workdir or "/", spec.user or image.config.user
    return {"argv": argv, "env": [f"{name}={env[name]}" for name in env], "cwd": cwd, "user": user}
