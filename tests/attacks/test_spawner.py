"""Attacks on the spawner and on the host by way of it, on the real kernel: each was possible once.

What runs inside of a container is a function `inside` of the host's Python, where busybox does not do.
"""

import asyncio
import contextlib
import errno
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tinyo_runtime import lastwords
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.spawner import enter, harden, joining, protocol, syscalls

from tests.support.box import PYTHON, Box, Exit, InBox, gone, line, python, state

#: Where a process finds the spawner's modules.
SOURCE = Path(enter.__file__).parents[2]


def status(pid: int) -> dict[str, str]:
    """proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_an_entrypoint_cannot_reach_the_interpreter(box: InBox) -> None:
    """An image whose program is /proc/self/exe is run by the spawner's own interpreter, from the mount where that
    was found: it must be read-only, or the host's Python is the container's to change (CVE-2019-5736)."""

    def inside() -> None:
        import errno
        import os
        from collections.abc import Callable

        name = "/proc/self/exe"
        found = os.stat(name)
        attacks: list[Callable[[], None]] = [
            lambda: os.chmod(name, found.st_mode & 0o7777),
            lambda: os.chown(name, found.st_uid, found.st_gid),
            lambda: os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns)),
            lambda: os.setxattr(name, "user.attack", b"1"),
            lambda: os.truncate(name, found.st_size),
        ]
        for attack in attacks:
            try:
                attack()
                print("done", end=" ")
            except OSError as error:
                print(errno.errorcode[error.errno or 0], end=" ")
        print(os.stat(name).st_ino)

    async def check(box: Box) -> None:
        process = await box.run_python("c", inside, program="/proc/self/exe")
        *results, inode = (await line(process.stdout)).split()
        assert os.stat(PYTHON).st_ino == int(inode), "it is the host's"
        assert results == ["EROFS"] * 5

    box(check)


def test_the_hosts_null_device_is_not_the_containers(box: InBox) -> None:
    """What is masked in /proc is covered by the host's /dev/null, whose mode and owner root of a container could
    change."""

    async def check(box: Box) -> None:
        before = os.stat("/dev/null")
        for path in ("/proc/keys", "/proc/interrupts"):
            for change in ("chmod 666", "chown 0:0"):
                exit, out = await box.run(f"busybox {change} {path}")
                assert exit == Exit(1, 0)
                assert "Read-only file system" in out
        after = os.stat("/dev/null")
        assert (after.st_mode, after.st_ctime_ns) == (before.st_mode, before.st_ctime_ns)

    box(check)


@pytest.mark.parametrize("how", ["start", "exec"])
def test_a_user_that_has_no_bytes_leaves_nothing_running(box: InBox, how: str) -> None:
    """The step failed with a name that could not be sent: the child came back from there and went on as a second
    spawner, root of the host inside of the container."""

    async def check(box: Box) -> None:
        (box.folder / "layers/base/etc/passwd").unlink()
        container = await box.start("c", "cat")
        await gone(lambda: len(box.children()) == 2)  # the container, and the one that is ready
        with pytest.raises(SpawnError) as caught:
            if how == "start":
                await asyncio.wait_for(box.start("a", "true", user="\ud800"), 20)
            else:
                await asyncio.wait_for(box.join(container, "a", "true", user="\ud800"), 20)
        assert caught.value.step == "drop_privileges"
        await gone(lambda: len(box.children()) == 2)

    box(check)


def test_a_child_of_the_spawner_never_comes_back() -> None:
    """Whatever happens to it before exec, even when it cannot say what: otherwise it is a second spawner."""

    def inside(folder: str) -> None:

        sys.path.append(folder)
        from tinyo_runtime.spawner.enter import enter

        with open("/dev/null") as null:
            enter(null.fileno(), -1, (), "")

    ended = subprocess.run(python(inside, str(SOURCE)), capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (127, "")


def test_a_process_that_is_traced_holds_nobody_up(box: InBox) -> None:
    """A zombie whose tracer does not wait for it cannot be waited for by its parent either: a spawner that tried
    stood still, for all containers."""

    def tracer() -> None:
        import ctypes
        import signal

        seize = 0x4206
        pid = int(input())
        print("seized", ctypes.CDLL(None).ptrace(seize, pid, None, None), flush=True)
        signal.pause()

    def traced() -> None:
        import ctypes
        import os

        pr_set_ptracer, anybody = 0x59616D61, -1  # where Yama is, it has to consent
        ctypes.CDLL(None).prctl(pr_set_ptracer, ctypes.c_long(anybody), 0, 0, 0)
        print(os.getpid(), flush=True)
        input()
        sys.exit(7)

    async def check(box: Box) -> None:
        container = await box.run_python("c", tracer)
        process = await box.join(container, "e", *python(traced))
        os.write(container.stdin, f"{await line(process.stdout)}\n".encode())
        assert await line(container.stdout) == "seized 0"
        os.write(process.stdin, b"\n")
        await gone(lambda: state(process.pid) == "Z")
        exit, out = await asyncio.wait_for(box.run("echo still here"), 20)
        assert (exit, out) == (Exit(0, 0), "still here\n")
        assert not process.exited.done()
        container.kill(signal.SIGKILL)
        assert await asyncio.wait_for(container.exited, 20) == Exit(137, 9)
        assert await asyncio.wait_for(process.exited, 20) == Exit(7, 0)

    box(check)


def test_a_sibling_that_a_process_makes_is_reaped(box: InBox) -> None:
    """By clone(CLONE_PARENT) a process of `exec` makes a child of the spawner: while nobody waits for that one,
    the container's first process cannot end."""

    def inside() -> None:
        import ctypes
        import os
        import signal

        clone, clone_parent = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x8000
        for lives in (False, True):
            pid = ctypes.CDLL(None).syscall(clone, clone_parent | signal.SIGCHLD, None, None, None, None)
            if pid == 0:
                while lives:
                    signal.pause()
                os._exit(0)
            assert pid > 0

    async def check(box: Box) -> None:
        container = await box.run_python("c", pause)
        await gone(lambda: len(box.children()) == 2)  # the container, and the one that is ready
        process = await box.join(container, "e", *python(inside))
        assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)
        await gone(lambda: len(box.children()) == 3)
        container.kill(signal.SIGKILL)
        assert await asyncio.wait_for(container.exited, 20) == Exit(137, 9)
        await gone(lambda: len(box.children()) == 1)

    box(check)


def pause() -> None:
    """A container that does nothing."""
    import signal

    signal.pause()


@pytest.mark.parametrize(
    ("user", "uid", "gid"), [("1000", 1000, 0), ("1000:8", 1000, 8), ("7:8", 7, 8), ("root:8", 0, 8)]
)
def test_a_number_is_no_name_of_the_image(box: InBox, user: str, uid: int, gid: int) -> None:
    """An image whose /etc/passwd says that somebody is called "1000" made root of user 1000 (CVE-2016-3697)."""

    async def check(box: Box) -> None:
        etc = box.folder / "layers/base/etc"
        (etc / "passwd").write_text("1000:x:0:0::/:/bin/sh\n7:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n")
        (etc / "group").write_text("8:x:0:\n0:x:5:1000,7\n")
        _, out = await box.run("grep -E '^(Uid|Gid|CapEff)' /proc/self/status", user=user)
        assert out.split("\n")[:2] == [f"Uid:{f'{chr(9)}{uid}' * 4}", f"Gid:{f'{chr(9)}{gid}' * 4}"]
        assert (f"CapEff:\t{'0' * 16}" in out) == (uid != 0)

    box(check)


SYS_add_key, SYS_keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_UNLINK = 1, 9
KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING = -3, -4


def read_key(keyctl: str, folder: str = "") -> None:
    """Prints a key of root's, which is looked for everywhere; with a folder as a child of the spawner does."""
    import ctypes
    import os
    import sys

    if folder:
        sys.path.append(folder)
        from tinyo_runtime.spawner import harden

        harden.be_unreadable()
    link, search, read = 8, 10, 11
    user, session = -4, -3
    libc = ctypes.CDLL(None, use_errno=True)
    if not folder:
        libc.syscall(int(keyctl), link, user, session)
    key = libc.syscall(int(keyctl), search, session, b"user", b"tinyo-attack", 0)
    secret = ctypes.create_string_buffer(100)
    if key >= 0:
        libc.syscall(int(keyctl), read, key, secret, 100)
    print(secret.value.decode() if key >= 0 else os.strerror(ctypes.get_errno()), flush=True)


@pytest.mark.parametrize("how", ["start", "exec"])
@pytest.mark.parametrize("keyring", [KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING])
def test_the_hosts_keys_are_out_of_reach(box: InBox, how: str, keyring: int) -> None:
    """A session keyring (session-keyring(7)) is inherited, so that of whoever started TinyO came into containers;
    and root's user keyring (user-keyring(7)) is there for every process of root."""

    async def check(box: Box) -> None:
        if how == "start":
            process = await box.run_python("c", read_key, str(SYS_keyctl))
        else:
            container = await box.run_python("c", pause)
            process = await box.join(container, "e", *python(read_key, str(SYS_keyctl)))
        assert await line(process.stdout) == "Function not implemented"
        assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)

    with_a_key(keyring, lambda: box(check))


def test_a_child_of_the_spawner_has_a_session_keyring_of_its_own() -> None:
    """The kernel looks for keys by itself as well: a container's file systems do not find the host's."""

    def check() -> None:
        child = python(read_key, str(SYS_keyctl), str(SOURCE))
        found = subprocess.run(child, capture_output=True, text=True, check=True)
        assert found.stdout == "Required key not available\n"

    with_a_key(KEY_SPEC_SESSION_KEYRING, check)


def with_a_key(keyring: int, check: Callable[[], None]) -> None:
    """Runs a check while there is a key. Session keyrings are a thread's: it gets one, which ends with it."""

    def host() -> None:
        syscalls.syscall(SYS_keyctl, "keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)
        key = syscalls.syscall(SYS_add_key, "add_key", b"user", b"tinyo-attack", b"secret", 6, keyring)
        try:
            check()
        finally:
            syscalls.syscall(SYS_keyctl, "keyctl", KEYCTL_UNLINK, key, keyring)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(host).result()


def test_a_runtime_that_does_not_read_keeps_nobody_out(box: InBox) -> None:
    """The spawner waited until its answers were read: with it every container, and the runtime that comes next."""
    plans = [{"id": "keep", "keep": []}] * 1000  # each is refused, because there is one of that name

    async def check(box: Box) -> None:
        await box.start("keep", "cat")
        asyncio.get_running_loop().remove_reader(box.client.sock)  # it does not connect again
        path = str(box.folder / "spawner.sock")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as newer,
        ):
            mute.connect(path)
            mute.settimeout(20)
            with pytest.raises(ConnectionError):  # TimeoutError is none
                while True:
                    protocol.send(mute, {"op": "start", "processes": plans})
            newer.settimeout(20)
            newer.connect(path)
            told: list[str] = []
            while not told or told[-1] != "ready":
                message, fds = protocol.receive(newer) or ({"op": "ready"}, [])
                told.append(message["op"])
                for fd in fds:
                    os.close(fd)
            assert told == ["started", "ready"]

    box(check)


def test_who_joins_is_seen_only_as_one_of_the_container(box: InBox) -> None:
    """A process that was in the container's pid namespace, and still in namespaces of the host, let everybody inside read
    them by /proc/PID (CVE-2016-9962)."""

    def join(folder: str, pidfd: str) -> None:
        """What the spawner does, stopped where the plan would come, and where the second process begins."""
        import os
        import sys

        sys.path.append(folder)
        from tinyo_runtime.spawner import enter, joining

        for reserved in (enter.STATUS, enter.PLANS):
            os.dup2(2, reserved)
        clone = joining.Successor.clone_inside

        def clone_and_stop(self: joining.Successor, plan: enter.Plan) -> None:
            clone(self, plan)
            os.kill(os.getpid(), 19)

        clone_and_stop.__name__ = "clone_inside"
        joining.Successor.clone_inside = clone_and_stop  # type: ignore[method-assign]
        plan = {"id": "e", "argv": ["true"], "env": [], "cwd": "/", "user": "", "cgroups": [], "container": 0}
        plan |= {"stdio": [0, 0, 0]}
        process = joining.clone(plan, [int(pidfd)])
        assert process
        first, children = process.pid, {process.pid: process}
        print(first, flush=True)
        input()
        process.follow(plan, [int(pidfd)], [])
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        joining.succeed(children)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert [*children] == [process.pid] and process.pid != first
        print(process.pid, flush=True)
        input()
        os.kill(process.pid, 9)
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)

    async def check(box: Box) -> None:
        container = await box.start("c", "cat")
        command, pipe = python(join, str(SOURCE), str(container.pidfd)), subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[container.pidfd]) as spawner:
            assert spawner.stdout and spawner.stdin
            first = int(await line(spawner.stdout.fileno()))
            assert len(status(first)["NSpid"].split()) == 1, "nobody inside knows of it"
            spawner.stdin.write(b"\n")
            spawner.stdin.flush()
            second, whole = (f"/proc/{pid}" for pid in (await line(spawner.stdout.fileno()), container.pid))
            for kind in os.listdir("/proc/self/ns"):
                assert os.readlink(f"{second}/ns/{kind}") == os.readlink(f"{whole}/ns/{kind}")
            assert Path(second, "mountinfo").read_text() == Path(whole, "mountinfo").read_text()
            assert sorted(os.listdir(f"{second}/fd")) == ["0", "1", "2", "3"], "streams, and the status"
            inside = status(int(Path(second).name))["NSpid"].split()[1]
            look = await box.join(container, "look", "cat", f"/proc/{inside}/environ")
            seen = await asyncio.wait_for(look.exited, 20)
            spawner.communicate(b"\n")
        assert spawner.returncode == 0
        assert seen == Exit(1, 0), "it cannot be looked into by who has no CAP_SYS_PTRACE"

    box(check)


def full_pipe() -> tuple[int, int]:
    """Both ends of a pipe: who writes one byte more waits until somebody reads."""
    drain, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, bytes(4096)):
            pass
    os.set_blocking(full, True)
    return drain, full


def catcher(pattern: str) -> None:
    """Stops whatever appears in our pid namespace, and says its privileges and what its memory has, until one was caught
    that was no program yet; needs CAP_SYS_PTRACE."""
    import os
    import re
    import time
    from pathlib import Path

    last = max(int(name) for name in os.listdir("/proc") if name.isdigit())
    print("ready", flush=True)
    while True:
        try:
            os.kill(last + 1, 19)
        except ProcessLookupError:
            continue
        last += 1
        try:
            while Path(f"/proc/{last}/stat").read_text().rpartition(")")[2].split()[0] not in "tTZ":
                time.sleep(0)
            maps = Path(f"/proc/{last}/maps").read_text()
            if "python" in maps:
                status = Path(f"/proc/{last}/status").read_text()
                privileges = re.findall(r"^(?:CapPrm|CapBnd|NoNewPrivs|Seccomp):\t(\w+)", status, re.M)
                found: set[bytes] = set()
                shared = 0
                memory = os.open(f"/proc/{last}/mem", os.O_RDONLY)
                for mapping in maps.splitlines():
                    (begin, end), kind = (
                        (int(x, 16) for x in mapping.split()[0].split("-")),
                        mapping.split()[1],
                    )
                    shared += kind.startswith("rw") and "s" in kind
                    if kind.startswith("r") and "[v" not in mapping:
                        found |= set(re.findall(pattern.encode(), os.pread(memory, end - begin, begin)))
                os.kill(last, 9)
                print("caught", *privileges, shared, *(word.decode() for word in found), flush=True)
                return
        except (OSError, IndexError):
            pass
        try:
            os.kill(last, 18)
        except ProcessLookupError:
            pass
        print("late", flush=True)


@pytest.mark.parametrize("gains", [False, True])
def test_who_can_be_traced_before_exec_has_nothing_more(box: InBox, gains: bool) -> None:
    """With CAP_SYS_PTRACE a process of the container takes what one that joins has: privileges of the host; and, as a clone
    of the spawner, the environment of other containers, and the page that says who another one's successor is."""

    async def check(box: Box) -> None:
        own = harden.DEFAULT_CAPABILITIES | joining.CAP_SYS_PTRACE
        other = await box.start("other", "cat", env=["PATH=/bin", "OTHER_SECRET=hunter2"])
        container = await box.run_python("c", catcher, r"[A-Z]+_SECRET=\w+", capabilities=own)
        assert await line(container.stdout) == "ready"
        drain, full = full_pipe()
        plan = box.joining("waits", "true") | {"cgroups": [1]}  # as one that is slow to join its cgroup
        waits = asyncio.ensure_future(box.begin(plan, [other.pidfd, full], keep=False))
        caught, number = "", 0
        while not caught.startswith("caught"):
            number += 1
            assert number < 200, "none was seen before it was a program"
            more = {"capabilities": own, "new_privileges": gains, "env": ["PATH=/bin", "OWN_SECRET=mine"]}
            joined = asyncio.ensure_future(box.join(container, f"e{number}", "cat", **more))
            caught = await line(container.stdout)
            await box.end(await joined)
        mask = f"{own:016x}"
        assert caught.split()[1:5] == [mask, mask, "0" if gains else "1", "2"]
        assert caught.split()[5:] == ["0", "OWN_SECRET=mine"], (
            "its own environment is there, and so it was searched"
        )
        os.read(drain, 1 << 20)
        assert await (await waits).exited == Exit(0, 0)
        os.close(drain)
        os.close(full)

    box(check)


def thief(what: str) -> None:
    """Takes the status pipe from whatever appears in our pid namespace and is no program yet, and ends it; needs
    CAP_SYS_PTRACE."""
    import ctypes
    import os
    import signal

    libc = ctypes.CDLL(None)
    known = {*os.listdir("/proc")}
    print("ready", flush=True)
    while True:
        for name in {*os.listdir("/proc")} - known:
            known.add(name)
            try:
                pidfd = os.pidfd_open(int(name))
            except (OSError, ValueError):
                continue
            stolen = libc.syscall(438, pidfd, 3, 0)  # pidfd_getfd(2)
            if stolen >= 0:
                if what == "writes":
                    os.write(stolen, b"x")
                signal.pidfd_send_signal(pidfd, 9)
                print("stolen", flush=True)
                signal.pause()
            print("late", flush=True)


@pytest.mark.parametrize("what", ["holds", "writes"])
def test_a_status_pipe_that_is_taken_away_harms_nobody_else(box: InBox, what: str) -> None:
    """The spawner waited for its end, and no container could be started; or it died of what was written there."""

    async def check(box: Box) -> None:
        own = harden.DEFAULT_CAPABILITIES | joining.CAP_SYS_PTRACE
        container = await box.run_python("c", thief, what, capabilities=own)
        assert await line(container.stdout) == "ready"
        said, number, before = "late", 0, box.spawner_pid
        while said == "late":
            number += 1
            assert number < 200, "none was seen before it was a program"
            joined = asyncio.ensure_future(box.join(container, f"e{number}", "cat", capabilities=own))
            said = await line(container.stdout)
            if said == "late":
                await box.end(await joined)
        if what == "holds":
            assert await (await joined).exited == Exit(137, 9)
        else:
            with pytest.raises(SpawnError):
                await joined
        assert await box.run("echo works") == (Exit(0, 0), "works\n")
        assert box.spawner_pid == before, "it is the same one"

    box(check)


def test_a_spawner_that_dies_while_somebody_joins_keeps_no_container_alive(box: InBox) -> None:
    """Nobody waited for the program that came of it, and a container does not end before that."""

    async def check(box: Box) -> None:
        lastwords.become_subreaper()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, box.client.keeper.reap)
        container = await box.start("c", "cat")
        drain, full = full_pipe()
        plan = box.joining("e", "sleep", "1000") | {"cgroups": [1]}  # as one that is slow to join its cgroup
        joins = asyncio.ensure_future(box.begin(plan, [container.pidfd, full], keep=False))
        await gone(
            lambda: any("pipe_write" in Path(f"/proc/{pid}/wchan").read_text() for pid in box.children())
        )
        os.kill(box.spawner_pid, signal.SIGKILL)
        with pytest.raises(SpawnError):
            await joins
        os.read(drain, 1 << 20)

        def runs() -> bool:
            found = False
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(FileNotFoundError):  # the first one has just ended
                    found |= Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
            return found

        await gone(runs)
        container.kill(signal.SIGKILL)
        assert await asyncio.wait_for(container.exited, 20) == Exit(137, 9)
        os.close(drain)
        os.close(full)

    box(check)


def test_the_spawner_does_not_stay_where_it_was_for_a_moment(box: InBox) -> None:
    """After an exec it stayed in the namespaces of that container: they outlived the container, and what was made
    next was made in its network. A pidfd of our own leads to where we are, not to where we were."""

    async def check(box: Box) -> None:
        folder = Path(f"/proc/{box.spawner_pid}/ns")
        before = {path.name: os.readlink(path) for path in folder.iterdir()}
        container = await box.start("c", "cat")
        process = await box.join(container, "e", "true")
        assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)
        with pytest.raises(SpawnError):
            await box.join(container, "e2", "nope")
        container.kill(signal.SIGKILL)
        assert await asyncio.wait_for(container.exited, 20) == Exit(137, 9)
        with pytest.raises(SpawnError) as caught:
            await box.join(container, "e3", "true")
        assert (caught.value.step, caught.value.errno) == ("join_container", 3)
        assert {path.name: os.readlink(path) for path in folder.iterdir()} == before

    box(check)


@pytest.mark.parametrize("variables", [5, 1])
def test_a_plan_that_grows_on_its_way_runs_or_fails(box: InBox, variables: int) -> None:
    """270 000 letters "é" are 540 KB, and were 1.6 MB when the plan was handed on: too large, and the process was
    told to have started. As a single variable they are more than exec takes."""

    async def check(box: Box) -> None:
        env = ["PATH=/bin", *(f"V{n}={'é' * (270_000 // variables)}" for n in range(variables))]
        start = box.start("a", "sh", "-c", "echo ran", env=env)
        if variables == 1:
            with pytest.raises(SpawnError) as caught:
                await asyncio.wait_for(start, 20)
            assert (caught.value.step, caught.value.errno) == ("execute", 7)
        else:
            process = await asyncio.wait_for(start, 20)
            assert await line(process.stdout) == "ran"
            assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)

    box(check)


def test_a_plan_that_is_too_large_holds_nobody_up(box: InBox) -> None:
    """An image's environment can be larger than a message. Its plan stayed first in the line of those that were to
    be sent, and no container started any more."""

    async def check(box: Box) -> None:
        with pytest.raises(OSError) as caught:
            await box.start("a", "true", env=[f"V={'v' * protocol.MAX_BYTES}"])
        assert caught.value.errno == errno.EMSGSIZE
        assert (await asyncio.wait_for(box.run("true"), 20))[0] == Exit(0, 0)

    box(check)


def test_an_end_is_told_of_whom_it_was(box: InBox) -> None:
    """A container was forgotten while it ran, and another got its name: the end of the first was told as the
    second's."""

    async def check(box: Box) -> None:
        first = await box.start("a", "cat")
        box.client.forget("a")
        second = await box.start("a", "sh", "-c", "read line; exit 5")
        os.kill(first.pid, signal.SIGKILL)
        await gone(lambda: first.pid not in box.children())
        assert (await box.run("exit 3"))[0] == Exit(3, 0)  # what was told before this has been read
        assert not second.exited.done()
        os.write(second.stdin, b"\n")
        assert await asyncio.wait_for(second.exited, 20) == Exit(5, 0)

    box(check)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_mount_points_have_the_same_mode_whoever_started_us(box: InBox, tmp_path: Path, umask: int) -> None:
    """With the umask of a service that hides its files no user of a container could pass, and with none everybody
    could write."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    async def check(box: Box) -> None:
        os.umask(previous)
        fds = [syscalls.open_tree(syscalls.AT_FDCWD, str(tmp_path / name)) for name in ("folder", "file")]
        for fd in fds:
            syscalls.make_private(fd, read_only=True)
        plan = box.plan("m", "ls", "/a/b/folder", "/a/b/file", user="7:8")
        plan["mounts"] = [("/a/b/folder", 1, True), ("/a/b/file", 2, False)]
        process = await box.client.start(plan, [box.netns, *fds], keep=True)
        assert await asyncio.wait_for(process.exited, 20) == Exit(0, 0)
        for fd in fds:
            os.close(fd)
        upper = box.folder / "containers/c/upper"
        modes = {
            name: stat.S_IMODE((upper / name).stat().st_mode)
            for name in ("a", "a/b", "a/b/folder", "a/b/file")
        }
        assert modes == {"a": 0o755, "a/b": 0o755, "a/b/folder": 0o755, "a/b/file": 0o644}

    previous = os.umask(umask)
    try:
        box(check)
    finally:
        os.umask(previous)


def test_a_low_limit_of_open_files_is_not_the_spawners(box: InBox) -> None:
    """With the usual soft limit of a service the spawner could keep no more containers than that allows. A
    container sees the usual one all the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = max(map(int, os.listdir("/proc/self/fd"))) + 20  # enough for us to start the spawner

    async def check(box: Box) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(low // 4 + 1):  # each has four descriptors in the spawner
            await box.start(f"c{number}", "cat")
        assert (await box.run("ulimit -Sn; ulimit -Hn"))[1].split() == [str(min(1024, hard)), str(hard)]

    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        box(check)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_ready_process_that_was_killed_is_not_missed(box: InBox) -> None:
    """It is waited for like all others: a spawner that waits for it again, because nobody needs it, does not end."""

    async def check(box: Box) -> None:
        await gone(lambda: len(box.children()) == 1)
        os.kill(box.children()[0], signal.SIGKILL)
        await gone(lambda: not box.children())
        assert (await box.run("true"))[0] == Exit(0, 0)
        await gone(lambda: len(box.children()) == 1)
        os.kill(box.children()[0], signal.SIGKILL)
        await gone(lambda: not box.children())
        asyncio.get_running_loop().remove_reader(box.client.sock)
        box.client.sock.shutdown(socket.SHUT_RDWR)
        assert box.client.child
        assert await asyncio.to_thread(box.client.child.wait, 10) == 0

    box(check)


def test_mount_options_are_not_cut(box: InBox) -> None:
    """mount(2) takes a page and drops the rest in silence: with as many layers as an image likes, the name of the
    work folder ended where another's files are."""

    async def check(box: Box) -> None:
        containers = box.folder / "containers"
        for name in ("other/mine", "other-one/upper", "other-one/work"):
            (containers / name).mkdir(parents=True)
        upper, work = "../containers/other-one/upper", "../containers/other-one/work"
        rest = len(f"lowerdir=base:,upperdir={upper},workdir={work}") - len("-one/work")
        filler = mmap.PAGESIZE - 1 - rest  # the cut comes just behind "other"
        layers = ["base", *(f"{number:032}" for number in range(filler // 33 - 1))]
        layers.append("f" * (filler - 33 * (len(layers) - 1)))
        for layer in layers[1:]:
            (box.folder / "layers" / layer).mkdir()
        with pytest.raises(SpawnError) as caught:
            await box.start("a", "true", layers=layers, upper=upper, work=work)
        assert os.listdir(containers / "other") == ["mine"]
        assert (caught.value.step, caught.value.errno) == ("mount_root", 7)

    box(check)


def test_nothing_grows_with_containers_that_come_and_go(box: InBox) -> None:
    """Half of them fail. Neither descriptors nor memory of the spawner stay behind."""

    async def round(box: Box, starts: int) -> tuple[int, int]:
        for _ in range(starts // 2):
            assert (await box.run("true"))[0] == Exit(0, 0)
            with pytest.raises(SpawnError):
                await box.start("a", "nope")
        await gone(lambda: len(box.children()) == 1)  # the one that is ready
        status = dict(
            entry.split(":", 1) for entry in Path(f"/proc/{box.spawner_pid}/status").read_text().splitlines()
        )
        return len(os.listdir(f"/proc/{box.spawner_pid}/fd")), int(status["RssAnon"].split()[0])

    async def check(box: Box) -> None:
        descriptors, memory = await round(box, 40)
        more_descriptors, more_memory = await round(box, 200)
        assert more_descriptors == descriptors
        assert more_memory - memory < 100  # KiB
        assert len(os.listdir(box.folder / "root")) == 0

    box(check)


@pytest.mark.parametrize("user", ["bob", "1000"])
def test_streams_of_the_host_stay_the_hosts(box: InBox, tmp_path: Path, user: str) -> None:
    """A container's pipes become its user's; what else it is given as a stream must not."""
    node = tmp_path / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    async def check(box: Box) -> None:
        with open(node, "rb", 0) as stdin:
            plan = box.plan("c", "true", user=user, stdin=1)
            process = await box.begin(plan, [box.netns, stdin.fileno()], keep=True)
            assert (await asyncio.wait_for(process.exited, 20)).code == 0
        assert (node.stat().st_uid, os.fstat(process.stdout).st_uid) == (0, 1000)

    box(check)
