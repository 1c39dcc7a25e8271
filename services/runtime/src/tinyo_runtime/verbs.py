"""What can be done to a container besides starting and ending it: a signal, standing still, another name."""

import signal

from tinyo_runtime import failures, pausing, stopping
from tinyo_runtime.containers import Container, Containers

#: Those that the kernel obeys whether or not there is a handler (signal(7)).
ALWAYS_HEARD = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)


async def kill(containers: Containers, id: str, number: int, unheard: list[str]) -> None:
    """Sends a signal to the first process, which goes on to hear it if it is paused; also while somebody waits for it to
    stop. Notes the id when there is no handler. CONTAINER_NOT_RUNNING."""
    container = running(containers, id)
    assert container.process
    if number not in ALWAYS_HEARD and not stopping.catches(container.process.pid, number):
        unheard.append(id)
    container.process.kill(number)
    if container.state.paused:
        await pausing.thaw(containers, container)
        tell(containers, container)


async def pause(containers: Containers, id: str) -> None:
    """Lets none of its processes run any more. CONTAINER_NOT_RUNNING, CONTAINER_NOT_PAUSED."""
    async with containers.get(id).lock:
        container = running(containers, id)
        if container.state.paused:
            return
        await pausing.hold(containers.cgroups, id, container.config.spec.name)
        if not container.process or container.process.exited.done():  # what it had is about to be given back
            await pausing.release(containers.cgroups, id)
            raise failures.not_running(container.config.spec.name)
        container.state.paused = True
        tell(containers, container)


async def unpause(containers: Containers, id: str) -> None:
    """Undoes `pause`. CONTAINER_NOT_RUNNING."""
    async with containers.get(id).lock:
        container = running(containers, id)
        if container.state.paused:
            await pausing.thaw(containers, container)
            tell(containers, container)


async def rename(containers: Containers, id: str, name: str) -> None:
    """It is found by another name, at once."""
    container = containers.get(id)
    async with container.lock:
        for config in (container.config, container.state.config):
            config.spec.name = name
        containers.network.rename(container.state.address, name)
        containers.changed(container, container.state.phase)


def running(containers: Containers, id: str) -> Container:
    """The container, which has a process. CONTAINER_NOT_RUNNING."""
    container = containers.get(id)
    if not container.process:
        raise failures.not_running(container.config.spec.name)
    return container


def tell(containers: Containers, container: Container) -> None:
    """Whoever watches hears of it, unless it has ended: then that is what they hear of."""
    if container.process:
        containers.changed(container, container.state.phase)
