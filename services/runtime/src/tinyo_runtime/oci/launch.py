"""A spawner of its own for one process: it makes it as far as its gate, and is gone when that is done.

Whoever waits for the process (conmon, or ourselves) is the subreaper that it falls to then (prctl(2),
PR_SET_CHILD_SUBREAPER), and hears how it ended: so the spawner must be gone before the process may go on.
"""

import array
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tinyo_runtime.oci.bundles import Descriptors
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.spawner import protocol
from tinyo_runtime.spawner import syscalls as calls

#: Takes the master of a terminal; None for a process that has none.
Console = Callable[[int], None] | None

#: Seconds in which a spawner that has nothing to do any more is gone.
PATIENCE = 5
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
#: What the steps of spawner/bundle.py do, for people.
STEPS = {
    "clone": "the namespaces cannot be made",
    "join_cgroups": "the cgroup cannot be joined",
    "choose_apparmor_profile": "the AppArmor profile cannot be used (has this kernel AppArmor, and is it loaded?)",
    "enter_namespaces": "the namespaces cannot be entered",
    "place_root": "the root cannot be mounted",
    "mount_all": "a mount failed",
    "meet_caller": "a hook failed",
    "open_terminal": "the terminal cannot be opened",
    "close_root": "a path cannot be protected",
    "join_container": "the container cannot be joined",
    "drop_privileges": "the user or the privileges cannot be set",
    "enter_cwd": "the working directory cannot be entered",
    "wait_at_gate": "a hook failed",
    "execute": "the program cannot be executed",
}


def check_terminal(process: Part, console: Console) -> None:
    """A terminal and somebody who takes it need each other. OciError."""
    if process.flag("terminal") != bool(console):
        raise process.wrong("terminal", "must be true with --console-socket PATH, and else false")


class Launch:
    """What comes of a process that is on its way."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        #: The spawner has said that it failed, and has waited for it.
        self.failed = False
        #: Our end of its connection; for a further process, which has no other gate, that lets it go on.
        self.caller: socket.socket


def become_reaper() -> None:
    """What falls to nobody else falls to us."""
    calls.check(calls.libc.prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def launch(
    plan: dict[str, Any],
    given: Descriptors,
    folder: Path,
    opened: ExitStack,
    *,
    cloned: Callable[[int], None],
    made: Callable[[], dict[str, Any]],
    gate: socket.socket | None,
    console: Console,
) -> Launch:
    """Returns when the process waits and has no parent but the subreaper. `cloned` hears its number; `made` is called when
    its namespaces are there, and says what the state is; `console` gets the master of its terminal. OciError, and nothing is left."""
    result = Launch()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    opened.callback(ours.close)
    told = plan["bundle"]
    told["caller"] = given.lend(theirs.fileno())
    told["gate"] = given.lend(gate.fileno()) if gate else told["caller"]
    told["folder"] = str(folder / "root")
    if "terminal" in plan:
        plan["terminal"]["console"] = given.lend(theirs.fileno())
        plan["stdio"] = [told["caller"]] * 3
    else:
        plan["stdio"] = [given.lend(fd) for fd in (0, 1, 2)]
    plan |= {"id": folder.name, "keep": []}
    child, sock = _spawner(folder, told["folder"])
    try:
        with theirs:
            protocol.receive(sock)  # that it is ready
            protocol.send(sock, {"op": "start", "processes": [plan]}, given.fds)
        _follow(result, ours, sock, cloned, made, console)
    except BaseException:
        with suppress(OSError):  # it has ended already, or the spawner has
            end(result, sock)
        raise
    finally:
        with suppress(OSError):
            protocol.send(sock, {"op": "forget", "id": plan["id"]})
        sock.close()
        if result.pidfd >= 0:
            opened.callback(os.close, result.pidfd)
        try:
            child.wait(PATIENCE)
        except (
            subprocess.TimeoutExpired
        ):  # the process was killed just now, and the spawner waits for a runtime
            child.kill()
            child.wait()
    result.caller = ours
    return result


def end(result: Launch, sock: socket.socket) -> None:
    """A process that will not be: the spawner waits for it, and says so."""
    if result.pidfd >= 0 and not result.failed:
        signal.pidfd_send_signal(result.pidfd, signal.SIGKILL)
        while received := protocol.receive(sock):
            if received[0]["op"] in ("exited", "failed"):
                return


def end_with_us() -> None:
    """Nobody needs a spawner whose caller was killed (PR_SET_PDEATHSIG); it could not find another one."""
    calls.check(calls.libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")


def _spawner(folder: Path, roots: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Our own, which nobody else can reach."""
    program = Path(protocol.__file__).with_name("__main__.py")
    inside = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"spawner.{os.getpid()}"
    path = f"/proc/self/fd/{inside}/{name}"  # unix(7): the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            try:
                listener.listen(1)
                command = [sys.executable, "-I", "-S", str(program), roots]
                child = subprocess.Popen(
                    command,
                    stdin=listener.fileno(),
                    start_new_session=True,
                    cwd="/",
                    env={"LANG": "C.UTF-8"},
                    preexec_fn=end_with_us,
                )
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                sock.connect(path)
                protocol.prepare(sock)
            finally:
                os.unlink(folder / name)
    finally:
        os.close(inside)
    return child, sock


def _follow(
    result: Launch,
    ours: socket.socket,
    sock: socket.socket,
    cloned: Callable[[int], None],
    made: Callable[[], dict[str, Any]],
    console: Console,
) -> None:
    """What the process says of itself, and the spawner of it, until it is ready."""
    poll = select.poll()
    for one in (ours, sock):
        poll.register(one, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if ours.fileno() in ready:
            received = protocol.receive(ours)
            if received is None:
                poll.unregister(ours)  # it ended: the spawner says why
                continue
            message, fds = received
            match message["op"]:
                case "cloned":
                    result.pid, result.pidfd = message["pid"], fds[0]
                    cloned(result.pid)
                case "made":
                    protocol.send(ours, {"op": "go", "state": made()})
                case "terminal":
                    assert console, "a terminal is only asked for with somebody who takes it"
                    console(fds[0])
                case "ready":
                    return
        elif received := protocol.receive(sock):
            if received[0]["op"] == "failed":
                result.failed, message = True, received[0]
                raise failed(message["step"], message["errno"], message["object"])
        else:
            raise OciError("the spawner ended before the container was there")


def send_terminal(console: str, master: int) -> None:
    """To whoever listens at the console socket. OciError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(console)
            rights = array.array("i", [master])
            sock.sendmsg([b"/dev/pts/0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    except OSError as error:
        raise OciError(f"--console-socket {console}: {error.strerror}") from None
    finally:
        os.close(master)


def failed(step: str, number: int, about: str) -> OciError:
    """What a step's failure is called; podman looks for some of these words, to choose its exit code."""
    why = os.strerror(number) if number else "it failed"
    if step == "find_program" and number == errno.ENOENT:
        return OciError(f"{about!r}: executable file not found in $PATH: {why}")
    if step == "find_program":
        return OciError(f"{about!r} cannot be executed: {why}")
    return OciError(f"{STEPS.get(step, step)}: {about + ': ' if about else ''}{why}")


def failure(report: bytes) -> OciError:
    """The same, of what a process says of itself (spawner/failures.py)."""
    step, number, about = os.fsdecode(report).split("\0", 2)
    return failed(step, int(number), about)


def ended(pidfd: int, seconds: float | None = None) -> bool:
    """Waits until a process has ended; False when the time is up."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000 if seconds is not None else None))


def exit_of(pid: int) -> int:
    """The exit code of a process that fell to us, as shells have it."""
    told = os.waitid(os.P_PID, pid, os.WEXITED)
    assert told, "only WNOHANG may say nothing"
    return told.si_status if told.si_code == os.CLD_EXITED else 128 + told.si_status
