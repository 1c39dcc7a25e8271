"""`tinyo exec -t`, `attach` and `run -t`: the terminal that somebody sits at becomes that of the program, and is itself again afterwards."""

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tinyo.v1.stream_pb2 import TerminalSize

from tinyo_ctl.failures import UsageError

#: What ends us from outside, and must not leave the terminal as the program had it.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def size() -> TerminalSize:
    """Rows and columns of the terminal on standard input, as it is now."""
    columns, rows = os.get_terminal_size(0)
    return TerminalSize(rows=rows, columns=columns)


def is_there() -> bool:
    """Whether somebody sits at one."""
    return bool(sys.stdin) and os.isatty(0)


def need() -> None:
    """UsageError when nobody does."""
    if not is_there():
        raise UsageError("standard input is not a terminal: leave out -t, or run it in one")


@contextmanager
def lent(said: int) -> Iterator[TerminalSize]:
    """Inside, every byte that is typed is the program's, Ctrl-C too, and SIGWINCH is written into the pipe `said`.
    Whatever happens, the terminal has its settings again afterwards. Raises UsageError when there is none."""
    need()
    settings = termios.tcgetattr(0)
    signal.signal(signal.SIGWINCH, lambda number, _: os.write(said, bytes([number])) and None)
    for number in ENDINGS:
        signal.signal(number, _end)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield size()
    finally:
        with suppress(termios.error):  # it was hung up, and has no settings any more
            termios.tcsetattr(0, termios.TCSANOW, settings)


def _end(number: int, _: FrameType | None) -> None:
    """The exit code of who was ended by a signal, as shells say it."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)
