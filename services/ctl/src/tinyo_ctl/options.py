"""Options of `tinyo run` that say what a key of a Statefile says: docker's names, and our keys.

What a value means is the key's own affair (`keys`); here stands only which key it is for, and how docker writes it.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tinyo_ctl.failures import UsageError

#: What `--security-opt` and `--log-opt` call the keys of `security` and `log`.
SECURITY = {"seccomp": "seccomp", "apparmor": "apparmor", "no-new-privileges": "no_new_privileges"}
LOG = {"max-size": "max_size", "max-file": "max_files"}


class Option(NamedTuple):
    """One option, all its names, and the key that it is for, which may be in another ("security.capabilities.add")."""

    flags: tuple[str, ...]
    key: str
    #: What its value is called; nothing for a switch, which stands for "true".
    metavar: str
    help: str
    #: It may be there several times; otherwise the last one counts.
    many: bool = False
    #: What would stand in a Statefile. ValueError with a sentence for people.
    written: Callable[[str], Any] = str

    @property
    def name(self) -> str:
        """What argparse calls it."""
        return next(flag for flag in self.flags if flag.startswith("--"))[2:].replace("-", "_")

    def argument(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """As `ArgumentParser.add_argument` takes it."""
        if not self.metavar:
            return self.flags, {"action": "store_const", "const": "true", "help": self.help}
        return self.flags, {
            "action": "append" if self.many else "store",
            "metavar": self.metavar,
            "help": self.help,
        }


def single(text: str) -> list[str]:
    """A list of one: a word that is not split, or one pair of NAME=value."""
    return [text]


def device(text: str) -> dict[str, str]:
    """A device of this machine by its path, or by the name of a CDI file."""
    return {"devices" if text.startswith("/") else "cdi": text}


def userns(text: str) -> str:
    """Docker's word for none."""
    return "false" if text == "host" else text


def security(text: str) -> dict[str, str]:
    """ "seccomp=FILE", "apparmor=NAME", "no-new-privileges", "no-new-privileges=false", or with a colon. ValueError."""
    from tinyo_ctl.keys.security import located

    if text == "no-new-privileges":
        text = f"{text}=true"
    name, value = pair(text if "=" in text else text.replace(":", "=", 1), SECURITY)
    return {name: located(value, os.getcwd()) if name == "seccomp" else value}


def log(text: str) -> dict[str, str]:
    """ "max-size=10m", "max-file=3". ValueError."""
    name, value = pair(text, LOG)
    return {name: value}


def pair(text: str, names: dict[str, str]) -> tuple[str, str]:
    """NAME=value, with the name as a Statefile has it. ValueError."""
    name, _, value = text.partition("=")
    if name not in names:
        raise ValueError(f"{name!r} is not known: there are {', '.join(names)}")
    return names[name], value


#: Those of `tinyo update` as well.
LIMITS = (
    Option(("-m", "--memory"), "memory", "SIZE", "bytes, as in 512m"),
    Option(("--memory-swap",), "memory_swap", "SIZE", "memory and swap together; -1 is all there is"),
    Option(
        ("--memory-reservation",),
        "memory_reservation",
        "SIZE",
        "left to it when the machine runs out of memory",
    ),
    Option(("--cpus",), "cpus", "N", "processors, as in 1.5"),
    Option(("--cpu-weight",), "cpu_weight", "N", "share of the processors, 1 to 10000 (default: 100)"),
    Option(("--cpuset", "--cpuset-cpus"), "cpuset", "LIST", "processors that it may use, as in 0-3,6"),
    Option(("--pids", "--pids-limit"), "pids", "N", "processes and threads (default: 4096)"),
    Option(("--io-weight",), "io_weight", "N", "share of the disks, 1 to 10000 (default: 100)"),
)
OPTIONS = (
    Option(
        ("--entrypoint",),
        "entrypoint",
        "PROGRAM",
        'one word in place of the image\'s entrypoint; "" for none',
        written=single,
    ),
    Option(("--init",), "init", "", "its first process reaps orphans and passes signals on"),
    Option(("--hostname",), "hostname", "NAME", "what it calls itself (default: its name)"),
    Option(("--group-add",), "groups", "GROUP", "a further group of its user", many=True),
    Option(("--stop-signal",), "stop_signal", "SIGNAL", "asks it to end (default: the image's, or TERM)"),
    Option(("--stop-timeout",), "stop_grace", "SECONDS", "before it is killed (default: 10)"),
    Option(("--ulimit",), "ulimits", "NAME=SOFT[:HARD]", "limit of each process", many=True, written=single),
    Option(("--sysctl",), "sysctls", "NAME=VALUE", "parameter of its kernel", many=True, written=single),
    Option(("--oom-score-adj",), "oom_score_adj", "N", "-1000 (never killed) to 1000"),
    Option(("--restart",), "restart", "POLICY", "no, on-failure, on-failure:5, always or unless-stopped"),
    Option(("--read-only",), "read_only", "", "nothing can be written to its root"),
    Option(("--tmpfs",), "tmpfs", "TARGET[:OPTIONS]", "files in memory: /run:size=64m,mode=755", many=True),
    Option(("--shm-size",), "shm_size", "SIZE", "what /dev/shm may hold (default: 64m)"),
    Option(
        ("--device",), "", "DEVICE", "/dev/NAME[:/dev/OTHER][:rwm], or a CDI name", many=True, written=device
    ),
    Option(("--network", "--net"), "network", "NETWORK", "none, host or container:NAME"),
    Option(("--add-host",), "extra_hosts", "NAME:ADDRESS", "a line of its /etc/hosts", many=True),
    Option(("--dns",), "dns.servers", "ADDRESS", "a server that is asked for names", many=True),
    Option(("--dns-search",), "dns.search", "DOMAIN", "in which short names are tried", many=True),
    Option(("--dns-option", "--dns-opt"), "dns.options", "OPTION", "an option of its resolv.conf", many=True),
    Option(("--cap-add",), "security.capabilities.add", "NAME", "a capability more, or ALL", many=True),
    Option(("--cap-drop",), "security.capabilities.drop", "NAME", "a capability less, or ALL", many=True),
    Option(
        ("--security-opt",),
        "security",
        "OPTION",
        "seccomp=FILE|unconfined, apparmor=NAME, no-new-privileges=false",
        many=True,
        written=security,
    ),
    Option(
        ("--userns",), "userns", "true|false", "whether its root is nobody on this machine", written=userns
    ),
    *LIMITS,
    Option(("--health-cmd",), "health.exec", "COMMAND", "checks it: a shell in it runs this"),
    Option(("--health-interval",), "health.interval", "TIME", "between two checks (default: 30s)"),
    Option(("--health-timeout",), "health.timeout", "TIME", "most that one may take (default: 30s)"),
    Option(("--health-retries",), "health.retries", "N", "failures until it is unhealthy (default: 3)"),
    Option(("--health-start-period",), "health.start_period", "TIME", "in which failures do not count"),
    Option(("--health-start-interval",), "health.start_interval", "TIME", "between checks until then"),
    Option(("--no-healthcheck",), "health", "", "not even the image's own check", written=lambda _: "none"),
    Option(("--log-opt",), "log", "OPTION", "max-size=10m or max-file=3: its log", many=True, written=log),
)


def fields(options: argparse.Namespace) -> dict[str, Any]:
    """What these options ask for, as fields of ContainerSpec. UsageError names the option."""
    made: dict[str, Any] = {}
    for option in OPTIONS:
        given = getattr(options, option.name)
        for text in [] if given is None else given if option.many else [given]:
            merge(made, parsed(option, text))
    return made


def parsed(option: Option, text: str) -> dict[str, Any]:
    """The fields that one value stands for. UsageError."""
    from tinyo_ctl import keys

    try:
        value = option.written(text)
        for part in reversed(option.key.split(".") if option.key else ()):
            value = {part: value}
        keys.spell_out(value)
    except ValueError as error:
        raise UsageError(f"{shown(option.flags)}: {error}") from None
    made: dict[str, Any] = value
    return made


def shown(flags: Iterable[str]) -> str:
    """The name of an option in a message: the first long one."""
    return next(flag for flag in flags if flag.startswith("--"))


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds fields: lists grow, messages take what is new, of all else the later one counts."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        elif isinstance(value, list):
            into[name] = [*into.get(name, ()), *value]
        else:
            into[name] = value
