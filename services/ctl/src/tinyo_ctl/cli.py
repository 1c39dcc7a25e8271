"""`tinyo`: `+` and `-` are what it is for; `commands` has all the others, and the options of these two."""

import os
import sys

from tinyo_ctl import haste
from tinyo_ctl.failures import Ending


def main() -> int:
    """The program: exit code of what the command line asks for."""
    host = os.environ.get("TINYO_HOST", "")
    with Ending() as ending:
        # What is imported here takes a tenth of a second, in which Ctrl-C must work as well.
        match sys.argv[1:]:
            case ["+" | "-" as sign, *names] if names and not any(name.startswith("-") for name in names):
                from tinyo_ctl import access, changes

                access.check(host)
                return changes.apply(names, host) if sign == "+" else changes.remove(names, host)
            case words:
                from tinyo_ctl.commands import run

                return run(words, host)
    return ending.code


def run() -> None:
    """The program as it is installed."""
    haste.begin()
    code = main()
    haste.leave(code)
    sys.exit(code)
