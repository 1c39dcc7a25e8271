"""The spawner: parent of every container, single-threaded, standard library only.

Run as `python -I -S __main__.py` with a listening socket as standard input. It starts processes as the runtime says (docs/spawner-protocol.md),
keeps their pidfds and its ends of their pipes, and tells how they ended. One runtime is connected at a
time; when it goes away every process stays, and the next one is told what is there. Without a runtime and
without processes it ends.
"""

import gc
import os
import select
import signal
import socket
import sys as python
from collections.abc import Callable
from dataclasses import dataclass

if __name__ == "__main__":  # `-I -S` leaves only the standard library on the path
    python.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.spawner import protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import IGNORED, STATUS, Plan, enter


@dataclass
class Process:
    """A process that was started, until the runtime says that it may be forgotten."""

    id: str
    pid: int
    pidfd: int
    #: The runtime's ends of its pipes, kept so that they outlive the runtime.
    kept: list[int]
    #: Reads an error of `enter`, or end of file when exec succeeded; -1 afterwards.
    status: int
    exit: protocol.Message | None = None

    def close(self) -> None:
        for fd in {self.pidfd, *self.kept, self.status} - {-1}:
            os.close(fd)


class Spawner:
    """One poll loop: descriptors, and what to do when they are ready."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.runtime: socket.socket | None = None
        self.processes: dict[str, Process] = {}
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.watch(listener.fileno(), self.accept)

    def run(self) -> None:
        """Never returns."""
        while True:
            for fd, _ in self.poll.poll():
                if handler := self.handlers.get(fd):
                    handler()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self.poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def tell(self, op: str, id: str, fds: tuple[int, ...] = (), **what: object) -> None:
        """Sends to the runtime if there is one; whatever it misses it is told when it connects again."""
        if self.runtime:
            try:
                protocol.send(self.runtime, {"v": protocol.VERSION, "op": op, "id": id, **what}, fds)
            except OSError:
                self.disconnect()

    def accept(self) -> None:
        """The newest runtime wins; it is told every process that there is."""
        sock, _ = self.listener.accept()
        if self.runtime:
            self.disconnect()
        protocol.prepare(sock)
        self.runtime = sock
        self.watch(sock.fileno(), self.read)
        for process in list(self.processes.values()):
            if process.status < 0:
                self.tell("started", process.id, (process.pidfd, *process.kept), pid=process.pid)
                if process.exit:
                    self.tell("exited", process.id, **process.exit)
        self.tell("ready", "")

    def disconnect(self) -> None:
        if self.runtime:
            self.unwatch(self.runtime.fileno())
            self.runtime.close()
            self.runtime = None

    def read(self) -> None:
        """One message of the runtime. Anything malformed ends the connection, never the spawner."""
        assert self.runtime
        fds: list[int] = []
        try:
            received = protocol.receive(self.runtime)
            if received is None:
                self.disconnect()
                if not self.processes:
                    raise SystemExit  # nobody to work for, and nothing to keep
                return
            message, fds = received
            match message.get("op"):
                case "start":
                    for plan in message["processes"]:
                        self.start(plan, fds)
                case "adopt":
                    self.adopt(str(message["id"]), int(message["pid"]), [os.dup(fd) for fd in fds])
                case "forget":
                    self.forget(str(message["id"]))
                case other:
                    raise protocol.ProtocolError(f"unknown op {other!r}")
        except (protocol.ProtocolError, LookupError, TypeError, ValueError, OSError) as error:
            print(f"spawner: refused a message: {error!r}", file=python.stderr, flush=True)
            self.disconnect()
        finally:
            for fd in fds:
                os.close(fd)

    def start(self, message: protocol.Message, fds: list[int]) -> None:
        """Clones one process; the answer comes when its status pipe says how it went."""
        id = message.pop("id")
        if not isinstance(id, str):
            raise protocol.ProtocolError(f"id {id!r} is no string")
        if id in self.processes:
            return self.tell("failed", id, step="clone", errno=17, object="id is taken")
        for name in ("netns", "container"):  # descriptors are named by their place in the message
            if name in message:
                message[name] = fds[message[name]]
        for name in ("cgroups", "stdio"):
            message[name] = [fds[index] for index in message[name]]
        kept = [fds[index] for index in message.pop("keep")]
        mounts = [(target, fds[index], folder) for target, index, folder in message.pop("mounts", ())]
        plan = Plan(**message, mounts=mounts)
        status, childs_status = os.pipe2(os.O_CLOEXEC)
        try:
            pid, pidfd = self.clone(plan, childs_status)
        except OSError as error:
            os.close(status)
            return self.tell("failed", id, step="clone", errno=error.errno, object=error.filename or "")
        finally:
            os.close(childs_status)
        process = Process(id, pid, pidfd, [os.dup(fd) for fd in kept], status)
        self.processes[id] = process
        self.watch(status, lambda: self.entered(process))
        return None

    def clone(self, plan: Plan, status: int) -> tuple[int, int]:
        """A child in new namespaces; or, for a running container, one in its pid namespace."""
        new = sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS
        joins = plan.container >= 0
        if joins:
            sys.setns(plan.container, sys.CLONE_NEWPID)  # of the children that follow
        try:
            pid, pidfd = sys.clone(0 if joins else new)
            if pid == 0:
                enter(plan, status)  # the child never comes back from here
            return pid, pidfd
        finally:
            if joins:
                sys.setns(self.own_pid_namespace, sys.CLONE_NEWPID)

    def entered(self, process: Process) -> None:
        """The status pipe ended: with nothing in it exec succeeded, otherwise a step failed."""
        error = os.read(process.status, 4096)
        self.unwatch(process.status)
        os.close(process.status)
        process.status = -1
        if error:
            step, errno, about = os.fsdecode(error).split("\0", 2)
            os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
            self.forget(process.id)
            self.tell("failed", process.id, step=step, errno=int(errno), object=about)
        else:
            self.tell("started", process.id, (process.pidfd,), pid=process.pid)
            self.watch(process.pidfd, lambda: self.exited(process))

    def exited(self, process: Process) -> None:
        """Reaps; the record stays until the runtime has read the pipes and says `forget`."""
        self.unwatch(process.pidfd)
        try:
            result = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
            assert result is not None
            signaled = result.si_code != os.CLD_EXITED
            process.exit = {"status": result.si_status, "signaled": signaled}
        except ChildProcessError:  # adopted: it was never our child
            process.exit = {"status": -1, "signaled": False}
        self.tell("exited", process.id, **process.exit)

    def adopt(self, id: str, pid: int, fds: list[int]) -> None:
        """Takes over a process of a spawner that died: pidfd and pipes come from the runtime."""
        self.forget(id)
        pidfd, *kept = fds
        process = self.processes[id] = Process(id, pid, pidfd, kept, -1)
        self.watch(pidfd, lambda: self.exited(process))

    def forget(self, id: str) -> None:
        if process := self.processes.pop(id, None):
            self.unwatch(process.pidfd)
            self.unwatch(process.status)
            process.close()


def protect_host() -> None:
    """A mount namespace of our own in which the interpreter cannot be written to (CVE-2019-5736)."""
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("", "/", "", sys.MS_REC | sys.MS_SLAVE)
    for folder in {"/usr", python.prefix, python.base_prefix}:
        copy = sys.open_tree(-100, folder)
        sys.make_private(copy, read_only=True)
        target = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        sys.move_mount(copy, target)
        os.close(copy)
        os.close(target)


def main() -> None:
    """Sets up once what every child inherits: signals, no garbage collection, a protected host."""
    assert len(os.listdir("/proc/self/task")) == 1, "a spawner has one thread"
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, *IGNORED}:
        sys.default_signal(number)
    protect_host()
    listener = socket.socket(fileno=0)
    os.dup2(python.stderr.fileno(), STATUS, inheritable=False)
    gc.disable()
    gc.freeze()
    Spawner(listener).run()


if __name__ == "__main__":
    main()
