"""The spawner: parent of every container, single-threaded, standard library only.

Run as `python -I -S __main__.py FOLDER [ready]` with a listening socket as standard input; the empty folder
is where roots are mounted, each in a mount namespace of its own. It starts processes as the runtime says
(docs/spawner-protocol.md), keeps their pidfds and its ends of their pipes, and tells how they ended. One
runtime is connected at a time; when it goes away every process stays, and the next one is told what is
there. Without a runtime and without processes it ends. With `ready` a process waits for the next container.
"""

import contextlib
import functools
import os
import select
import signal
import socket
import sys as python
from collections.abc import Callable

if __name__ == "__main__":  # `-I -S` leaves only the standard library on the path
    python.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.spawner import adoption, failures, fields, harden, joining, protocol
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import PLANS, STATUS
from tinyo_runtime.spawner.process import Process, start
from tinyo_runtime.spawner.ready import Ready

#: Seconds that a runtime may let us wait when it does not read; it is told everything when it comes back.
PATIENCE = 1


class Spawner:
    """One poll loop: descriptors, and what to do when they are ready."""

    def __init__(self, listener: socket.socket, folder: str) -> None:
        self.listener = listener
        #: The first process of a container, without a plan yet.
        self.new_container = functools.partial(start, folder=folder)
        self.runtime: socket.socket | None = None
        #: By id until they are forgotten, and by process id until they are waited for.
        self.processes: dict[str, Process] = {}
        self.children: dict[int, Process] = {}
        self.ready = Ready(self.new_container)
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.watch(listener.fileno(), self.accept)
        wake, signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        self.watch(wake, lambda: self.reap(wake))

    def run(self) -> None:
        """Never returns."""
        while True:
            happened = [(fd, self.handlers[fd]) for fd, _ in self.poll.poll(self.ready.patience or None)]
            for fd, handler in happened:
                if self.handlers.get(fd) is handler:  # else it was closed, and its number is another's now
                    handler()
            if not happened:
                self.ready.make()

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
        self.disconnect()
        self.runtime, _ = self.listener.accept()
        protocol.prepare(self.runtime)
        self.runtime.settimeout(PATIENCE)
        self.watch(self.runtime.fileno(), self.read)
        adoption.report(self)
        self.tell("ready", "", fields=[*fields.PLAN])

    def disconnect(self) -> None:
        if self.runtime:
            self.unwatch(self.runtime.fileno())
            self.runtime.close()
            self.runtime = None

    def read(self) -> None:
        """One message of the runtime."""
        assert self.runtime
        with failures.survived(self):
            if received := protocol.receive(self.runtime):
                try:
                    self.obey(*received)
                finally:
                    for fd in received[1]:
                        os.close(fd)
            else:
                self.leave()

    def obey(self, message: protocol.Message, fds: list[int]) -> None:
        """Does what a message says."""
        match message.get("op"):
            case "start":
                for plan in message["processes"]:
                    self.start(plan, fds)
            case "forget":
                self.forget(message["id"])
            case _:
                adoption.adopt(self, message, fds)

    def leave(self) -> None:
        """The runtime has gone: nobody to work for, and perhaps nothing to keep."""
        self.disconnect()
        if not self.processes:
            self.ready.discard()
            raise SystemExit

    def start(self, plan: protocol.Message, fds: list[int]) -> None:
        """Gives a plan to a process; the answer comes when its status pipe says how it went."""
        id, kept = str(plan["id"]), [fds[index] for index in plan["keep"]]
        with failures.of_clone(self, id):
            if id in self.processes:
                raise failures.taken(id)
            process = joining.clone(plan, fds) or self.ready.take() or self.new_container()
            self.processes[id] = self.children[process.pid] = process
            self.watch(process.status, lambda: self.entered(process))
            process.follow(plan, fds, kept)

    def entered(self, process: Process) -> None:
        """The status pipe ended: with nothing in it exec succeeded, otherwise a step failed, and it will end."""
        self.unwatch(process.status)
        process.hear()
        joining.succeed(self.children)
        if not process.failure:
            self.tell("started", process.id, (process.pidfd,), pid=process.pid)

    def reap(self, wake: int) -> None:
        """Waits for children that have ended, also for those that a container made ours (CLONE_PARENT), and
        never for one that its tracer still holds: that one comes with another SIGCHLD."""
        os.read(wake, 4096)
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                joining.succeed(self.children)
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED)
                if process := self.children.pop(ended.si_pid, None):
                    process.exit = {"status": ended.si_status, "signaled": ended.si_code != os.CLD_EXITED}
                    self.exited(process)

    def exited(self, process: Process) -> None:
        """The record stays until the runtime has read the pipes and says `forget`."""
        if process.status >= 0:
            self.entered(process)
        if self.processes.get(process.id) is not process:
            process.close()  # it was forgotten before
        elif process.failure:
            failures.tell(self, process)
        elif process.exit:
            self.tell("exited", process.id, **process.exit)

    def forget(self, id: str) -> None:
        """The runtime has all that it wants. A process that has not ended yet is waited for all the same."""
        process = self.processes.pop(id, None)
        if process and process.exit:
            process.close()


def main() -> None:
    """Sets up once what every child inherits, a private mount namespace first of all."""
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("", "/", "", sys.MS_REC | sys.MS_SLAVE)
    harden.protect_spawner()
    for reserved in (STATUS, PLANS):
        os.dup2(python.stderr.fileno(), reserved, inheritable=False)
    Spawner(socket.socket(fileno=0), python.argv[1]).run()


if __name__ == "__main__":
    main()
