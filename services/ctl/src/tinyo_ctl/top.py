"""`tinyo top`: the processes of a container. What they say of themselves is shown, and never obeyed."""

import argparse
import json
import os
import shlex
import sys

from google.protobuf.json_format import MessageToDict
from tinyo.node.v1.verbs_pb2 import TopRequest
from tinyo.v1.top_pb2 import ContainerProcess

from tinyo_ctl.render import ago, size, table
from tinyo_ctl.services import node

HEADING = ("PID", "HOST PID", "USER", "STATE", "CPU", "MEMORY", "AGE", "COMMAND")


def show(options: argparse.Namespace) -> int:
    """A table, or objects for programs."""
    with node(options.host) as calls:
        processes = calls.Top(TopRequest(name=options.name)).processes
    if options.output == "json":
        print(json.dumps([facts(one) for one in processes], indent=2))  # in ASCII: no terminal obeys it
        return 0
    lines = table([HEADING, *map(row, processes)]).split("\n")
    if sys.stdout.isatty():
        columns = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        lines = [lines[0], *(fitting(line, columns) for line in lines[1:])]
    print("\n".join(lines))
    return 0


def fitting(line: str, columns: int) -> str:
    """As much of a line as a terminal has room for."""
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


def facts(process: ContainerProcess) -> dict[str, object]:
    """All that is known, with numbers as numbers."""
    found = MessageToDict(
        process, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: getattr(process, name) if isinstance(found[name], str) else found[name] for name in found}


def row(one: ContainerProcess) -> tuple[str, ...]:
    """A process as a line of the table; in brackets is the name of one without a command, as with ps(1)."""
    return (
        str(one.pid),
        str(one.host_pid),
        one.user or str(one.uid),
        one.state,
        spent(one.cpu_ms),
        size(one.rss_bytes),
        ago(one.age_ms / 1000),
        shlex.join(one.command) if one.command else f"[{one.comm}]",
    )


def spent(milliseconds: int) -> str:
    """Processor time, as in 0.25 s, 1:05 min or 26:03 h."""
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.2f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02} h"
