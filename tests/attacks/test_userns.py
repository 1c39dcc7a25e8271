"""Attacks by root of a container on what belongs to root of the host, with and without a user namespace: each
succeeds without, so that it is the namespace that keeps them off, whatever else does.

What such a root could get at one day, through a hole in anything else, is given to it here: the host's files in a
mount that is not mapped, a process of the host in its pid namespace.
"""

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tinyo_runtime.options import ranges
from tinyo_runtime.spawnclient import Process
from tinyo_runtime.spawner import syscalls, userns

from tests.support.box import PYTHON_NEEDS, Box, Exit, InBox, gone, python, state

FIRST = 0x30000000
GIVEN = tuple(dict.fromkeys(PYTHON_NEEDS))
#: Without a user namespace an attack succeeds, with one it fails.
both = pytest.mark.parametrize("mapped", [False, True], ids=["without", "with"])


async def start(
    box: Box, mapped: bool, *argv: str, give: tuple[str, ...] = (), as_usual: bool = False
) -> Process:
    """Starts a container that has mounts of the host: as they are there, or mapped as usual."""
    fds, mounts = [box.netns], []
    for source in give:
        fd = syscalls.open_tree(syscalls.AT_FDCWD, source, syscalls.AT_RECURSIVE)
        syscalls.make_private(fd, read_only=False)
        mounts.append((source, len(fds), os.path.isdir(source)))
        fds.append(fd)
    more: dict[str, Any] = {"mounts": mounts}
    if mapped:
        more |= {name: str(box.folder / "containers/c" / name) for name in ("upper", "work")}
        namespace = userns.make(0, FIRST, userns.IDS)
        layers = syscalls.open_tree(syscalls.AT_FDCWD, str(box.folder / "layers"))
        userns.map_ids(layers, namespace, "layers", 0)
        for fd in fds[1:] if as_usual else ():
            userns.map_ids(fd, namespace, "a mount")
        ranges.give(box.folder / "containers/c/upper", FIRST)
        about = {"first": FIRST, "ids": userns.IDS, "own_network": False}
        more["userns"] = about | {"namespace": len(fds), "layers": len(fds) + 1}
        fds += [namespace, layers]
    try:
        return await box.client.start(box.plan("c", *argv, **more), fds, keep=True)
    finally:
        for fd in fds[1:]:
            os.close(fd)


async def said(process: Process) -> list[str]:
    """What it wrote until it ended."""
    await asyncio.wait_for(process.exited, 20)
    os.set_blocking(process.stdout, False)
    return os.read(process.stdout, 1 << 16).decode().splitlines()


@both
def test_root_of_a_container_is_nobody_to_files_of_the_host(box: InBox, mapped: bool) -> None:
    secret = "umask 077; echo secret"

    async def check(box: Box) -> None:
        folder = box.folder / "hosts"
        folder.mkdir()
        subprocess.run(
            ["sh", "-c", f"{secret} >file; echo public >open; chmod 644 open"], cwd=folder, check=True
        )
        attacks = (
            "cat {}/file",
            "echo x >>{}/open",
            "busybox chmod 777 {}/open",
            "busybox rm {}/file",
            "echo >{}/new",
        )
        script = "; ".join(
            f"{attack.format(folder)} >/dev/null 2>&1 && echo done || echo kept" for attack in attacks
        )
        results = await said(await start(box, mapped, "sh", "-c", script, give=(str(folder),)))
        assert results == ["kept" if mapped else "done"] * len(attacks)
        assert sorted(os.listdir(folder)) == (["file", "open"] if mapped else ["new", "open"])

    box(check)


@both
def test_what_is_another_containers_stays_so_in_a_mount_of_both(box: InBox, mapped: bool) -> None:
    """Root inside is root there, and still not over ids that are none of its own."""

    async def check(box: Box) -> None:
        folder = box.folder / "shared"
        folder.mkdir()
        (folder / "file").write_text("secret")
        (folder / "file").chmod(0o600)
        os.chown(folder / "file", FIRST + userns.IDS, FIRST + userns.IDS)
        attacks = (
            "cat {}/file",
            "echo x >>{}/file",
            "busybox chmod 777 {}/file",
            "busybox chown 0 {}/file",
            "busybox rm {}/file",
        )
        script = "; ".join(
            f"{attack.format(folder)} >/dev/null 2>&1 && echo done || echo kept" for attack in attacks
        )
        script = f"echo mine >{folder}/mine; {script}"
        results = await said(await start(box, mapped, "sh", "-c", script, give=(str(folder),), as_usual=True))
        assert results == ["kept" if mapped else "done"] * len(attacks)
        assert os.stat(folder / "mine").st_uid == 0

    box(check)


@both
def test_a_set_uid_program_of_a_container_makes_nobody_root_of_the_host(box: InBox, mapped: bool) -> None:
    """Somebody on the host who gets to run what root of a container has made so."""

    async def check(box: Box) -> None:
        secret = box.folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o600)
        (box.folder / "layers/base/bin/hosts-cat").write_bytes(Path("/bin/cat").read_bytes())
        script = "cat /bin/hosts-cat >/program; busybox chmod 4755 /program; busybox stat -c '%u %a' /program"
        assert await said(await start(box, mapped, "sh", "-c", script)) == ["0 4755"]
        fd = os.open(box.folder / "containers/c/upper/program", os.O_RDONLY)
        with open(secret, "rb") as file:  # its folder is root's alone
            command = [f"/proc/self/fd/{fd}", f"/proc/self/fd/{file.fileno()}"]
            os.fchmod(file.fileno(), 0o600)
            ran = subprocess.run(
                command,
                user=65534,
                group=65534,
                extra_groups=[],
                pass_fds=(fd, file.fileno()),
                capture_output=True,
            )
        os.close(fd)
        assert (ran.stdout == b"secret") is not mapped
        assert (b"Permission denied" in ran.stderr) is mapped

    box(check)


@both
@pytest.mark.parametrize("attack", ["kill", "ptrace", "environ"])
def test_processes_of_the_host_are_out_of_reach(box: InBox, mapped: bool, attack: str) -> None:
    """Also one that is in the container's pid namespace, where root could see and stop it."""

    def inside(attack: str) -> None:
        import ctypes
        import os
        import signal

        os.read(0, 1)
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with open(f"/proc/{pid}/cmdline") as file:
                if not file.read().startswith("busybox\0sleep"):
                    continue
            try:
                if attack == "kill":
                    os.kill(int(pid), signal.SIGKILL)
                elif attack == "ptrace":
                    if ctypes.CDLL(None).ptrace(0x4206, int(pid), None, None) != 0:
                        raise PermissionError
                else:
                    open(f"/proc/{pid}/environ").close()
                print("done")
            except PermissionError:
                print("kept")

    async def check(box: Box) -> None:
        container = await start(box, mapped, *python(inside, attack), give=GIVEN)
        victim = await box.join(container, "e", "busybox", "sleep", "1000")  # into all but the user namespace
        assert Path(f"/proc/{victim.pid}/status").read_text().count("\nUid:\t0\t0") == 1
        os.write(container.stdin, b"\n")
        assert await said(container) == ["kept" if mapped else "done"]

    box(check)


@both
@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/1/oom_score_adj"])
def test_settings_of_the_host_are_out_of_reach(box: InBox, mapped: bool, path: str) -> None:
    """Were they not read-only: core_pattern names a program that the host's root runs."""

    def inside(path: str) -> None:
        try:
            open(path, "ab").close()
            print("done")
        except PermissionError:
            print("kept")

    async def check(box: Box) -> None:
        give = (*GIVEN, path)
        results = await said(await start(box, mapped, *python(inside, path), give=give))
        assert results == ["kept" if mapped else "done"]

    box(check)


@both
def test_other_namespaces_take_no_orders_of_its_root(box: InBox, mapped: bool) -> None:
    """It owns none of them: a capability that it has counts for its own ids, and not in the network namespace."""

    def inside() -> None:
        import socket

        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", 80))
                print("done")
            except PermissionError:
                print("kept")

    async def check(box: Box) -> None:
        process = await start(box, mapped, *python(inside), give=GIVEN)
        assert await said(process) == ["kept" if mapped else "done"]

    box(check)


@both
def test_who_joins_is_nobody_as_well(box: InBox, mapped: bool) -> None:
    """An exec that stayed in the host's user namespace would be root of the host, in a container."""

    async def check(box: Box) -> None:
        container = await start(box, mapped, "cat")
        more = {"userns": {"namespace": 0, "first": FIRST}} if mapped else {}
        process = await box.join(container, "e", "cat", **more)
        status = Path(f"/proc/{process.pid}/status").read_text()
        owner = FIRST if mapped else 0
        assert f"\nUid:\t{owner}\t{owner}\t{owner}\t{owner}\n" in status
        assert os.readlink(f"/proc/{process.pid}/ns/user") == os.readlink(f"/proc/{container.pid}/ns/user")
        assert (
            os.readlink(f"/proc/{process.pid}/ns/user") == os.readlink("/proc/self/ns/user")
        ) is not mapped
        for fd in (process.stdout, process.stderr):
            assert os.fstat(fd).st_uid == owner
        container.kill(signal.SIGKILL)
        for ended in (container, process):
            await asyncio.wait_for(ended.exited, 20)

    box(check)


@pytest.mark.parametrize("ids", [0, -1, 1 << 33, "1", None, 65536.5])
def test_a_namespace_that_cannot_be_made_leaves_nothing(box: InBox, ids: object) -> None:
    """A message with numbers that are none ends the connection, one that the kernel refuses is answered."""

    async def check(box: Box) -> None:
        before = len(os.listdir(f"/proc/{box.spawner_pid}/fd"))
        news = box.client.news["x"] = type(box.client.news[""])()
        box.client.send({"op": "userns", "id": "x", "inside": 0, "outside": FIRST, "ids": ids})
        message, fds = await asyncio.wait_for(news.get(), 20)
        assert (message["op"], fds) == ("failed", [])
        await gone(lambda: all(state(pid) != "Z" for pid in box.children()))
        exit, out = await asyncio.wait_for(box.run("echo still here"), 20)
        assert (exit, out) == (Exit(0, 0), "still here\n")
        await gone(lambda: len(os.listdir(f"/proc/{box.spawner_pid}/fd")) <= before + 3)

    box(check)
