"""exec and run: what waits for a program, and has its exit code."""

import contextlib
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinyo_runtime.oci import bundles, launch, lifecycle, mappings
from tinyo_runtime.oci.cgroups import Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.launch import Console
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.oci.state import Store
from tinyo_runtime.oci.terminal import Terminal
from tinyo_runtime.spawner import protocol

#: Signals that are passed on to a program that is waited for.
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def execute(
    store: Store,
    id: str,
    process: Part,
    *,
    detach: bool,
    pid_file: str,
    console: Console,
    terminal: Terminal | None,
    keep: Sequence[int],
) -> int:
    """Runs a further process in a container; its exit code, or 0 when it is not waited for. OciError."""
    container = store.load(id)
    if (status := store.status(container)) not in ("created", "running"):
        raise OciError(f"container {id} is {status}: nothing can be executed in it")
    launch.check_terminal(process, console)
    config = Part(store.config(id), bundles.CONFIG)
    if not detach:
        launch.become_reaper()
    with ExitStack() as opened:
        given = bundles.Descriptors(opened)
        told: dict[str, Any] = {"container": given.hand(os.pidfd_open(container.pid))}
        if not container.alive():
            raise OciError(f"container {id} has just ended")
        if maps := mappings.read(config):
            told["user"] = maps
        plan = bundles.complete(process, config.part("linux").part("seccomp"), told, given, keep)
        plan["cgroups"] = [given.lend(fd) for fd in opened.enter_context(Cgroup(container.cgroup).opened())]
        started = launch.launch(
            plan,
            given,
            store.folder(id),
            opened,
            cloned=lambda _: None,
            made=dict,
            gate=None,
            console=console,
        )
        if pid_file:
            lifecycle.write_pid(pid_file, started.pid)
        protocol.send(started.caller, {"op": "go"})
        if report := started.caller.recv(4096):
            raise launch.failure(report)
        return 0 if detach else wait(started.pid, started.pidfd, terminal)


def run(
    store: Store,
    id: str,
    bundle: Path,
    *,
    detach: bool,
    keep_container: bool,
    pid_file: str,
    console: Console,
    terminal: Terminal | None,
    keep: Sequence[int],
) -> int:
    """create and start, and unless it is to `detach` wait and delete as well; the exit code."""
    if not detach:
        launch.become_reaper()
    container = lifecycle.create(store, id, bundle, pid_file=pid_file, console=console, keep=keep)
    with ExitStack() as undo:
        undo.callback(lifecycle.delete, store, id, force=True)
        pidfd = os.pidfd_open(container.pid)
        undo.callback(os.close, pidfd)
        lifecycle.start(store, id)
        if detach:
            undo.pop_all()
            return 0
        code = wait(container.pid, pidfd, terminal)
        if keep_container:
            undo.pop_all()
        return code


def wait(pid: int, pidfd: int, terminal: Terminal | None) -> int:
    """The exit code of a program; what we are told by signals, it is told. Its terminal is ours meanwhile."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    if terminal:
        terminal.relay()
    return launch.exit_of(pid)


def described(config: Part, arguments: Sequence[str], **changes: Any) -> Part:
    """The container's own process with another program, and what else was said."""
    process = dict(config.part("process").value) | {"args": [*arguments], "terminal": changes["terminal"]}
    if changes["cwd"]:
        process["cwd"] = changes["cwd"]
    process["env"] = [*process.get("env", []), *changes["env"]]
    if changes["user"]:
        numbers = changes["user"].split(":")
        if len(numbers) > 2 or not all(one.isdecimal() for one in numbers):
            raise OciError(f"--user {changes['user']!r} must be UID or UID:GID")
        process["user"] = dict(zip(("uid", "gid"), map(int, numbers), strict=False))
    return Part(process, "process")
