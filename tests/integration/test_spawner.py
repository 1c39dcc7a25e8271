"""The spawner and its client on the real kernel: a root file system of busybox, no image, no network."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinyo.runtime.v1.runtime_pb2 import ExecStart
from tinyo.v1.container_pb2 import ExitStatus
from tinyo_runtime import execs, lastwords
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.spawner import harden, mounts, protocol, syscalls

from tests.support.box import Box, Exit, gone, state
from tests.support.clean import links


def test_isolation_of_a_plain_container(box: Any) -> None:
    async def check(box: Box) -> None:
        _, out = await box.run("grep -E 'Cap|NoNewPrivs' /proc/self/status; hostname; echo $$; umask")
        status = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
        assert status["CapPrm"] == status["CapEff"] == status["CapBnd"] == "00000000800405fb"
        assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
        assert status["NoNewPrivs"] == "1"
        assert out.splitlines()[-3:] == ["box", "1", "0022"]
        for kind in ("mnt", "pid", "ipc", "uts", "net", "cgroup"):
            _, inside = await box.run(f"readlink /proc/self/ns/{kind}")
            assert inside.strip() != os.readlink(f"/proc/self/ns/{kind}")

    box(check)


def test_no_signal_stays_ignored(box: Any) -> None:
    """Not what Python ignores, and not what whoever started TinyO ignored, be it a signal of the C library."""
    numbers = [signal.SIGHUP, signal.SIGINT, 32, 33, 64]
    ignore = struct.pack("QQQQ", signal.SIG_IGN, 0, 0, 0)
    for number in numbers:
        syscalls.syscall(harden.SYS_rt_sigaction, "", number, ignore, None, 8)

    async def check(box: Box) -> None:
        _, out = await box.run("grep -E 'Sig(Blk|Ign)' /proc/self/status; true")
        assert out == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"

    try:
        box(check)
    finally:
        for number in numbers:
            harden.default_signal(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_nothing_of_the_host_is_in_reach(box: Any) -> None:
    async def check(box: Box) -> None:
        _, out = await box.run(
            "ls /proc/self/fd | grep -v -x -e 0 -e 1 -e 2 -e 3; echo mounts; cat /proc/mounts"
        )
        assert str(box.folder) not in out
        assert "/dev/vda" not in out.replace("devtmpfs", "")
        assert out.startswith("mounts\n"), "no descriptor but 0, 1, 2 (and 3, which ls itself has)"
        for write in (
            "echo 1 > /proc/sys/kernel/core_pattern",
            "echo b > /proc/sysrq-trigger",
            "mkdir /sys/x",
        ):
            exit, _ = await box.run(f"({write}) || exit 9")
            assert exit.code != 0
        _, out = await box.run("cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware")
        assert out == ""

    box(check)


@pytest.mark.parametrize(
    ("more", "step", "errno"),
    [
        ({"argv": ["nope"]}, "execute", 2),
        ({"argv": ["/etc/passwd"]}, "execute", 13),
        ({"user": "nobody-here"}, "drop_privileges", 22),
        ({"cwd": "/nowhere"}, "enter_cwd", 2),
        ({"cwd": "/proc/self/fd/3"}, "enter_cwd", 20),
        ({"layers": ["missing"]}, "mount_root", 2),
    ],
)
def test_a_failed_step_is_named_and_leaves_nothing(box: Any, more: Any, step: str, errno: int) -> None:
    async def check(box: Box) -> None:
        # One is ready for the next container, and the spawner has nothing more to do.
        await gone(lambda: len(box.children()) == 1 and state(box.spawner_pid) == "S")
        before = len(os.listdir(f"/proc/{box.spawner_pid}/fd"))
        with pytest.raises(SpawnError) as caught:
            await box.start("a", *more.pop("argv", ["true"]), **more)
        assert (caught.value.step, caught.value.errno) == (step, errno)
        exit, _ = await box.run("true")
        assert exit == ExitStatus(), "the spawner goes on"
        await gone(lambda: len(os.listdir(f"/proc/{box.spawner_pid}/fd")) == before)

    box(check)


def pipes() -> int:
    """How many descriptors of pipes we have."""
    return sum(link.startswith("pipe:") for link in links("/proc/self/fd"))


def test_exit_codes_and_signals(box: Any) -> None:
    async def check(box: Box) -> None:
        assert (await box.run("exit 7"))[0] == Exit(7, 0)
        process = await box.start("s", "sleep", "1000")
        process.kill(signal.SIGKILL)
        assert await process.exited == Exit(137, 9)

    box(check)


def test_users_and_groups_come_from_the_container(box: Any) -> None:
    async def check(box: Box) -> None:
        for user, expected in [
            ("", "uid=0(root) gid=0 groups=0,10(wheel)"),
            ("bob", "uid=1000(bob) gid=1001 groups=10(wheel),1001"),
            ("1000", "uid=1000(bob) gid=1001 groups=10(wheel),1001"),
            ("bob:staff", "uid=1000(bob) gid=50(staff) groups=50(staff)"),
            ("7:8", "uid=7 gid=8 groups=8"),
        ]:
            _, out = await box.run("id; echo ok > /dev/stdout; grep CapEff /proc/self/status", user=user)
            assert out.splitlines()[0] == expected
            assert "ok" in out, "/dev/stdout can be opened again"
            assert out.endswith(f"{'00000000800405fb' if not user else '0' * 16}\n")

    box(check)


def test_mounts_land_inside_the_root_whatever_links_say(box: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("hello")

    async def check(box: Box) -> None:
        (box.folder / "layers/base/evil").symlink_to("/../../../../../../../etc")
        fd = syscalls.open_tree(-100, str(source))
        syscalls.make_private(fd, read_only=True)
        plan = box.plan("m", "sh", "-c", "cat /etc/deep/er/file; echo x > /evil/deep/er/file")
        plan["mounts"] = [("/evil/deep/er", 1, True)]
        process = await box.client.start(plan, [box.netns, fd], keep=True)
        assert (await process.exited).code == 1
        assert os.read(process.stdout, 100) == b"hello"
        os.close(fd)
        assert not Path("/etc/deep").exists()
        assert (box.folder / "containers/c/upper/etc/deep/er").is_dir()
        assert (source / "file").read_text() == "hello"

    box(check)


def test_an_image_that_has_links_for_proc_is_refused(box: Any) -> None:
    async def check(box: Box) -> None:
        (box.folder / "layers/base/proc").symlink_to("/etc")
        with pytest.raises(SpawnError) as caught:
            await box.start("p", "true")
        assert caught.value.step == "mount_system"
        assert caught.value.errno == 40

    box(check)


def test_exec_joins_everything_of_the_container(box: Any) -> None:
    async def check(box: Box) -> None:
        first = await box.start("c", "sh")
        script = "grep -E 'CapBnd|NoNew' /proc/self/status; for n in /proc/1/ns/*; do readlink $n; done"
        plan = box.joining("e", "sh", "-c", script)
        process = await box.client.start(plan, [first.pidfd], keep=False)
        assert await process.exited == ExitStatus()
        out = os.read(process.stdout, 4096).decode()
        assert "00000000800405fb" in out
        assert "NoNewPrivs:\t1" in out
        for kind in ("mnt", "pid", "ipc", "uts", "net", "cgroup"):
            assert os.readlink(f"/proc/{first.pid}/ns/{kind}") in out
        assert first.pid in box.children()
        assert process.pid not in box.children(), "the program that ended was reaped"
        for kind in ("pid_for_children", "ipc", "uts", "net", "cgroup"):
            assert os.readlink(f"/proc/{box.spawner_pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")

    box(check)


def test_what_is_forgotten_while_it_runs_is_reaped_and_leaves_nothing(box: Any) -> None:
    async def check(box: Box) -> None:
        first = await box.start("c", "sh")
        await gone(lambda: len(box.children()) == 2)  # this one, and the one that is ready
        before = len(os.listdir(f"/proc/{box.spawner_pid}/fd"))
        for number in range(5):
            plan = box.plan(f"e{number}", "sleep", "1000") | {"container": 0}
            process = await box.client.start(plan, [first.pidfd], keep=False)
            box.client.forget(process.id)
            os.kill(process.pid, signal.SIGKILL)
        await gone(lambda: len(box.children()) == 2)
        await gone(lambda: len(os.listdir(f"/proc/{box.spawner_pid}/fd")) == before)

    box(check)


def test_a_program_that_is_ended_does_not_keep_its_container(box: Any) -> None:
    """A container ends when everything that joined it was waited for, however late the spawner gets to it."""

    async def check(box: Box) -> None:
        container = await box.start("c", "sh")
        program = await box.client.start(box.joining("e", "cat"), [container.pidfd], keep=False)
        os.kill(box.spawner_pid, signal.SIGSTOP)
        await execs.end(SimpleNamespace(spawner=box.client), program, [])  # type: ignore[arg-type]
        await gone(lambda: state(program.pid) == "Z")
        os.kill(box.spawner_pid, signal.SIGCONT)
        await gone(lambda: program.pid not in box.children() and "e" not in box.client.processes)
        container.kill(signal.SIGKILL)
        assert await asyncio.wait_for(container.exited, 10) == Exit(137, 9)

    box(check)


def test_a_program_that_nobody_waits_for_ends(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(box: Box) -> None:
        container = await box.start("c", "sh")
        containers: Any = SimpleNamespace(spawner=box.client)
        plan = box.joining("e", "sleep", "1000")
        start = box.client.start(plan, [container.pidfd], keep=False)
        monkeypatch.setattr(execs, "start", lambda containers, request: start)
        before = pipes()
        os.kill(box.spawner_pid, signal.SIGSTOP)
        starting = asyncio.ensure_future(execs.started(containers, ExecStart()))
        await asyncio.sleep(0.01)
        starting.cancel()
        await asyncio.wait([starting])
        os.kill(box.spawner_pid, signal.SIGCONT)
        await gone(lambda: "e" not in box.client.news and pipes() == before)
        assert container.pid in box.children()

    box(check)


def test_a_spawner_that_does_not_read_gets_everything_in_the_end(box: Any) -> None:
    async def check(box: Box) -> None:
        container = await box.start("c", "sh")
        before = pipes()
        os.kill(box.spawner_pid, signal.SIGSTOP)
        plans = [box.joining(f"e{number}", "true") for number in range(50)]
        for plan in plans:
            plan["env"].append("LARGE=" + "x" * 100_000)
        starts = [
            asyncio.ensure_future(box.client.start(plan, [container.pidfd], keep=False)) for plan in plans
        ]
        await asyncio.sleep(0.01)
        assert box.client.keeper._waiting, "the socket takes less than that"
        os.kill(box.spawner_pid, signal.SIGCONT)
        for process in await asyncio.gather(*starts):
            assert await asyncio.wait_for(process.exited, 10) == ExitStatus()
            box.client.forget(process.id)
        await gone(lambda: pipes() == before)

    box(check)


def test_what_is_malformed_ends_the_connection_and_not_the_spawner(box: Any) -> None:
    async def check(box: Box) -> None:
        process = await box.start("c", "sh")
        pid = box.spawner_pid
        for packet in (
            b"", b"\0", b"[]", b"{}", b'{"v":2,"op":"start"}', b'{"v":1,"op":"what"}', b'{"v":1,"op":"start"}',
            b'{"v":1,"op":"start","processes":[{}]}',
            b'{"v":1,"op":"adopt","id":"x","pid":"y"}', b"[" * 100_000,
            b'{"v":1,"op":"start","processes":[{"id":"z","stdio":[0,1,2],"keep":[7]}]}',
        ):  # fmt: skip
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(10)
                sock.connect(str(box.folder / "spawner.sock"))
                while protocol.receive(sock)[0]["op"] != "ready":  # type: ignore[index]
                    pass
                if packet:
                    sock.sendmsg([packet])
                    assert sock.recv(1000) == b"", packet
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        ) as sock:  # the process itself sees what is wrong
            sock.settimeout(10)
            sock.connect(str(box.folder / "spawner.sock"))
            plan = b'{"id":"z","netns":99,"cgroups":[],"stdio":[0,1,2],"keep":[]}'
            sock.sendmsg([b'{"v":1,"op":"start","processes":[%s]}' % plan])
            while (answer := protocol.receive(sock)) and answer[0]["op"] != "failed":
                for fd in answer[1]:
                    os.close(fd)
            assert answer and (answer[0]["id"], answer[0]["step"]) == ("z", "receive_plan")
        await gone(lambda: box.client.keeper.reopening is not None and box.client.keeper.reopening.done())
        assert box.spawner_pid == pid
        process.kill(signal.SIGKILL)
        assert await process.exited == Exit(137, 9)

    box(check)


def test_a_dead_spawner_is_replaced_and_containers_live_on(box: Any) -> None:
    async def check(box: Box) -> None:
        process = await box.start("c", "cat")
        lastwords.become_subreaper()
        first = box.spawner_pid
        os.kill(first, signal.SIGKILL)
        await gone(lambda: box.client.keeper.reopening is not None and box.client.keeper.reopening.done())
        os.write(process.stdin, b"alive")
        assert os.read(process.stdout, 100) == b"alive"
        assert (await box.run("exit 3"))[0] == Exit(3, 0)
        execs.close_input(process)  # the new spawner holds it open still
        process.kill(signal.SIGKILL)
        assert await asyncio.wait_for(process.exited, 10) == Exit(137, 9), "nobody else was its parent"

    box(check)


def test_without_work_it_ends_with_the_process_that_was_ready(box: Any) -> None:
    async def check(box: Box) -> None:
        await gone(lambda: len(box.children()) == 1)
        (ready,) = box.children()
        asyncio.get_running_loop().remove_reader(box.client.sock)
        box.client.sock.shutdown(socket.SHUT_RDWR)
        assert box.client.child
        assert await asyncio.to_thread(box.client.child.wait, 10) == 0
        await gone(lambda: not Path(f"/proc/{ready}").exists())

    box(check)


def test_the_interpreter_cannot_be_written_by_the_spawners_children(box: Any) -> None:
    async def check(box: Box) -> None:
        enter = ["nsenter", f"--mount=/proc/{box.spawner_pid}/ns/mnt", "touch", "/usr/bin/tinyo-attack"]
        result = subprocess.run(enter, capture_output=True, text=True)
        assert "Read-only file system" in result.stderr

    box(check)


def test_paths_are_found_while_others_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """openat2(2) answers EAGAIN for ".." while there are mounts and renames anywhere on the machine."""
    (tmp_path / "a").mkdir()
    ended = threading.Event()

    def rename() -> None:
        while not ended.is_set():
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "b").rename(tmp_path / "a")

    thread = threading.Thread(target=rename)
    thread.start()
    monkeypatch.chdir(tmp_path)
    try:
        for _ in range(2000):
            os.close(mounts.open_in_root("../" * 20))
    finally:
        ended.set()
        thread.join()
