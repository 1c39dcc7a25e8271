"""A terminal that remembers what it was sent, and what that looks like: as much of ECMA-48 as bars need.

screen = Screen(columns=80, lines=24)
process = screen.run([TINYO, "image", "pull", "alpine"], environment)
screen.until(lambda: "MB/s" in screen.text)
screen.end(process)
assert screen.text == "✓ alpine …"
"""

import codecs
import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable

#: Seconds that anything may take here before a test fails instead of hanging.
PATIENCE = 30
_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


class Screen:
    """What people would see. It does not wrap: text that is too wide for it is an error of who wrote it."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns, self.lines = columns, lines
        #: All that was sent.
        self.sent = ""
        #: All lines so far, and where the cursor is in them; the last `lines` are to be seen.
        self.rows, self.row, self.column = [""], 0, 0
        #: The widest line that there was, also if it went again.
        self.widest = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pending = ""

    @property
    def text(self) -> str:
        """What is to be seen, without empty lines at its end."""
        return "\n".join(row.rstrip() for row in self.rows[-self.lines :]).rstrip("\n")

    def run(self, command: list[str], environment: dict[str, str], cwd: str = "/") -> subprocess.Popen[bytes]:
        """Starts a program on it."""
        self.master, slave = pty.openpty()
        self.resize(self.columns, self.lines)
        process = subprocess.Popen(command, env=environment, cwd=cwd, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return process

    def resize(self, columns: int, lines: int) -> None:
        """Its window is another size from now on."""
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, is_so: Callable[[], bool]) -> None:
        """Shows what comes until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"this did not happen:\n{self.text}"
            assert self._read(), f"it ended before:\n{self.text}"

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Shows the rest; the exit code."""
        while self._read():
            pass
        os.close(self.master)
        return process.wait(PATIENCE)

    def _read(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError as error:  # how Linux says that nobody has the other side open any more
            assert error.errno == errno.EIO
            return False
        self._show(self._decoder.decode(data))
        return bool(data)

    def _show(self, text: str) -> None:
        self.sent += text
        text = self._pending + text
        begun = re.search(r"\x1b(\[[\d;?]*)?$", text)
        self._pending = text[begun.start() :] if begun else ""
        text = text[: begun.start()] if begun else text
        at = 0
        while at < len(text):
            if control := _CONTROL.match(text, at):
                self._obey(control[1], control[2])
                at = control.end()
                continue
            match text[at]:
                case "\r":
                    self.column = 0
                case "\n":
                    self.row += 1
                    if self.row == len(self.rows):
                        self.rows.append("")
                case char:
                    assert char.isprintable(), f"it was sent {char!r}"
                    row = self.rows[self.row].ljust(self.column)
                    self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
                    self.column += 1
                    self.widest = max(self.widest, self.column)
            at += 1

    def _obey(self, arguments: str, command: str) -> None:
        match command:
            case "m":
                pass
            case "J" if arguments in ("", "0"):
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            case "A":
                up = int(arguments or 1)
                assert up < self.lines, "the cursor leaves the screen"
                self.row -= up
            case _:
                raise AssertionError(f"ESC [ {arguments} {command} is not known")
