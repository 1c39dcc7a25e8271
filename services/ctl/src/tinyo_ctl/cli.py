"""`tinyo`: finds the command, gets it a node to talk to, and turns what happened into an exit code.

0 it worked, 1 it failed, 2 the command line or a Statefile is wrong, 3 the services cannot be reached,
130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyo_ctl import Failure, UsageError
from tinyo_ctl.diagnose import unknown

EPILOG = """examples:
  tinyo + web.yml                   bring up what a Statefile says
  tinyo ls                          what runs
  tinyo logs -f web                 what it writes, as it comes
  tinyo exec web -- ls -l /         run a program in it
  tinyo - web.yml                   take it away again

`tinyo COMMAND --help` says more. Exit codes: 0 it worked, 1 it failed, 2 the command line or a
Statefile is wrong, 3 the services cannot be reached, 130 interrupted. $TINYO_HOST and $TINYO_INSTANCE
choose another node than that of this machine; $NO_COLOR turns colours off."""


#: How help looks: as it is written.
LOOK: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


@dataclass(frozen=True)
class Command:
    """One command: its name and aliases, what it does, what it takes, and how it is done."""

    names: tuple[str, ...]
    help: str
    run: Callable[[argparse.Namespace], int]
    #: What `ArgumentParser.add_argument` is called with.
    arguments: Sequence[tuple[Sequence[str], dict[str, Any]]] = ()
    #: What its help ends with.
    example: str = ""


def main() -> int:
    """The program: exit code of what the command line asks for."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = run(sys.argv[1:] or ["--help"])
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


def run(arguments: list[str]) -> int:
    """Finds the command and runs it. Failure, or SystemExit(2), when there is no such command or it has other options."""
    # Takes a tenth of a second, in which Ctrl-C must work as well.
    from tinyo_ctl.commands import COMMANDS

    listing = "\n".join(f"  {', '.join(one.names):15} {one.help}" for one in COMMANDS)
    parser = argparse.ArgumentParser(
        "tinyo", usage="tinyo COMMAND …", description=f"commands:\n{listing}", epilog=EPILOG, **LOOK
    )
    parser.add_argument("--host", default=os.environ.get("TINYO_HOST", ""), help="another node: unix:PATH")
    parser.add_argument("words", nargs=argparse.PARSER, metavar="COMMAND", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    command, words = find(COMMANDS, options.words)
    parser = argparse.ArgumentParser(
        f"tinyo {command.names[0]}", description=command.help, epilog=command.example, **LOOK
    )
    for flags, settings in command.arguments:
        parser.add_argument(*flags, **settings)
    return command.run(parser.parse_args(words, options))


def find(commands: Sequence[Command], words: list[str]) -> tuple[Command, list[str]]:
    """The command that words begin with ("image ls" is two), and the rest of them. UsageError with the nearest one."""
    known = {name: command for command in commands for name in command.names}
    for count in (2, 1):
        if command := known.get(" ".join(words[:count])):
            return command, words[count:]
    group = any(name.startswith(f"{words[0]} ") for name in known)
    raise UsageError(unknown("command", " ".join(words[: 2 if group else 1]), known))
