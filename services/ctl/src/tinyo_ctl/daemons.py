"""`tinyo services …` and `tinyo version`."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.container_pb2 import Phase
from tinyo.v1.version_pb2 import Version

from tinyo_ctl import services, startup, supervise, systemd
from tinyo_ctl.access import need_root
from tinyo_ctl.client import connect
from tinyo_ctl.launch import launch
from tinyo_ctl.refusals import NodeError
from tinyo_ctl.render import ago, fail, size, table
from tinyo_ctl.tell import safe, say

#: Seconds that a node may take to answer, and between two looks for news in a log.
PATIENCE, PAUSE = 5, 0.2


def start(options: argparse.Namespace) -> int:
    """`tinyo services start`."""
    need_root()
    started = launch()
    for service in services.SERVICES:
        say(f"tinyo-{service} {'started' if service in started else 'runs already'}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """`tinyo services stop`: containers go on."""
    need_root()
    running = running_containers()
    for service in (stopped := supervise.stop()):
        say(f"tinyo-{service} stopped")
    if not stopped:
        say("no service runs")
    elif running:
        say(f"{running} {'container goes' if running == 1 else 'containers go'} on running")
    return 0


def running_containers() -> int:
    """How many containers run; 0 when no node says so in time, which must not keep it from being stopped."""
    if not services.answers("node"):
        return 0
    try:
        with connect(services.NODE) as calls:
            containers = calls.List(api.ListRequest(), timeout=PATIENCE).containers
    except NodeError as error:
        fail("tinyo-node", f"cannot say what runs: {error}")
        return 0
    return sum(one.status.phase == Phase.PHASE_RUNNING for one in containers)


def status(options: argparse.Namespace) -> int:
    """`tinyo services status`; 0 when all of them answer, else 3."""
    need_root()
    pids = {service: supervise.listener(service) for service in services.SERVICES}
    told = versions() if pids["node"] else {}
    rows = [("SERVICE", "STATUS", "PID", "VERSION", "UPTIME", "MEMORY")]
    for service, pid in pids.items():
        if pid:
            known = (str(pid), told.get(service, ""), uptime(pid), size(memory(pid)))
            rows.append((f"tinyo-{service}", "running", *known))
        else:
            rows.append((f"tinyo-{service}", "stopped", "", "", "", ""))
    print(table(rows))
    return 0 if all(pids.values()) else 3


def versions() -> dict[str, str]:
    """Version of each service that can be asked."""
    try:
        with connect(services.NODE) as calls:
            answer = calls.GetVersion(api.GetVersionRequest(), timeout=PATIENCE)
    except NodeError as error:
        fail("tinyo-node", f"listens, but does not answer: {error}")
        return {}
    return {"node": answer.version.program, "runtime": answer.runtime.program}


def uptime(pid: int) -> str:
    """How long a process has been there."""
    ticks = int(startup.started(pid) or 0)
    return ago(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def memory(pid: int) -> int:
    """Bytes of a process that are in memory (proc_pid_statm(5), field 2)."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def logs(options: argparse.Namespace) -> int:
    """`tinyo services logs`: what they said lately."""
    need_root()
    if systemd.has_units(services.INSTANCE):
        units = [f"--unit=tinyo-{service}" for service in services.SERVICES]
        follow = ["--follow"] if options.follow else []
        command = ["journalctl", "--no-pager", f"--lines={options.lines}", *follow, *units]
        os.execvp("journalctl", command)
    readers = [reader(service, options.lines) for service in services.SERVICES]
    for read in readers:
        read()
    while options.follow:
        time.sleep(PAUSE)
        for read in readers:
            read()
    return 0


def reader(service: str, lines: int) -> Callable[[], None]:
    """Prints the last lines of a service's log, and at each further call those that came since."""
    log = services.RUN / f"{service}.log"
    position, skip = 0, True

    def read() -> None:
        nonlocal position, skip
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(position)
            said = file.read()
        whole = said[: said.rfind(b"\n") + 1]
        position += len(whole)
        for line in whole.decode(errors="replace").splitlines()[-lines if skip else 0 :]:
            say(f"{service}: {safe(line)}")
        skip = False

    return read


def version(options: argparse.Namespace) -> int:
    """`tinyo version`: of this program, and of the services when they can be asked without starting them."""
    # Only here: it takes longer than asking the node.
    from importlib.metadata import version as installed

    say(f"tinyo          {installed('tinyo-ctl')}")
    if options.host or services.answers("node"):
        with connect(options.host or services.NODE) as calls:
            answer = calls.GetVersion(api.GetVersionRequest(), timeout=PATIENCE)
        say(f"tinyo-node     {told(answer.version)}  {safe(answer.node_id)}")
        say(f"tinyo-runtime  {told(answer.runtime) if answer.HasField('runtime') else 'cannot be reached'}")
    return 0


def told(of: Version) -> str:
    """A service's version and its contract's."""
    return f"{safe(of.program)}  contract {safe(of.contract)}"
