"""Disk, clock, /proc, and who may read what is ours."""

import ctypes
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.doctor import Machine, off, on

#: What adjtimex(2) answers when nothing keeps the clock right; bytes of struct timex, of which none is set.
TIME_ERROR, TIMEX = 5, 208
#: Before this was written no clock was right.
WRITTEN = 1_700_000_000


def disk(machine: Machine) -> Iterator[Finding]:
    """Whether pulls may still take some of it."""
    from tinyo_runtime.images import marks

    level, limits = marks.Level.of(machine.state), marks.understood(machine.settings)
    free = f"{(level.total - level.used) / 1e9:.1f} of {level.total / 1e9:.1f} GB free at {machine.state}"
    if limits.lacking(level, 0):
        why = f"{free}, less than disk_reserve ({machine.settings.disk_reserve}): nothing is pulled any more"
        yield off(why, "tinyo image prune -a")
    else:
        yield on(f"{free}, disk_reserve is {machine.settings.disk_reserve}")


def clock(machine: Machine) -> Iterator[Finding]:
    """Certificates and tokens are judged by it."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if time.time() < WRITTEN:
        yield off(f"it says {now}, so that no certificate is valid", "set it: date -s, or run an NTP client")
    elif ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX)) == TIME_ERROR:
        yield off(f"{now}; nobody keeps it right", "run an NTP client", optional=True)
    else:
        yield on(now)


def processes(machine: Machine) -> Iterator[Finding]:
    """Mounted with hidepid, it shows root all the same, unless there is a user namespace around us (proc(5))."""
    options = next(
        (
            line.partition(" - ")[2].split()[2]
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines())
            if line.split()[4] == "/proc"
        ),
        "",
    )
    hidden = next((option for option in options.split(",") if option.startswith("hidepid")), "")
    if not Path("/proc/1/stat").exists():
        yield off(
            f"processes of others cannot be seen ({hidden or 'no process 1'})",
            "mount -o remount,hidepid=0 /proc",
        )
    else:
        yield on(f"{hidden}: root sees all the same" if hidden else "all processes can be seen")


def modes(machine: Machine) -> Iterator[Finding]:
    """Folders and sockets belong to root alone, or to a group that somebody chose."""
    looked = 0
    for path, wanted in (
        (machine.run, 0o700),
        (Path(machine.settings.state), 0o700),
        *((path, 0o660) for path in machine.run.glob("*.sock")),
    ):
        if not path.exists():
            continue
        looked += 1
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != 0:
            yield off(f"{path} belongs to user {found.st_uid}", f"chown root {path}")
        elif mode & ~wanted:
            to = "0600" if wanted == 0o660 else f"{wanted:04o}"
            yield off(f"{path} has mode {mode:04o}: others reach it", f"chmod {to} {path}")
        else:
            continue
        return
    yield on(
        f"{looked} folders and sockets of ours are root's alone" if looked else "nothing of ours is here"
    )
