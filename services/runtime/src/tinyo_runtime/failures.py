"""What goes wrong with containers, in the user's words and with the field of the spec that is to blame."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

import grpc
from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_runtime.devices.cdi import Unusable
from tinyo_runtime.errors import TinyoError

FAILED = grpc.StatusCode.FAILED_PRECONDITION


class SpawnError(Exception):
    """A step of the spawner failed: which, with what errno (0: none), about what."""

    def __init__(self, step: str, errno: int, about: str) -> None:
        super().__init__(f"{step}: {about}: {os.strerror(errno) if errno else ''}")
        self.step, self.errno, self.about = step, errno, about


def not_found(id: str) -> TinyoError:
    """CONTAINER_NOT_FOUND."""
    message = f"there is no container {id!r}"
    return TinyoError(grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": id})


def not_running(name: str, field: str = "") -> TinyoError:
    """CONTAINER_NOT_RUNNING."""
    message = f"container {name!r} is not running: start it first"
    return TinyoError(FAILED, "CONTAINER_NOT_RUNNING", message, {"name": name}, field)


def old_spawner(option: str = "-t", field: str = "") -> TinyoError:
    """SPAWNER_TOO_OLD: it was started by an earlier version, and lives as long as its containers."""
    why = "the spawner that runs is of a version without terminals"
    message = f"{why}: leave out {option}, or stop all containers once"
    return TinyoError(FAILED, "SPAWNER_TOO_OLD", message, field=field)


def unheard(fields: Iterable[str]) -> TinyoError:
    """SPAWNER_TOO_OLD, for what it would leave out of a start."""
    names = ", ".join(sorted(fields))
    message = (
        f"the spawner that runs is of an earlier version, and knows no {names}: stop all containers once"
    )
    return TinyoError(FAILED, "SPAWNER_TOO_OLD", message, {"fields": names})


def paused(name: str) -> TinyoError:
    """CONTAINER_PAUSED."""
    message = f"container {name!r} is paused: `tinyo unpause {name}` lets it go on"
    return TinyoError(FAILED, "CONTAINER_PAUSED", message, {"name": name})


def never_started(name: str) -> TinyoError:
    """CONTAINER_NEVER_STARTED."""
    message = f"container {name!r} was never started, so there is nothing to make an image of: start it first"
    return TinyoError(FAILED, "CONTAINER_NEVER_STARTED", message, {"name": name})


def not_paused(name: str, why: str) -> TinyoError:
    """CONTAINER_NOT_PAUSED."""
    message = f"container {name!r} cannot be paused: {why}"
    return TinyoError(FAILED, "CONTAINER_NOT_PAUSED", message, {"name": name})


def commit_refused(name: str, why: str) -> TinyoError:
    """COMMIT_REFUSED."""
    message = f"container {name!r} cannot become an image: {why}"
    return TinyoError(FAILED, "COMMIT_REFUSED", message, {"name": name})


def limit_unsupported(field: str, key: str, what: str, kernel: str) -> TinyoError:
    """LIMIT_UNSUPPORTED: the kernel has no such controller, or no such file of it."""
    message = f"{key} cannot be limited: kernel {kernel} offers no {what} among its cgroups; leave {key} out"
    return TinyoError(FAILED, "LIMIT_UNSUPPORTED", message, {"controller": what}, f"resources.{field}")


def limit_refused(field: str, why: str) -> TinyoError:
    """LIMIT_REFUSED."""
    return TinyoError(FAILED, "LIMIT_REFUSED", why, {"limit": field}, f"resources.{field}")


def no_command() -> TinyoError:
    """COMMAND_NOT_FOUND: there is none."""
    message = (
        "there is no command: the image has none, or `entrypoint` replaces it; say `command` in the Statefile"
    )
    return TinyoError(FAILED, "COMMAND_NOT_FOUND", message, {"command": ""})


def source_missing(index: int, source: str) -> TinyoError:
    """MOUNT_SOURCE_MISSING, of the mount with that index."""
    message = f"mount source {source} does not exist: make it, or say `create: true`"
    field = f"mounts[{index}].source"
    return TinyoError(FAILED, "MOUNT_SOURCE_MISSING", message, {"source": source}, field)


def mount_failed(index: int, field: str, message: str) -> TinyoError:
    """MOUNT_FAILED, of the mount with that index."""
    where = f"mounts[{index}].{field}"
    return TinyoError(FAILED, "MOUNT_FAILED", message, {"field": where}, where)


def started_meanwhile(name: str) -> TinyoError:
    """COPY_REFUSED: a container that did not run when it was asked for runs now."""
    message = f"container {name!r} was started just now: try again"
    return TinyoError(grpc.StatusCode.ABORTED, "COPY_REFUSED", message, {"name": name})


@contextlib.contextmanager
def device(name: str, field: str) -> Iterator[None]:
    """DEVICE_UNUSABLE when a device cannot be given to a container."""
    try:
        yield
    except (OSError, Unusable) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        message = f"device {name} cannot be used: {reason}"
        raise TinyoError(FAILED, "DEVICE_UNUSABLE", message, {"device": name}, field) from None


def changes_gone(after: int, oldest: int) -> TinyoError:
    """EVENTS_GONE: a watcher asks for what is no longer kept."""
    message = f"changes after {after} are not kept: list, then watch"
    return TinyoError(grpc.StatusCode.OUT_OF_RANGE, "EVENTS_GONE", message, {"oldest": str(oldest)})


#: How a further process fails when its container ends at the same time: clone(2) says ENOMEM of a pid namespace then.
ENDED = {("join_container", errno.ESRCH), ("clone_inside", errno.ENOMEM)}


@contextlib.contextmanager
def explained(program: str, spec: ContainerSpec) -> Iterator[None]:
    """A step of the spawner that fails in here raises TinyoError."""
    try:
        yield
    except SpawnError as error:
        raise explain(error, program, spec) from error


def wish(error: SpawnError, spec: ContainerSpec) -> tuple[str, str] | None:
    """What the spawner/asked.py could not do, in the user's words, and the field; None for other steps."""
    why = os.strerror(error.errno)
    kind, _, name = error.about.partition(" ")
    if error.step == "set_sysctls":
        if error.errno == errno.ENOENT:
            message = f"this kernel has no parameter {error.about} for a container"
        else:
            message = f"the parameter {error.about} cannot be {spec.sysctls[error.about]!r}: {why}"
        return message, f"sysctls[{error.about}]"
    if kind == "ulimits":
        most = spec.ulimits[name].hard
        message = f"the limit {name} cannot be {most}: that is more than this machine allows"
        if name == "nofile":
            message += ", whose sysctl fs.nr_open says how much that is"
        return message, f"ulimits[{name}]"
    if error.step == "raise_limits":
        return f"oom_score_adj cannot be {spec.oom_score_adj}: {why}", "oom_score_adj"
    if kind == "groups":
        message = f"the image knows no group {name!r}: write its number"
        return message, f"groups[{list(spec.groups).index(name)}]"
    return None


def explain(error: SpawnError, program: str, spec: ContainerSpec) -> TinyoError:
    """A failed step in the user's words, with the field of the spec that is to blame if one is."""
    words = {"entrypoint": spec.entrypoint.words, "command": spec.command, "args": spec.args}
    command = next((field for field, said in words.items() if said), "")
    if error.step == "execute" and error.errno == errno.ENOENT:
        message = f"command {program!r} was not found in the image"
        return TinyoError(FAILED, "COMMAND_NOT_FOUND", message, {"command": program}, command)
    if error.step == "execute" and error.errno in (errno.EACCES, errno.ENOEXEC):
        message = f"command {program!r} cannot be executed: {os.strerror(error.errno)}"
        return TinyoError(FAILED, "COMMAND_NOT_EXECUTABLE", message, {"command": program}, command)
    what = {"step": error.step, "errno": str(error.errno), "object": error.about}
    reason = f"{os.strerror(error.errno)}: {error.about}" if error.errno else error.about
    message = f"the container could not {error.step.replace('_', ' ')}: {reason}"
    if (error.step, error.errno) in ENDED:
        return not_running(spec.name)
    if error.step == "clone_inside":
        why = "has as many processes as it may have (`pids`, `ulimits`)"
        if error.errno != errno.EAGAIN:
            why = f"has CAP_SYS_PTRACE, and its seccomp profile refuses clone(2): {os.strerror(error.errno)}"
        message = f"container {spec.name!r} {why}; nothing more can be run in it"
        return TinyoError(FAILED, "START_FAILED", message, what)
    if error.step == "open_terminal":
        what_for, field = ("`tty`", "tty") if spec.tty else ("-t", "")
        message = f"no terminal can be opened in the container: {reason}; leave out {what_for}, or mount nothing at /dev/pts"
        return TinyoError(FAILED, "START_FAILED", message, what, field)
    if error.step == "enter_cwd" and spec.workdir:
        message = f"the working directory {spec.workdir!r} cannot be entered: {os.strerror(error.errno)}"
        return TinyoError(FAILED, "START_FAILED", message, what, "workdir")
    if refused := wish(error, spec):
        return TinyoError(FAILED, "START_FAILED", refused[0], what, refused[1])
    if error.step == "drop_privileges" and error.about and error.about == spec.user:
        message = f"the image knows no user or group {spec.user!r}"
        return TinyoError(FAILED, "START_FAILED", message, what, "user")
    if error.step == "drop_privileges" and error.errno == errno.EINVAL and not error.about:
        message = (
            f"the user {spec.user or 'of the image'} or a group of theirs has no id in the container's user namespace, "
            "which has those from 0 to 65535: choose another, or say `userns: false`"
        )
        field = "groups" if spec.groups else "user" if spec.user else ""
        return TinyoError(FAILED, "START_FAILED", message, what, field)
    return TinyoError(grpc.StatusCode.INTERNAL, "START_FAILED", message, what)
