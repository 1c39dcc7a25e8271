"""The terminal of a program that is waited for: what is typed goes in, what it says comes out."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import tty

CHUNK = 1 << 16


class Terminal:
    """A master that comes from the container, and our own terminal, if there is one."""

    def __init__(self) -> None:
        self.master = -1

    def take(self, master: int) -> None:
        """It has the size of ours."""
        self.master = master
        self.resize()

    def resize(self) -> None:
        """As ours is now."""
        with contextlib.suppress(OSError):  # ours is no terminal
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def relay(self) -> None:
        """Until nobody has its slave any more. Our terminal passes every key on meanwhile."""
        signal.signal(signal.SIGWINCH, lambda *_: self.resize())
        settings = termios.tcgetattr(0) if os.isatty(0) else None
        try:
            if settings:
                tty.setraw(0, termios.TCSADRAIN)  # what was typed before counts
            self._pump()
        finally:
            if settings:
                termios.tcsetattr(0, termios.TCSADRAIN, settings)
            os.close(self.master)

    def _pump(self) -> None:
        poll = select.poll()
        for fd in (0, self.master):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                try:
                    data = os.read(fd, CHUNK)
                except OSError:  # EIO: nobody has the slave
                    data = b""
                if fd == self.master and not data:
                    return
                if fd == 0 and not data:
                    poll.unregister(0)
                    data = self._end_of_file()
                _write(1 if fd == self.master else self.master, data)

    def _end_of_file(self) -> bytes:
        """What ends the input of a terminal that reads lines; one that reads bytes has no end."""
        settings = termios.tcgetattr(self.master)
        return bytes(settings[6][termios.VEOF]) if settings[3] & termios.ICANON else b""


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
