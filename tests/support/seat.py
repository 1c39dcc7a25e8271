"""Somebody who sits at a terminal and runs `tinyo` there.

seat = Seat(instance, "exec", "-it", "web", "--", "sh")
seat.until("# ")
seat.type("exit 7\\n")
assert seat.end() == 7
"""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

from tests.support.instance import PATIENCE, PROGRAMS, Instance

#: What a shell says of itself, without the prompt and the echo of what was typed.
SILENT = "stty -echo; PS1=; echo be''gin"


class Seat:
    """A terminal at which `tinyo` is run, in a session of its own that it controls."""

    def __init__(self, instance: Instance, *arguments: str) -> None:
        self.master, self.slave = os.openpty()
        self.resize(24, 80)
        self.settings = termios.tcgetattr(self.slave)
        self.said = b""
        self.process = subprocess.Popen(
            [PROGRAMS / "tinyo", *arguments],
            env=instance.environment,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, rows: int, columns: int) -> None:
        """Its window has another size, of which who is in front of it hears."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Types."""
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown up to a regular expression, which must come; the next call begins behind it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern.encode(), self.said)):
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} did not come: {self.said!r}"
            self.said += os.read(self.master, 65536)
        shown, self.said = self.said[: found.end()], self.said[found.end() :]
        return shown.decode()

    def ask(self, command: str) -> str:
        """What a silent shell answers to a line."""
        self.type(f"{command}; echo =$?=\n")
        return self.until(r"=\d+=\r\n").replace("\r\n", "\n")

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self.slave) == self.settings
        os.close(self.master)
        os.close(self.slave)
        return code
