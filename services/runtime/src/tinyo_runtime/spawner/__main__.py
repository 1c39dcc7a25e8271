"""The spawner: parent of every container, single-threaded, standard library only.

Run as `python -I -S __main__.py FOLDER [ready]` with a listening socket as standard input; the empty folder
is where roots are mounted, each in a mount namespace of its own. It starts processes as the runtime says
(docs/spawner-protocol.md), keeps their pidfds and its ends of their pipes, and tells how they ended. One
runtime is connected at a time; when it goes away every process stays, and the next one is told what is
there. Without a runtime and without processes it ends. With `ready` a process waits for the next container.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys as python
from collections.abc import Callable

if __name__ == "__main__":  # `-I -S` leaves only the standard library on the path
    python.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.spawner import harden, protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import IGNORED, PLANS, STATUS, enter

#: Milliseconds without anything to do after which the next container's process is made ready.
IDLE = 2


class Process:
    """A process that was cloned, until the runtime says that it may be forgotten.

    Without an `id` it is the one that waits for the next container.
    """

    def __init__(
        self, pid: int, pidfd: int, kept: list[int], status: int = -1, plans: socket.socket | None = None
    ):
        self.id = ""
        self.pid, self.pidfd = pid, pidfd
        #: The runtime's ends of its pipes, kept so that they outlive the runtime.
        self.kept = kept
        #: Reads an error of `enter`, or end of file when exec succeeded; -1 afterwards.
        self.status = status
        #: Where it gets its plan.
        self.plans = plans
        self.exit: protocol.Message | None = None

    def close(self) -> None:
        if self.plans:
            self.plans.close()
        for fd in {self.pidfd, *self.kept, self.status} - {-1}:
            os.close(fd)


class Spawner:
    """One poll loop: descriptors, and what to do when they are ready."""

    def __init__(self, listener: socket.socket, folder: str, *, ready: bool) -> None:
        self.listener = listener
        #: Where a container's root is put together, each in its own mount namespace.
        self.folder = folder
        #: Waits for the plan of the next container; whether there may be one, and whether one is to be made.
        self.ready: Process | None = None
        self.may_be_ready = self.get_ready = ready
        self.runtime: socket.socket | None = None
        self.processes: dict[str, Process] = {}
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.watch(listener.fileno(), self.accept)

    def run(self) -> None:
        """Never returns."""
        while True:
            happened = self.poll.poll(IDLE if self.get_ready else None)
            for fd, _ in happened:
                if handler := self.handlers.get(fd):
                    handler()
            if not happened:
                self.prepare()

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
                protocol.send(self.runtime, {"op": op, "id": id, **what}, fds)
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
                    self.discard()
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

    def start(self, plan: protocol.Message, fds: list[int]) -> None:
        """Gives a plan to a process; the answer comes when its status pipe says how it went."""
        id = plan["id"]
        if not isinstance(id, str):
            raise protocol.ProtocolError(f"id {id!r} is no string")
        if id in self.processes:
            return self.tell("failed", id, step="clone", errno=17, object="id is taken")
        kept = [fds[index] for index in plan["keep"]]
        try:
            if "container" in plan:
                process = self.clone(fds[plan["container"]])
            else:
                process, self.ready, self.get_ready = self.ready or self.clone(), None, self.may_be_ready
        except OSError as error:
            return self.tell("failed", id, step="clone", errno=error.errno, object=error.filename or "")
        process.id, process.kept = id, [os.dup(fd) for fd in kept]
        self.processes[id] = process
        self.watch(process.status, lambda: self.entered(process))
        assert process.plans
        with contextlib.suppress(ConnectionError):  # if it is dead already, its status says why
            protocol.send(process.plans, plan, fds)
        return None

    def clone(self, container: int = -1) -> Process:
        """A child in new namespaces that waits for its plan; or, for a running container, one in its pid
        namespace."""
        new = sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS
        joins = container >= 0
        plans, childs_plans = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        protocol.prepare(plans)
        status, childs_status = os.pipe2(os.O_CLOEXEC)
        if joins:
            sys.setns(container, sys.CLONE_NEWPID)  # of the children that follow
        try:
            pid, pidfd = sys.clone(0 if joins else new)
            if pid == 0:  # the child never comes back from here
                enter(childs_status, childs_plans.fileno(), None if joins else self.folder)
        except OSError:
            plans.close()
            os.close(status)
            raise
        finally:
            childs_plans.close()
            os.close(childs_status)
            if joins:
                sys.setns(self.own_pid_namespace, sys.CLONE_NEWPID)
        return Process(pid, pidfd, [], status, plans)

    def prepare(self) -> None:
        """Nothing happens: a good moment to get ready for the next container. If it fails, the container's
        own try says why."""
        self.get_ready = False
        try:
            self.ready = self.clone()
        except OSError as error:
            print(f"spawner: could not get ready: {error}", file=python.stderr, flush=True)
        else:
            self.watch(self.ready.status, self.discard)

    def discard(self) -> None:
        """The one that waits failed, or is not needed."""
        if process := self.ready:
            self.ready = None
            self.unwatch(process.status)
            assert process.plans
            process.plans.close()
            os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
            process.close()

    def entered(self, process: Process) -> None:
        """The status pipe ended: with nothing in it exec succeeded, otherwise a step failed."""
        error = os.read(process.status, 4096)
        self.unwatch(process.status)
        os.close(process.status)
        process.status = -1
        if process.plans:
            process.plans.close()
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
        process = self.processes[id] = Process(pid, pidfd, kept)
        process.id = id
        self.watch(pidfd, lambda: self.exited(process))

    def forget(self, id: str) -> None:
        if process := self.processes.pop(id, None):
            self.unwatch(process.pidfd)
            self.unwatch(process.status)
            process.close()


def main() -> None:
    """Sets up once what every child inherits: signals, no garbage collection, a protected host."""
    assert len(os.listdir("/proc/self/task")) == 1, "a spawner has one thread"
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, *IGNORED}:
        sys.default_signal(number)
    harden.protect_spawner()
    listener = socket.socket(fileno=0)
    for reserved in (STATUS, PLANS):
        os.dup2(python.stderr.fileno(), reserved, inheritable=False)
    gc.disable()
    gc.freeze()
    Spawner(listener, python.argv[1], ready="ready" in python.argv[2:]).run()


if __name__ == "__main__":
    main()
