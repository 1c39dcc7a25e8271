"""`tinyo`: runs the command, and turns what came of it into an exit code.

0 it worked, 1 it failed, 2 the command line or a Statefile is wrong, 3 the services cannot be reached,
130 interrupted.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from tinyo_ctl import Failure

if TYPE_CHECKING:
    from argparse import Namespace

    from tinyo_ctl.arguments import Command


def main() -> int:
    """The program: exit code of what the command line asks for."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        # These take a tenth of a second, in which Ctrl-C must work as well.
        from tinyo_ctl.arguments import parse
        from tinyo_ctl.commands import COMMANDS

        command, options = parse(COMMANDS, sys.argv[1:] or ["--help"])
        code = perform(command, options)
        sys.stdout.flush()
        return code
    except Failure as failure:
        print(f"{failure.prefix}{failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read the output has gone; at exit, Python would fail once more to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def perform(command: "Command", options: "Namespace") -> int:
    """Runs a command, if who asks may; its exit code."""
    if not command.local:
        from tinyo_ctl.services import need_access

        need_access(options.host)
    module, _, function = command.run.partition(":")
    try:
        code: int = getattr(importlib.import_module(f"tinyo_ctl.{module}"), function)(options)
    except KeyboardInterrupt:
        if command.goes_on:
            print(f"interrupted: {command.goes_on}", file=sys.stderr)
        raise
    return code
