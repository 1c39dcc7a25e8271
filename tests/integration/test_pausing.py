"""Containers that stand still: in both kinds of cgroups, as far as this machine has them."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo_runtime import pausing
from tinyo_runtime.cgroups import Cgroups
from tinyo_runtime.errors import TinyoError

UNIFIED = next(
    (
        path
        for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
        if (path / "cgroup.stat").exists()
    ),
    None,
)


@pytest.fixture
def instance() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def cgroups(instance: str) -> Iterator[Cgroups]:
    made = Cgroups(instance)
    yield made
    made.close(remove=True)


@pytest.fixture
def unified(instance: str) -> Iterator[Cgroups]:
    """As on a machine that has cgroup v2 alone."""
    if not UNIFIED:
        pytest.skip("this machine has no cgroup v2")
    made = Cgroups(instance, [UNIFIED])
    yield made
    made.close(remove=True)


BUSY = ["sh", "-c", "while :; do :; done"]
#: The first thread ends, and another one goes on.
HEADLESS = [sys.executable, "-c", (
    "import ctypes, os, threading\n"
    "def work():\n while True: pass\n"
    "threading.Thread(target=work).start()\n"
    f"ctypes.CDLL(None).syscall({60 if os.uname().machine == 'x86_64' else 93}, 0)"
)]  # fmt: skip


def thread(process: subprocess.Popen[bytes]) -> Path:
    """The last of a process."""
    return max(Path(f"/proc/{process.pid}/task").iterdir(), key=lambda path: int(path.name))


def stat(process: subprocess.Popen[bytes]) -> list[str]:
    """Of that thread, from its state on (proc_pid_stat(5))."""
    return (thread(process) / "stat").read_text().rpartition(")")[2].split()


def wait(process: subprocess.Popen[bytes], states: str, command: list[str]) -> None:
    """Until it is in one of these states: "R" runs; v1 and v2 call it "D" and "S" when it stands still."""
    deadline = time.monotonic() + 20
    while stat(process)[0] not in states or (
        command == HEADLESS and ") Z" not in Path(f"/proc/{process.pid}/stat").read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run(cgroups: Cgroups, command: list[str]) -> None:
    """Pauses a container of one process that is busy."""

    async def use() -> None:
        with subprocess.Popen(command) as process:
            try:
                for root in cgroups.roots:
                    (root / "one/cgroup.procs").write_text(str(process.pid))
                wait(process, "R", command)
                was = (thread(process) / "cgroup").read_text()
                for _ in range(3):
                    async with pausing.paused(cgroups, "one", "web"):
                        wait(process, "DS", command)
                        before = stat(process)
                        await asyncio.sleep(0.05)
                        assert stat(process) == before, "no time passes"
                    wait(process, "R", command)
                assert (thread(process) / "cgroup").read_text() == was
                # Somebody wants it paused, whoever is killed meanwhile.
                assert not pausing.is_held(cgroups, "one")
                for _ in range(2):
                    await pausing.hold(cgroups, "one", "web")
                pausing.end_all(cgroups, ["one"])
                wait(process, "DS", command)
                assert pausing.is_held(cgroups, "one")
                await pausing.release(cgroups, "one")
                wait(process, "R", command)
                assert not pausing.is_held(cgroups, "one")
                # Whoever paused it was killed.
                await next(pausing._freezers(cgroups, "one")).stop()
                wait(process, "DS", command)
                pausing.end_all(cgroups)
                wait(process, "R", command)
                assert (thread(process) / "cgroup").read_text() == was
            finally:
                process.kill()
                process.wait()
                await cgroups.remove("one")

    for root in cgroups.roots:
        (root / "one").mkdir(exist_ok=True)
    asyncio.run(use())


@pytest.mark.parametrize("command", [BUSY, HEADLESS], ids=["busy", "headless"])
def test_the_container_stands_still(cgroups: Cgroups, command: list[str]) -> None:
    run(cgroups, command)


@pytest.mark.parametrize("command", [BUSY, HEADLESS], ids=["busy", "headless"])
def test_the_container_stands_still_in_cgroup_v2(unified: Cgroups, command: list[str]) -> None:
    run(unified, command)


def test_two_stand_still_at_the_same_time(cgroups: Cgroups) -> None:
    async def use() -> None:
        for id in ("one", "two"):
            cgroups.make(id)
        async with pausing.paused(cgroups, "one", "a"), pausing.paused(cgroups, "two", "b"):
            pass
        pausing.end_all(cgroups)
        for id in ("one", "two"):
            await cgroups.remove(id)

    asyncio.run(use())


def test_what_cannot_be_paused_is_said(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        async with pausing.paused(cgroups, "one", "web"):
            raise AssertionError

    monkeypatch.setattr(pausing, "_v1", lambda: iter(()))
    with pytest.raises(TinyoError, match="--no-pause") as raised:
        asyncio.run(use())
    assert raised.value.reason == "CONTAINER_NOT_PAUSED"


def test_one_that_does_not_stop_goes_on(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it waits for a disk that does not answer."""
    went_on = []

    class Slow(pausing._Own):
        async def stop(self) -> None:
            await asyncio.sleep(60)

        def go_on(self) -> None:
            went_on.append(True)

    async def use() -> None:
        async with pausing.paused(cgroups, "one", "web"):
            raise AssertionError

    monkeypatch.setattr(pausing, "_freezers", lambda *_: iter([Slow(Path("/"))]))
    monkeypatch.setattr(pausing, "PATIENCE", 0.01)
    with pytest.raises(TinyoError, match="did not stop") as raised:
        asyncio.run(use())
    assert raised.value.reason == "CONTAINER_NOT_PAUSED" and went_on
