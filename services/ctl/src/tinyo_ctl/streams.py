"""`tinyo exec`: bytes of a container, whole where a program reads them, harmless on a terminal."""

import argparse
import codecs
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from typing import TextIO

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.stream_pb2 import ExecInput, ExecOutput, ExecSpec

from tinyo_ctl import terminal
from tinyo_ctl.detaching import Keys
from tinyo_ctl.failures import UsageError
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Bytes that are read from standard input at once.
CHUNK = 64 << 10
#: What a log may do to a terminal: set colours, and end a line.
ALLOWED = re.compile(r"(\x1b\[[0-9;:]*m|[\n\t])")


class Output:
    """One way out: the bytes as they come, or on a terminal text that it shows and never obeys, unless it is `lent`."""

    def __init__(self, stream: TextIO, *, lent: bool = False) -> None:
        self.stream, self.terminal = stream, stream.isatty() and not lent
        self.decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> None:
        """Shows bytes at once."""
        if self.terminal:
            data = safe_log(self.decoder.decode(data)).encode()
        self.stream.buffer.write(data)
        self.stream.buffer.flush()

    def close(self) -> None:
        """Leaves a terminal in the colours that it had."""
        if self.terminal:
            self.stream.write("\x1b[0m")
            self.stream.flush()


def safe_log(text: str) -> str:
    """Text that a terminal shows and never obeys; lines, tabs and colours stay."""
    parts = ALLOWED.split(text.replace("\r\n", "\n"))
    return "".join(part if index % 2 else safe(part) for index, part in enumerate(parts))


class Line:
    """What we send while a call goes on: standard input as it comes, signals, and the size of our terminal."""

    def __init__(self, *, stdin: bool = True, keys: bytes = b"") -> None:
        self._stdin, self._keys = stdin, Keys(keys)
        self._heard, self.said = os.pipe()
        #: Whether the keys to detach were typed; then `hang_up` is called.
        self.detached = False
        self.hang_up: Callable[[], object] = lambda: None

    def hear(self, *numbers: int) -> None:
        """These signals are sent and not obeyed."""
        for number in numbers:
            signal.signal(number, lambda number, _: self.tell(number))

    def tell(self, number: int) -> None:
        """Sends this signal."""
        os.write(self.said, bytes([number]))

    def inputs(self) -> Iterator[ExecInput]:
        """All of it. gRPC asks for each when it can take it."""
        watched = [self._heard, *([0] if self._stdin else [])]
        while True:
            readable, _, _ = select.select(watched, [], [])
            if self._heard in readable:
                number = os.read(self._heard, 1)[0]
                resized = number == signal.SIGWINCH
                yield ExecInput(resize=terminal.size()) if resized else ExecInput(signal=number)
            elif data := os.read(0, CHUNK):
                data, self.detached = self._keys.passed(data)
                yield ExecInput(stdin=data)
                if self.detached:
                    yield ExecInput(leave=True)
                    self.hang_up()
                    return
            else:
                watched.remove(0)
                yield ExecInput(end_of_input=True)


def shown(outputs: Iterable[ExecOutput], *, lent: bool) -> int:
    """Shows what a process writes, until it has ended: its exit code. On a terminal that is `lent`, as it is."""
    out, err = Output(sys.stdout, lent=lent), Output(sys.stderr)
    for output in outputs:
        match output.WhichOneof("output"):
            case "stdout":
                out.write(output.stdout)
            case "stderr":
                err.write(output.stderr)
            case "exit":
                return output.exit.code & 0xFF
    return 1


def execute(options: argparse.Namespace) -> int:
    """`tinyo exec`: gives the exit code of the program; Ctrl-C goes to it as SIGINT, and with -t as it is typed."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("say what to run: tinyo exec NAME -- COMMAND")
    env = dict(variable.partition("=")[::2] for variable in options.env)
    spec = ExecSpec(command=command, env=env, workdir=options.workdir, user=options.user)
    line = Line(keys=options.detach_keys if options.tty else b"")
    with node(options.host) as calls, terminal.lent(line.said) if options.tty else nullcontext() as size:
        if size:
            spec.tty = True
            spec.size.CopyFrom(size)
        line.hear(signal.SIGINT)
        start = api.ExecRequest(start=api.ExecStart(name=options.name, exec=spec))
        requests = chain([start], (api.ExecRequest(input=one) for one in line.inputs()))
        code = shown((answer.output for answer in calls.Exec(requests)), lent=options.tty)
    if line.detached:
        print("\ndetached: the program goes on, and what it writes is lost", file=sys.stderr)
    return 0 if line.detached else code
