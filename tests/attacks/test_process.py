"""Attacks by way of what a Statefile may ask for a container's process, each also with its one defence taken away."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.options import process
from tinyo_runtime.spawner import asked, syscalls

from tests.support.box import Box, InBox, line

#: Parameters that are the whole machine's, written as the kernel and as people have them.
OF_THE_HOST = (
    "kernel.panic",
    "vm.swappiness",
    "fs.file-max",
    "net/../kernel/panic",
    "net..kernel.panic",
    "kernel/panic",
)


@pytest.mark.parametrize("name", OF_THE_HOST)
def test_parameters_of_the_host_are_refused_by_the_spawner_too(box: InBox, name: str) -> None:
    """Whatever a node or runtime lets pass: its process is root of the host when it writes them."""

    async def check(box: Box) -> None:
        with pytest.raises(SpawnError) as caught:
            await box.start("c", "true", sysctls={name: "1"})
        assert (caught.value.step, caught.value.errno, caught.value.about) == ("set_sysctls", 1, name)

    box(check)


def test_without_that_they_would_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their own value, here."""
    value = Path("/proc/sys/kernel/panic").read_text().strip()
    plan: Any = SimpleNamespace(message={"sysctls": {"kernel.panic": value}})
    with pytest.raises(PermissionError):
        asked.set_sysctls(plan)
    monkeypatch.setattr(asked, "IPC", re.compile(".*"))
    asked.set_sysctls(plan)


def test_the_network_of_the_host_keeps_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are on the network that `asked` was loaded on, as a container with `network: host` is."""
    value = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    plan: Any = SimpleNamespace(message={"sysctls": {"net.ipv4.ip_forward": value}})
    with pytest.raises(PermissionError):
        asked.set_sysctls(plan)
    monkeypatch.setattr(asked, "HOSTS_NETWORK", 0)
    asked.set_sysctls(plan)


@pytest.fixture
def reaper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reaper that may be damaged, where the runtime looks for it."""
    path = tmp_path / "reaper"
    shutil.copy(process.REAPERS[0], path)
    monkeypatch.setattr(process, "REAPERS", (str(path),))
    yield path


@pytest.mark.parametrize("defended", [True, False])
def test_the_reaper_cannot_be_written_to(box: InBox, reaper: Path, defended: bool) -> None:
    """It is the host's, all containers share it, and root of one may open what its first process runs
    (CVE-2019-5736): it is executed from a mount that is read-only."""
    script = "busybox chmod 700 /proc/1/exe; busybox touch -d 2001-01-01 /proc/1/exe; echo done; cat"

    async def check(box: Box) -> None:
        init = process.reaper() if defended else syscalls.open_tree(syscalls.AT_FDCWD, str(reaper))
        before = os.stat(reaper)
        plan = box.plan("c", "sh", "-c", script, init=1)
        container = await box.client.start(plan, [box.netns, init], keep=True)
        os.close(init)
        assert await line(container.stdout) == "done"
        after = os.stat(reaper)
        changed = (before.st_mode, before.st_mtime) != (after.st_mode, after.st_mtime)
        assert changed == (not defended)
        container.kill(signal.SIGKILL)
        await container.exited

    box(check)


def test_with_a_reaper_nothing_else_of_the_host_stays(box: InBox) -> None:
    """Neither for the reaper nor for the command; and its descriptor is no folder to begin in (CVE-2024-21626)."""
    listed = "for fd in /proc/1/fd/* /proc/$$/fd/*; do readlink $fd; done"
    script = f"{listed} | grep -v -e ^pipe: -e ^anon_inode:; echo done; cat"

    async def check(box: Box) -> None:
        init = process.reaper()
        fds = [box.netns, init]
        with pytest.raises(SpawnError) as caught:
            plan = box.plan("a", "true", init=1, cwd="/proc/self/fd/4")
            await box.client.start(plan, fds, keep=True)
        assert (caught.value.step, caught.value.errno) == ("enter_cwd", 20)
        container = await box.client.start(box.plan("c", "sh", "-c", script, init=1), fds, keep=True)
        os.close(init)
        assert await line(container.stdout) == "done"

    box(check)


def test_limits_cannot_be_raised_inside(box: InBox) -> None:
    """Not by the first process, and not by those that join, though both come from one that could."""

    async def check(box: Box) -> None:
        ulimits = {"nofile": (64, 128), "core": (0, 0)}
        script = (
            "echo $(ulimit -n 129 || echo refused; ulimit -c 1 || echo refused; ulimit -n; ulimit -Hn); cat"
        )
        container = await box.start("c", "sh", "-c", script, ulimits=ulimits)
        joined = await box.join(container, "j", "sh", "-c", script, ulimits=ulimits)
        for each in (container, joined):
            assert await line(each.stdout) == "refused refused 64 128"
        container.kill(signal.SIGKILL)
        await asyncio.gather(container.exited, joined.exited)

    box(check)
