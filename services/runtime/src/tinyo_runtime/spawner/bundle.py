"""A process of an OCI bundle: the first of its container, or a further one in it (docs/spawner-protocol.md, `bundle`).

What differs from the runtime's own containers: the root is a folder that somebody unpacked; mounts, privileges and limits
are those of the bundle; and whoever asks goes away, the spawner too, while the process waits at its gate. So it is a
child of its caller's subreaper when it begins, and its end is told there (docs/decisions/0026-bundles.md).
"""

import errno
import fcntl
import os
import socket
from typing import Any

from tinyo_runtime.spawner import (
    credentials,
    filesystems,
    harden,
    hooks,
    mapped,
    mounts,
    protocol,
    readonly,
    system,
    tty,
)
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner.enter import (
    MAX_FD,
    STATUS,
    Plan,
    Step,
    enter_cwd,
    join_cgroups,
    leave_the_host,
)
from tinyo_runtime.spawner.label import choose_apparmor_profile
from tinyo_runtime.spawner.process import Process, start

#: Kinds of namespaces: their flag, and their name in /proc/PID/ns. That of mounts is always a new one.
KINDS = {
    "pid": (sys.CLONE_NEWPID, "pid"),
    "network": (sys.CLONE_NEWNET, "net"),
    "ipc": (sys.CLONE_NEWIPC, "ipc"),
    "uts": (sys.CLONE_NEWUTS, "uts"),
    "cgroup": (sys.CLONE_NEWCGROUP, "cgroup"),
}
#: What a further process is in before it is cloned, so that it never is in the host's.
ALL = sum(flag for flag, _ in KINDS.values())
#: Descriptors of the process while it waits: its caller, its gate, and then what it shall keep.
CALLER, GATE, KEPT = STATUS + 1, STATUS + 2, STATUS + 3


def clone(plan: protocol.Message, fds: list[int]) -> Process:
    """A process in its namespaces, but for those that it enters itself. The caller hears of it at once."""
    told = plan["bundle"]
    own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for _, name in KINDS.values()]
    try:
        if "container" in told:
            sys.setns(fds[told["container"]], ALL)
            process = start(0, FURTHER)
        else:
            for kind, index in told["join"]:
                if (
                    kind == "pid" or "user" in told
                ):  # for the children that follow, who may not do so themselves
                    sys.setns(fds[index], KINDS[kind][0])
            new = [KINDS[kind][0] for kind in told["new"] if kind != "cgroup"]
            process = start(sum(new, sys.CLONE_NEWNS | mapped.flag(told)), FIRST)
        mapped.prepare(process.pid, told, [fds[index] for index in plan["stdio"]])
    finally:
        for fd in own:
            sys.setns(fd, 0)
            os.close(fd)
    with socket.socket(fileno=os.dup(fds[told["caller"]])) as caller:
        protocol.send(caller, {"op": "cloned", "pid": process.pid}, [process.pidfd])
    return process


def bundle(plan: Plan) -> dict[str, Any]:
    """What the plan says of the bundle."""
    told: dict[str, Any] = plan.message["bundle"]
    return told


def enter_namespaces(plan: Plan) -> None:
    """Those that exist already; and that of cgroups, which begins where the process is (cgroup_namespaces(7))."""
    told = bundle(plan)
    for kind, index in told["join"]:
        if kind != "pid" and "user" not in told:
            sys.setns(plan.fds[index], KINDS[kind][0])
    if "cgroup" in told["new"]:
        sys.unshare(sys.CLONE_NEWCGROUP)
    if "network" in told["new"]:
        filesystems.bring_up_loopback()
    if told["hostname"]:
        socket.sethostname(told["hostname"])
    if told["domainname"]:
        name = os.fsencode(told["domainname"])
        sys.check(sys.libc.setdomainname(name, len(name)), "setdomainname")
    credentials.set_oom_score(told["process"])


def place_root(plan: Plan) -> None:
    """The root was opened by the caller: where its path leads by now does not matter."""
    told = bundle(plan)
    folder = os.open(told["folder"], os.O_PATH | os.O_CLOEXEC)
    sys.move_mount(plan.fds[told["root"]], folder, told["folder"])
    os.chdir(told["folder"])


def mount_all(plan: Plan) -> None:
    """What the bundle mounts, in its order, on targets that are looked up inside the root; then what /dev lacks."""
    told = bundle(plan)
    for mount in told["mounts"]:
        filesystems.mount(mount, plan.fds)
    for node in told["devices"]:
        filesystems.make_node(*node)
    for path, to in told["links"]:
        filesystems.make_link(path, to)
    os.close(mounts.open_in_root(plan.cwd, make="folder"))
    filesystems.write_sysctls(told["sysctl"])


def meet_caller(plan: Plan) -> None:
    """Hooks of the host run while the container is there and the host's tree is still seen; then the container's."""
    told = bundle(plan)
    with socket.socket(fileno=os.dup(plan.fds[told["caller"]])) as caller:
        protocol.send(caller, {"op": "made"})
        answer = protocol.receive(caller)
    if answer is None:
        raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED), "the caller")
    told["state"] = answer[0]["state"]
    hooks.run_all("createContainer", told["hooks"], told["state"])


def open_terminal(plan: Plan) -> None:
    """Its slave is the container's console too, by its descriptor (CVE-2025-52565)."""
    tty.open_terminal(plan)
    if "terminal" in plan.message and "container" not in bundle(plan):
        mounts.attach(sys.open_tree(plan.stdio[0], ""), "/dev/console", make="file", links=False)


def close_root(plan: Plan) -> None:
    """What can be read only, what is hidden, how mounts propagate from now on; the root itself comes last."""
    told = bundle(plan)
    for path in told["read_only_paths"]:
        system.write_protect(path)
    for path in told["masked_paths"]:
        system.mask(path)
    if told["propagation"]:
        sys.mount("", "/", "", told["propagation"])
    readonly.close(told)


def join_container(plan: Plan) -> None:
    """The mounts of a running container, and its user namespace; all else was joined before the clone."""
    credentials.set_oom_score(bundle(plan)["process"])
    mapped.join(plan.fds[bundle(plan)["container"]], bundle(plan))
    mapped.become_root(plan)


def take_stdio(plan: Plan) -> None:
    """0, 1 and 2; caller, gate and what shall be kept, until exec; and of the host nothing else (CVE-2024-21626)."""
    told = bundle(plan)
    wanted = [plan.fds[index] for index in (told["caller"], told["gate"], *told["keep"])]
    above = max(*plan.fds, KEPT + len(wanted)) + 1
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in wanted]
    for number, fd in [*enumerate(plan.stdio), *enumerate(high, CALLER)]:
        os.dup2(fd, number, inheritable=number <= 2)
    os.closerange(CALLER + len(high), MAX_FD)
    os.setsid()


def drop_privileges(plan: Plan) -> None:
    """The user and the groups of the process, and its capabilities but for what the last step needs."""
    process = bundle(plan)["process"]
    lent = "user" in bundle(plan)  # then its pipes are its own already
    plan.env.setdefault(
        "HOME", credentials.become(process, own_terminal="terminal" in plan.message, own_pipes=not lent)
    )


def find_program(plan: Plan) -> None:
    """As the user and in the working directory, so that whoever creates the container hears of one that is not there."""
    name, reason = plan.argv[0], errno.ENOENT
    for folder in [""] if "/" in name else plan.env.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                bundle(plan)["program"] = path
                return
            reason = errno.EACCES
    raise OSError(reason, os.strerror(reason), name)


def wait_at_gate(plan: Plan) -> None:
    """Says that it is ready. Whoever comes to the gate lets it go on, and hears what fails from now on."""
    told = bundle(plan)
    with socket.socket(fileno=os.dup(CALLER)) as caller:
        protocol.send(caller, {"op": "ready"})
        if told["gate"] == told["caller"]:
            if protocol.receive(caller) is None:
                os._exit(0)
            visitor = os.dup(CALLER)
        else:
            with socket.socket(fileno=os.dup(GATE)) as gate:
                visitor = gate.accept()[0].detach()
    os.dup2(visitor, STATUS, inheritable=False)
    os.close(visitor)
    os.closerange(CALLER, KEPT)
    hooks.run_all("startContainer", told["hooks"], told.get("state", {}))


def execute(plan: Plan) -> None:
    """The limits, the system calls, the last privileges; then what shall be kept moves to 3 and on, and the program."""
    told = bundle(plan)
    credentials.finish(told["process"], plan.message.get("seccomp", ""))
    status = fcntl.fcntl(STATUS, fcntl.F_DUPFD_CLOEXEC, KEPT + len(told["keep"]))
    try:
        for number in range(len(told["keep"])):
            os.dup2(KEPT + number, STATUS + number)
        harden.default_signals()
        os.execve(told["program"], plan.argv, plan.env)
    finally:
        os.dup2(status, STATUS, inheritable=False)


FIRST: tuple[Step, ...] = (
    join_cgroups, choose_apparmor_profile, enter_namespaces, place_root, mapped.become_root, mount_all, meet_caller, leave_the_host, open_terminal, close_root,
    take_stdio, tty.take_terminal, drop_privileges, enter_cwd, find_program, wait_at_gate, execute,
)  # fmt: skip
FURTHER: tuple[Step, ...] = (
    join_cgroups, choose_apparmor_profile, join_container, open_terminal, take_stdio, tty.take_terminal, drop_privileges, enter_cwd,
    find_program, wait_at_gate, execute,
)  # fmt: skip
