"""`tinyo completion`: scripts for shells, made from the table of commands.

Names of containers are completed when a node answers; completing never starts the services.
"""

import argparse

from tinyo_ctl.commands import COMMANDS

#: Commands that are followed by names of containers.
NAMED = (
    *("-", "rm", "logs", "exec", "stop", "start", "restart", "kill", "wait", "pause", "unpause", "rename"),
    *("inspect", "top", "port", "update", "stats", "events", "commit"),
)
CONTAINERS = "[ -S /run/${TINYO_INSTANCE:-tinyo}/node.sock ] && tinyo ls -a -o name 2>/dev/null"

BASH = """\
_tinyo() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words="{first}"
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{first}"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _tinyo tinyo
"""


def completion(options: argparse.Namespace) -> int:
    """Prints the script for a shell."""
    print(fish() if options.shell == "fish" else bash(zsh=options.shell == "zsh"), end="")
    return 0


def bash(*, zsh: bool) -> str:
    """For bash, and for zsh by its own emulation of bash's completion."""
    first = sorted({name.split()[0] for name in everything()})
    groups = {name.split()[0] for name in everything() if " " in name}
    cases = [f'    {group}) words="{" ".join(second(group))}" ;;' for group in sorted(groups)]
    cases.append(f"    {'|'.join(NAMED)}) words=$({CONTAINERS}) ;;")
    cases.append('    *) words="" ;;')
    script = BASH.format(first=" ".join(first), cases="\n".join(cases))
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if zsh else script


def fish() -> str:
    """For fish."""
    lines = [
        f"complete -c tinyo -n __fish_use_subcommand -f -a '{name}' -d '{command.help}'"
        for command in COMMANDS
        for name in command.names
        if " " not in name
    ]
    for group in sorted({name.split()[0] for name in everything() if " " in name}):
        lines.append(f"complete -c tinyo -n __fish_use_subcommand -f -a '{group}'")
        words = " ".join(second(group))
        lines.append(f"complete -c tinyo -n '__fish_seen_subcommand_from {group}' -f -a '{words}'")
    named = " ".join(NAMED)
    lines.append(
        f"complete -c tinyo -n '__fish_seen_subcommand_from {named}' -a '(sh -c \"{CONTAINERS}\")'".replace(
            "$", "\\$"
        )
    )
    return "\n".join(lines) + "\n"


def everything() -> list[str]:
    """Every name that a command has."""
    return [name for command in COMMANDS for name in command.names]


def second(group: str) -> list[str]:
    """The words that may follow a first one, as in "image ls"."""
    return [name.split()[1] for name in everything() if name.startswith(f"{group} ")]
