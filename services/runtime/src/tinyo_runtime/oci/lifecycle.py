"""create, start, kill and delete: the life of a container as the specification tells it."""

import contextlib
import datetime
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinyo_runtime.oci import bundles, launch, resources, state
from tinyo_runtime.oci.cgroups import Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.launch import Console
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.oci.state import Container, Store
from tinyo_runtime.spawner import hooks

#: Seconds that `delete --force` waits for a process to be gone.
PATIENCE = 10


def create(
    store: Store, id: str, bundle: Path, *, pid_file: str, console: Console, keep: Sequence[int]
) -> Container:
    """Everything but the program: the first process waits for `start`. OciError, and nothing is left."""
    bundle = bundle.absolute()
    config = bundles.read(bundle)
    bundles.check(config)
    launch.check_terminal(config.part("process"), console)
    cgroup = Cgroup(bundles.cgroup_path(config, id))
    container = Container(
        id, str(bundle), now(), cgroup.path, annotations=config.texts_by_name("annotations")
    )
    store.make(container, config.value)
    with ExitStack() as undo, ExitStack() as opened:
        undo.callback(store.remove, id)
        cgroup.check_free()
        undo.callback(cgroup.remove)
        cgroup.make()
        resources.apply(cgroup, config.part("linux").part("resources"))
        given = bundles.Descriptors(opened)
        plan = bundles.plan(bundle, config, cgroup, given)
        for fd in keep:
            plan["bundle"]["keep"].append(given.lend(fd))
        plan["cgroups"] = [given.lend(fd) for fd in opened.enter_context(cgroup.opened())]

        def cloned(pid: int) -> None:
            container.pid, container.began = pid, state.began(pid)
            undo.callback(cgroup.signal, signal.SIGKILL)
            store.save(container)

        # In a user namespace nobody makes themselves less likely to be killed.
        score = plan["bundle"]["process"].pop("oom_score_adj") if "user" in plan["bundle"] else None

        def made() -> dict[str, Any]:
            set_score(container.pid, score)
            told = store.described(container, "creating")
            for kind in ("prestart", "createRuntime"):
                run_hooks(kind, plan["bundle"]["hooks"], told)
            return store.described(container, "created")

        gate = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        with in_folder(store.folder(id)) as folder:
            gate.bind(f"{folder}/gate")
        gate.listen(1)
        launch.launch(
            plan, given, store.folder(id), opened, cloned=cloned, made=made, gate=gate, console=console
        )
        if pid_file:
            write_pid(pid_file, container.pid)
        undo.pop_all()
    return container


def set_score(pid: int, score: int | None) -> None:
    """proc_pid_oom_score_adj(5), if the bundle says one. OciError."""
    try:
        if score is not None:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))
    except OSError as error:
        raise OciError(f"config.json: process.oomScoreAdj cannot be {score}: {error.strerror}") from None


def start(store: Store, id: str) -> None:
    """Lets the first process go on, and returns when its program is executed. OciError."""
    container = store.load(id)
    if (status := store.status(container)) != "created":
        raise OciError(f"container {id} cannot be started: it is {status}, and not created")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        try:
            with in_folder(store.folder(id)) as folder:
                visitor.connect(f"{folder}/gate")
            store.gate(id).unlink()
        except (FileNotFoundError, ConnectionRefusedError):
            raise OciError(f"container {id} cannot be started: it is started already, or has ended") from None
        try:
            report = visitor.recv(4096)
        except ConnectionResetError:  # it was killed before it came to look
            raise OciError(f"container {id} cannot be started: it has ended") from None
    if report:
        raise launch.failure(report)
    config = Part(store.config(id), bundles.CONFIG)
    warn_hooks("poststart", bundles.hooks(config), store.described(container))


def kill(store: Store, id: str, number: int, *, everyone: bool) -> None:
    """A signal to the first process, or to all of them. OciError when there is none."""
    container = store.load(id)
    if everyone:
        Cgroup(container.cgroup).signal(number)
        return
    try:
        container.signal(number)
    except OSError:
        status = store.status(container)
        raise OciError(f"container {id} cannot be signalled: it is {status}, process not found") from None
    if number == signal.SIGKILL and Cgroup(container.cgroup).frozen():
        Cgroup(container.cgroup).freeze(False)  # or v1 would never let it end


def delete(store: Store, id: str, *, force: bool) -> None:
    """Undoes `create`. With `force` it is killed first, and one that is not there is none to delete."""
    try:
        container = store.load(id)
    except OciError:
        if not force:
            raise
        if store.folder(id).exists():  # what an interrupted `create` left
            store.remove(id)
        return
    cgroup = Cgroup(container.cgroup)
    status = store.status(container)
    if status != "stopped" and not (force or status == "creating"):
        raise OciError(f"container {id} cannot be deleted: it is {status}; kill it first, or use --force")
    if status != "stopped":
        with contextlib.suppress(OSError, OciError):
            cgroup.freeze(False)
        end(container)
    cgroup.signal(signal.SIGKILL)  # others may share its pid namespace
    cgroup.remove()
    config = Part(store.config(id), bundles.CONFIG)
    told = store.described(container, "stopped")
    store.remove(id)
    warn_hooks("poststop", bundles.hooks(config), told)


def end(container: Container) -> None:
    """Kills the first process, and with it all of its pid namespace; returns when it has ended."""
    if not container.pid:
        return
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(container.pid)
        try:
            container.signal(signal.SIGKILL)
            if not launch.ended(pidfd, PATIENCE):
                raise OciError(f"process {container.pid} of container {container.id} does not end")
        finally:
            os.close(pidfd)


def run_hooks(kind: str, all: dict[str, list[dict[str, Any]]], told: dict[str, Any]) -> None:
    """Hooks of the host. The first that fails is an OciError."""
    try:
        hooks.run_all(kind, all, told)
    except OSError as error:
        raise OciError(f"a hook failed: {error.filename}: {error.strerror}") from None


def warn_hooks(kind: str, all: dict[str, list[dict[str, Any]]], told: dict[str, Any]) -> None:
    """Those whose failure changes nothing, but is told (`poststart`, `poststop`)."""
    for hook in all.get(kind, ()):
        try:
            hooks.run(kind, hook, told)
        except OSError as error:
            os.write(2, f"tinyo-oci: warning: {error.filename}: {error.strerror}\n".encode())


@contextlib.contextmanager
def in_folder(folder: Path) -> Any:
    """A short path of a folder: that of a socket has little room (unix(7))."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def write_pid(path: str, pid: int) -> None:
    """Whole or not at all: somebody may wait for that file. OciError."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w") as file:
            file.write(str(pid))
        os.rename(new, path)
    except OSError as error:
        raise OciError(f"--pid-file {path}: {error.strerror}") from None


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
