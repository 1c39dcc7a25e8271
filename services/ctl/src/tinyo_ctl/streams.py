"""`tinyo exec`: bytes of a container, whole where a program reads them, harmless on a terminal."""

import argparse
import codecs
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TextIO

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.stream_pb2 import ExecInput, ExecSpec

from tinyo_ctl import terminal
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


def execute(options: argparse.Namespace) -> int:
    """`tinyo exec`: gives the exit code of the program; Ctrl-C goes to it as SIGINT, and with -t as it is typed."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("say what to run: tinyo exec NAME -- COMMAND")
    env = dict(variable.partition("=")[::2] for variable in options.env)
    spec = ExecSpec(command=command, env=env, workdir=options.workdir, user=options.user)
    out, err = Output(sys.stdout, lent=options.tty), Output(sys.stderr)
    heard, said = os.pipe()
    with node(options.host) as calls, terminal.lent(spec, said) if options.tty else nullcontext():
        signal.signal(signal.SIGINT, lambda number, _: os.write(said, bytes([number])) and None)
        start = api.ExecStart(name=options.name, exec=spec)
        for answer in calls.Exec(_requests(start, heard)):
            match answer.output.WhichOneof("output"):
                case "stdout":
                    out.write(answer.output.stdout)
                case "stderr":
                    err.write(answer.output.stderr)
                case "exit":
                    return answer.output.exit.code & 0xFF
    return 1


def _requests(start: api.ExecStart, signals: int) -> Iterator[api.ExecRequest]:
    """What is sent: the start, then standard input as it comes, and signals. gRPC asks for each when it can take it."""
    yield api.ExecRequest(start=start)
    watched = [0, signals]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if signals in readable:
            number = os.read(signals, 1)[0]
            resized = number == signal.SIGWINCH
            yield api.ExecRequest(
                input=ExecInput(resize=terminal.size()) if resized else ExecInput(signal=number)
            )
        elif data := os.read(0, CHUNK):
            yield api.ExecRequest(input=ExecInput(stdin=data))
        else:
            watched.remove(0)
            yield api.ExecRequest(input=ExecInput(end_of_input=True))
