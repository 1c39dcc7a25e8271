"""The command line, word by word: which command it names, and what that takes."""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyo_ctl.failures import UsageError

EPILOG = """examples:
  tinyo + web.yml                   bring up what a Statefile says
  tinyo ls                          what runs
  tinyo logs -f web                 what it writes, as it comes
  tinyo exec web -- ls -l /         run a program in it
  tinyo - web.yml                   take it away again

`tinyo COMMAND --help` says more, with examples.

exit codes: 0 it worked, 1 it failed, 2 the command line or a Statefile is wrong, 3 the services cannot be
reached, 130 interrupted; that of `exec` is the program's own.
environment: $TINYO_INSTANCE is an installation beside "tinyo", with services and containers of its own;
$TINYO_HOST is what --host says; $NO_COLOR turns colours off."""

#: Arguments of a command that its usage lists.
MOST = 20
#: How help looks: as it is written.
LOOK: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


class Command(NamedTuple):
    """One command: its name and aliases, what it does, what it takes, and how it is done."""

    names: tuple[str, ...]
    help: str
    #: "module:function" of this package, imported when it is called: most commands need little.
    run: str
    #: Command lines, each with what it is for.
    examples: str
    #: What `ArgumentParser.add_argument` is called with.
    arguments: Sequence[tuple[Sequence[str], dict[str, Any]]] = ()
    #: It works without a node, and for everybody.
    local: bool = False


def parse(commands: Sequence[Command], arguments: list[str], host: str) -> tuple[Command, argparse.Namespace]:
    """The command, and its options; `host` unless they say another. UsageError or SystemExit(2) when there is no such command, or it takes others."""
    listing = "\n".join(f"  {', '.join(one.names):16} {one.help}" for one in commands)
    parser = argparse.ArgumentParser(
        "tinyo",
        usage="tinyo [--host unix:PATH] COMMAND …",
        description=f"commands:\n{listing}",
        epilog=EPILOG,
        **LOOK,
    )
    parser.add_argument("--host", default=host, help="another node: unix:PATH")
    parser.add_argument("words", nargs=argparse.PARSER, metavar="COMMAND", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    command, words = find(commands, options.words)
    examples = f"examples:\n{command.examples}"
    parser = argparse.ArgumentParser(
        f"tinyo {command.names[0]}",
        usage=usage(command),
        description=command.help,
        epilog=examples,
        **LOOK,
    )
    parser.add_argument("--host", default=options.host, help=argparse.SUPPRESS)
    for flags, settings in command.arguments:
        parser.add_argument(*flags, **settings)
    return command, parser.parse_args(words)


def usage(command: Command) -> str | None:
    """One line, where all the options would hide what is wrong with one of them; None: as argparse has it."""
    if len(command.arguments) <= MOST:
        return None
    words = [
        f"[{settings['metavar']} ...]" if "nargs" in settings else settings["metavar"]
        for flags, settings in command.arguments
        if not flags[0].startswith("-")
    ]
    return f"tinyo {command.names[0]} [OPTION ...] {' '.join(words)}"


def find(commands: Sequence[Command], words: list[str]) -> tuple[Command, list[str]]:
    """The command that words begin with ("image ls" is two), and the rest of them. UsageError with the nearest one."""
    known = {name: command for command in commands for name in command.names}
    for count in (2, 1):
        if command := known.get(" ".join(words[:count])):
            return command, words[count:]
    group = [name for name in known if name.startswith(f"{words[0]} ")]
    if group and len(words) == 1:
        raise UsageError(f"{words[0]!r} needs one more word: {', '.join(group)}")
    # Only when somebody mistook something.
    from tinyo_ctl.diagnose import unknown

    raise UsageError(unknown("command", " ".join(words[: 2 if group else 1]), group or known))
