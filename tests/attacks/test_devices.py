"""Reaching devices of the host by nodes that got into a container: the cgroup refuses, whoever asks.

The device is the kernel's log (/dev/kmsg, 1:11): every machine has it, and root may write to it.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo_runtime.cgroups import Cgroups
from tinyo_runtime.devices import nodes, rules

from tests.support.box import Box, InBox

LOG = (1, 11)
#: Of a disk: the driver of loop devices, which answers ENXIO or opens it.
DISK = (7, 0)


@pytest.fixture(params=["as the machine is", "v2"])
def cgroups(request: pytest.FixtureRequest) -> Iterator[Cgroups]:
    """A container's cgroup, not restricted yet; also in the tree of v2 that a machine with v1 has beside it."""
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    v2 = [Path(line[4]) for line in fields if line[line.index("-") + 1] == "cgroup2"]
    made = Cgroups(f"t{secrets.token_hex(4)}", v2[:1] if request.param == "v2" else ())
    made.make("c")
    yield made
    asyncio.run(made.remove("c"))
    made.close(remove=True)


def restrict(cgroups: Cgroups, *more: rules.Rule) -> None:
    for root in cgroups.roots:
        rules.restrict(root / "c", (*rules.DEFAULT, *more))


def as_root_in_it(cgroups: Cgroups, *, make: Path | None = None, open: Path, flags: int) -> str:
    """What the whole root of the host is told that only joined the cgroup: "" or the error, of making a node and
    opening one."""
    answers, answer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            with cgroups.opened("c") as joined:
                for fd in joined:
                    os.write(fd, b"0")
            if make:
                os.mknod(make, stat.S_IFBLK | 0o600, os.makedev(*DISK))
            os.close(os.open(open, flags | os.O_NONBLOCK))
        except OSError as error:
            os.write(answer, (error.strerror or "").encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(answer)
    with os.fdopen(answers) as said:
        return said.read()


@pytest.mark.parametrize("defended", [True, False])
def test_a_node_that_is_mounted_from_the_host_opens_nothing(
    box: InBox, cgroups: Cgroups, tmp_path: Path, defended: bool
) -> None:
    os.mknod(tmp_path / "log", stat.S_IFCHR | 0o666, os.makedev(*LOG))

    async def check(box: Box) -> None:
        if defended:
            restrict(cgroups)
        fd = nodes.opened(str(tmp_path / "log"))
        with cgroups.opened("c") as joined:
            fds = [box.netns, fd, *joined]
            plan = box.plan("a", "sh", "-c", "echo tinyo: an attack of the tests > /dev/log")
            plan |= {"mounts": [("/dev/log", 1, False)], "cgroups": [fds.index(fd) for fd in joined]}
            process = await box.client.start(plan, fds, keep=True)
        os.close(fd)
        assert (await asyncio.wait_for(process.exited, 20)).code == (1 if defended else 0)
        said = os.read(process.stderr, 1000).decode()
        assert ("Operation not permitted" in said) == defended

    box(check)


@pytest.mark.parametrize("defended", [True, False])
def test_a_node_of_a_disk_that_was_made_opens_nothing(
    cgroups: Cgroups, tmp_path: Path, defended: bool
) -> None:
    """With CAP_MKNOD and all others."""
    if defended:
        restrict(cgroups)
    said = as_root_in_it(cgroups, make=tmp_path / "disk", open=tmp_path / "disk", flags=os.O_RDONLY)
    assert (tmp_path / "disk").is_block_device()
    assert (said == "Operation not permitted") == defended


def test_only_what_was_allowed_of_a_device_can_be_done(cgroups: Cgroups, tmp_path: Path) -> None:
    os.mknod(tmp_path / "log", stat.S_IFCHR | 0o600, os.makedev(*LOG))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(*LOG))  # the same numbers, of the other kind
    restrict(cgroups, rules.Rule("c", *LOG, "w"))
    answers = {
        (name, flags): as_root_in_it(cgroups, open=tmp_path / name, flags=flags)
        for name in ("log", "disk")
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
    }
    refused = "Operation not permitted"
    assert answers == {
        ("log", os.O_RDONLY): refused,
        ("log", os.O_WRONLY): "",
        ("log", os.O_RDWR): refused,
        ("disk", os.O_RDONLY): refused,
        ("disk", os.O_WRONLY): refused,
        ("disk", os.O_RDWR): refused,
    }


def test_a_node_of_the_host_keeps_its_mode_and_owner(box: InBox, tmp_path: Path) -> None:
    """Root of a container has CAP_CHOWN and CAP_FOWNER: with a mount that can be written to, everybody on the host
    could use the device afterwards."""
    log = tmp_path / "log"
    os.mknod(log, stat.S_IFCHR | 0o600, os.makedev(*LOG))

    async def attack(box: Box, attributes: int) -> str:
        fd = nodes.opened(str(log), attributes)
        script = (
            "busybox chmod 666 /dev/log; busybox chown 7 /dev/log; exec 2>&1; echo > /dev/log && echo usable"
        )
        plan = box.plan("a", "sh", "-c", script, mounts=[("/dev/log", 1, False)])
        process = await box.client.start(plan, [box.netns, fd], keep=True)
        os.close(fd)
        await asyncio.wait_for(process.exited, 20)
        os.set_blocking(process.stdout, False)
        said = os.read(process.stdout, 1000).decode()
        box.client.forget("a")
        return said

    async def check(box: Box) -> None:
        assert await attack(box, nodes.ATTRIBUTES["ro"]) == "usable\n"
        assert (stat.S_IMODE(log.stat().st_mode), log.stat().st_uid) == (0o600, 0)
        await attack(box, 0)
        assert (stat.S_IMODE(log.stat().st_mode), log.stat().st_uid) == (0o666, 7)

    box(check)
