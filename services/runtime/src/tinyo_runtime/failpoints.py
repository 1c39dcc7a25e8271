"""For developers: lets the service fail, die or wait at any step that has an effect outside of it.

    TINYO_FAILPOINTS='os.rename */layers/*=kill' tinyo-runtime
    TINYO_FAILPOINTS='tinyo.* *=note:/tmp/points; os.mkdir */pulling/*#2=ENOSPC'

A point is what Python itself announces before it makes, opens for writing, renames or removes something (the audit
events of the standard library), and what our own code announces with `sys.audit("tinyo.…", path)`: nobody has to
remember to name one, and while the variable is not set it costs nothing. It is written "EVENT PATH", with the
wildcards of fnmatch, or several of them with "|" between; `#N` means only the Nth such point. Actions:

    kill          SIGKILL, before the step is taken
    ENOSPC, …     the step raises OSError with that number
    wait:FILE     makes FILE, and goes on when somebody has deleted it
    note:FILE     adds a line with the point's name to FILE
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

VARIABLE = "TINYO_FAILPOINTS"
#: What has an effect that others can see, and which of its arguments says where.
EVENTS = {
    "open": 0,
    "os.chmod": 0,
    "os.link": 1,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rename": 1,
    "os.rmdir": 0,
    "os.symlink": 1,
    "os.truncate": 0,
    "os.utime": 0,
    "subprocess.Popen": 0,
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Point:
    """One entry of the variable."""

    patterns: list[str]
    #: Which of the points that fit; 0: each of them.
    number: int
    act: Callable[[str], None]
    seen: int = 0

    def reached(self, name: str) -> None:
        """Acts, if that is the one."""
        if any(fnmatchcase(name, pattern) for pattern in self.patterns):
            self.seen += 1
            if self.number in (0, self.seen):
                self.act(name)


def begin(text: str = "") -> None:
    """Sets the points of the variable, or of a text like it, for the rest of this process. Raises SystemExit."""
    if points := [parse(one) for one in (text or os.environ.get(VARIABLE, "")).split(";") if one.strip()]:
        sys.addaudithook(_Hook(points))


def parse(text: str) -> Point:
    """`EVENT PATH[#N]=ACTION`. Raises SystemExit with one sentence."""
    place, _, action = text.strip().rpartition("=")
    pattern, _, number = place.partition("#")
    kind, _, file = action.partition(":")
    actions: dict[str, Callable[[str], None]] = {
        "kill": lambda name: os.kill(os.getpid(), signal.SIGKILL),
        "note": lambda name: _note(Path(file), name),
        "wait": lambda name: _wait(Path(file)),
    }
    code = getattr(errno, kind, None)
    if not pattern or (number and not number.isdecimal()) or (kind not in actions and code is None):
        raise SystemExit(f"{VARIABLE}: {text!r}: write EVENT PATH[#N]=kill, ERRNO, wait:FILE or note:FILE")

    def fail(name: str) -> None:
        raise OSError(code, os.strerror(code or 0), name)

    return Point(pattern.split("|"), int(number or 0), actions.get(kind, fail))


class _Hook:
    """What sys.addaudithook(3) calls, for everything that happens in the process."""

    def __init__(self, points: list[Point]) -> None:
        self._points = points
        #: What an action does is no point itself.
        self._acting = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._acting or not (event in EVENTS or event.startswith("tinyo.")):
            return
        if event == "open" and not (arguments[2] or 0) & _WRITES:
            return
        place = arguments[EVENTS.get(event, 0)]
        name = f"{event} {os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else place}"
        self._acting = True
        try:
            for point in self._points:
                point.reached(name)
        finally:
            self._acting = False


def _note(file: Path, name: str) -> None:
    with file.open("a") as notes:
        notes.write(f"{name}\n")


def _wait(file: Path) -> None:
    file.touch()
    while file.exists():
        time.sleep(0.002)  # whoever set the point deletes it
