"""Checks containers again and again while they run, and tells what came of it.

Each running container that has a check has a task here, which sleeps nearly always. What it finds is part of the
container's state, and so of its boot record: a runtime that comes after this one goes on from there.
"""

import asyncio
import logging
import os
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tinyo.v1 import health_pb2 as v1
from tinyo.v1.container_pb2 import PHASE_RUNNING

from tinyo_runtime import records
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.health import connections, own, programs, verdict

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers
    from tinyo_runtime.options import Start
    from tinyo_runtime.spawnclient import Process

log = logging.getLogger(__name__)

_TICKS = os.sysconf("SC_CLK_TCK")


async def part(start: "Start") -> None:
    """Has the container checked that is started."""
    if not start.joins and (check := check_of(start.containers, start.container)):
        start.said["health"] = v1.HealthStatus(state=v1.HEALTH_STATE_STARTING)
        first = check.start_interval_ms / 1000
        begin(start.containers, start.container, check, first, start.resources)


def resume(containers: "Containers", container: "Container") -> None:
    """The same for one that ran before this runtime did. Not all of them at once: they would be checked together for ever."""
    if check := check_of(containers, container):
        if not container.state.HasField("health"):
            container.state.health.state = v1.HEALTH_STATE_STARTING
        starting = container.state.health.state == v1.HEALTH_STATE_STARTING
        first = random.uniform(0, (check.start_interval_ms if starting else check.interval_ms) / 1000)
        begin(containers, container, check, first, container.resources)


def check_of(containers: "Containers", container: "Container") -> v1.Health | None:
    """What is done: as its spec says, or as its image does."""
    config = container.config
    if not config.spec.HasField("health"):
        return own.read(containers.images, config.image_digest)
    if config.spec.health.none:
        return None
    check = v1.Health()
    check.CopyFrom(config.spec.health)
    return verdict.complete(check)


def begin(
    containers: "Containers",
    container: "Container",
    check: v1.Health,
    first: float,
    resources: AsyncExitStack,
) -> None:
    """Checks from now on, for the first time after so many seconds, until the resources are given back."""
    task = asyncio.ensure_future(_watch(containers, container, check, first))

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    resources.push_async_callback(end)


def _goes(container: "Container") -> bool:
    """Whether there is something to check: one that is paused answers nobody."""
    return container.state.phase == PHASE_RUNNING and not container.state.paused


async def _watch(containers: "Containers", container: "Container", check: v1.Health, pause: float) -> None:
    """Check after check, until it is cancelled."""
    told, born = None, 0.0
    while True:
        await asyncio.sleep(pause)
        process, status = container.process, container.state.health
        if not process or not _goes(container):
            continue
        told = told or verdict.Told(status, time.monotonic() - verdict.PATIENCE)
        born = born or birth(process)
        result = await checked(containers, container, process, check)
        if not _goes(container):
            continue
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - born
        verdict.judge(status, result, check, age)
        pause = verdict.pause(status, check, age)
        if told.is_news(status, now := time.monotonic()):
            try:
                containers.changed(container, container.state.phase)
                told.remember(status, now)
            except OSError:  # the boot record cannot be written: it is tried again after the next check
                log.exception("%s", container.config.spec.name)


async def checked(
    containers: "Containers", container: "Container", process: "Process", check: v1.Health
) -> v1.HealthResult:
    """Checks once. Whatever goes wrong is the container's failure."""
    result, began = v1.HealthResult(), time.monotonic()
    result.began_at.GetCurrentTime()
    try:
        async with asyncio.timeout(check.timeout_ms / 1000):
            code, output = await passed(containers, container, process, check)
        result.passed = not code if check.HasField("exec") else True
    except TimeoutError:
        code, output = None, f"not done in {check.timeout_ms} ms".encode()
    except connections.Failed as error:
        code, output = error.code, error.output
    except programs.TooMuch:
        code, output = None, f"it wrote more than {programs.MOST} bytes".encode()
    except TinyoError as error:
        code, output = None, error.message.encode()
    except OSError as error:
        code, output = None, (error.strerror or str(error)).encode()
    except Exception as error:
        log.exception("a check of %s", container.config.spec.name)
        code, output = None, f"it could not be checked: {type(error).__name__}".encode()
    if code is not None:
        result.code = code
    result.output = verdict.text(output)
    result.duration_ms = round((time.monotonic() - began) * 1000)
    return result


async def passed(
    containers: "Containers", container: "Container", process: "Process", check: v1.Health
) -> tuple[int | None, bytes]:
    """Exit code or status, and output, of a check that was made."""
    match check.WhichOneof("check"):
        case "http":
            return await connections.http(process, container.state.address, check.http)
        case "tcp":
            return None, await connections.tcp(process, container.state.address, check.tcp.port)
    return await programs.run(containers, container, check.exec.command)


def birth(process: "Process") -> float:
    """When a process was started, in seconds of CLOCK_BOOTTIME, which nobody sets and which was there before us."""
    return records.start_ticks(process.pid) / _TICKS
