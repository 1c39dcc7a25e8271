"""`tinyo exec -t`: the terminal that somebody sits at becomes that of the program, and is itself again afterwards."""

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tinyo.v1.stream_pb2 import ExecSpec, TerminalSize

from tinyo_ctl.failures import UsageError

#: What ends us from outside, and must not leave the terminal as the program had it.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def size() -> TerminalSize:
    """Rows and columns of the terminal on standard input, as it is now."""
    columns, rows = os.get_terminal_size(0)
    return TerminalSize(rows=rows, columns=columns)


@contextmanager
def lent(spec: ExecSpec, said: int) -> Iterator[None]:
    """Inside, every byte that is typed is the program's, Ctrl-C too, and SIGWINCH is written into the pipe `said`.
    Whatever happens, the terminal has its settings again afterwards. Raises UsageError when there is none."""
    if not sys.stdin or not os.isatty(0):
        raise UsageError("standard input is not a terminal: leave out -t, or run it in one")
    spec.tty = True
    spec.size.CopyFrom(size())
    settings = termios.tcgetattr(0)
    signal.signal(signal.SIGWINCH, lambda number, _: os.write(said, bytes([number])) and None)
    for number in ENDINGS:
        signal.signal(number, _end)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        with suppress(termios.error):  # it was hung up, and has no settings any more
            termios.tcsetattr(0, termios.TCSANOW, settings)


def _end(number: int, _: FrameType | None) -> None:
    """The exit code of who was ended by a signal, as shells say it."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)
