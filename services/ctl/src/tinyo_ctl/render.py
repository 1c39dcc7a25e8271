"""What people see: colours, tables, sizes and times."""

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import IO

from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.v1.container_pb2 import Container, Phase, Port
from tinyo.v1.health_pb2 import HealthState, HealthStatus

from tinyo_ctl.keys.ports import shown
from tinyo_ctl.tell import safe

#: Numbers of SGR (ECMA-48) for the few styles that there are.
STYLES = {"green": 32, "red": 31, "yellow": 33, "dim": 2, "bold": 1, "cyan": 36, "magenta": 35, "blue": 34}


def styled(style: str, text: str, stream: IO[str] | None = None) -> str:
    """Text in a style, where the stream is a terminal and NO_COLOR (https://no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not (stream or sys.stdout).isatty():
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows in columns; the first row is the heading."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["   ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([styled("dim", lines[0]), *lines[1:]])


def phase(container: Container) -> str:
    """Where a container stands, in a word or two."""
    status = container.status
    if status.phase == Phase.PHASE_EXITED and status.HasField("next_start_at"):
        wait = max(0, math.ceil(status.next_start_at.ToNanoseconds() / 1e9 - time.time()))
        return f"restarting ({status.restarts}, in {wait} s)"
    if status.phase == Phase.PHASE_EXITED:
        why = ", out of memory" if status.exit.oom_killed else ""
        return f"exited ({status.exit.code}{why})"
    if status.phase == Phase.PHASE_RUNNING and status.paused:
        return "paused"
    if status.phase == Phase.PHASE_UNSPECIFIED:
        return "unknown"
    if status.phase == Phase.PHASE_RUNNING and status.health.state:
        return f"running ({health(status.health)})"
    return Phase.Name(status.phase).removeprefix("PHASE_").lower()


def health(status: HealthStatus) -> str:
    """What checks found, in a word or two."""
    state = HealthState.Name(status.state).removeprefix("HEALTH_STATE_").lower()
    if not (count := status.failures):
        return state
    return f"{state}, {count} failure{'s' if count > 1 else ''}"


def ports(published: Iterable[Port]) -> str:
    """Published ports, host → container."""
    return ", ".join(shown(published))


def age(since: Timestamp) -> str:
    """How long ago something was; empty for never."""
    if not since.seconds:
        return ""
    return ago(time.time() - since.seconds)


def ago(seconds: float) -> str:
    """A time span, in its largest unit that makes at least two."""
    seconds = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def clock(when: Timestamp) -> str:
    """A time of the local clock, to the millisecond."""
    parts = time.localtime(when.seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', parts)}.{when.nanos // 1_000_000:03}"


def size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def succeed(name: str, *facts: str) -> None:
    """Says that something came to a good end."""
    line = "  ".join(map(safe, (name, *facts)))
    print(f"{styled('green', '✓')} {line}\n", end="", flush=True)


def tick() -> None:
    """The mark before a line that says so."""
    print(styled("green", "✓"), end=" ")


def fail(name: str, message: str) -> None:
    """Says that something failed; the parts must be safe."""
    print(f"{styled('red', '✗', sys.stderr)} {name}  {message}", file=sys.stderr, flush=True)
