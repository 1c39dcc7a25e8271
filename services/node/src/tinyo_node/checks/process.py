"""A container's process: words, names, numbers and parameters that no kernel takes, or that reach beyond it."""

import re
import signal
from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.network_pb2 import NETWORK_KIND_CONTAINER, NETWORK_KIND_HOST
from tinyo.v1.process_pb2 import Ulimit

#: RFC 1123, section 2.1, and the 64 bytes of uname(2) with their NUL.
HOSTNAME = re.compile(
    r"(?=.{1,63}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,255}\$?")
#: As the runtime reads them (stopping.py there).
SIGNAL = re.compile(
    r"[1-9]|[1-5][0-9]|6[0-4]|(?:SIG)?(?:RTMIN(?:\+(?:[12]?[0-9]|30))?|RTMAX(?:-(?:[12]?[0-9]|30))?|([A-Z0-9]+))"
)
#: RLIMIT_* of getrlimit(2).
LIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)
#: Parameters that a container has for itself: of its ipc namespace, as docker and the kubelet have them.
IPC = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+"
)
NET = re.compile(r"net(\.[A-Za-z0-9_-]+)+")
#: What a program of an image needs open to be started: the three of the terminal, and what exec(2) reads.
LEAST_FILES = 8
MOST_TEXT, MOST_GROUPS, MOST_SYSCTLS, MOST_VALUE = 128 * 1024, 256, 256, 1024
#: Milliseconds of a day.
MOST_GRACE = 86_400_000


def fill(spec: ContainerSpec) -> None:
    """An entrypoint of one empty word is none, as docker has it."""
    if list(spec.entrypoint.words) == [""]:
        del spec.entrypoint.words[:]


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    for field, words in (("entrypoint", spec.entrypoint.words), ("args", spec.args)):
        for index, word in enumerate(words):
            if "\0" in word or len(word) > MOST_TEXT:
                yield f"{field}[{index}]", f"{field} has a word that is too long, or has a NUL in it"
    if spec.hostname and not HOSTNAME.fullmatch(spec.hostname):
        text = f"hostname {spec.hostname!r}: use at most 63 of a-z, 0-9, '-' and '.', each part between letters or digits"
        yield "hostname", text
    yield from groups(spec)
    if spec.stop_signal and not is_signal(spec.stop_signal):
        text = f"{spec.stop_signal!r} is no signal: write it as in SIGTERM, TERM, 15 or SIGRTMIN+3"
        yield "stop_signal", text
    if spec.stop_grace_ms > MOST_GRACE:
        yield "stop_grace_ms", "stop_grace is a day at most"
    for name, limit in spec.ulimits.items():
        if text := ulimit(name, limit):
            yield f"ulimits[{name}]", text
    yield from sysctls(spec)
    if not -1000 <= spec.oom_score_adj <= 1000:
        yield "oom_score_adj", "oom_score_adj is between -1000 and 1000"


def groups(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """Of further groups."""
    if len(spec.groups) > MOST_GROUPS:
        yield "groups", f"a container has at most {MOST_GROUPS} further groups"
    for index, group in enumerate(spec.groups):
        if not GROUP.fullmatch(group) or (group.isdecimal() and int(group) >= 2**32 - 1):
            yield (
                f"groups[{index}]",
                f"{group!r} is no group: write a name of the image's /etc/group, or a number",
            )


def is_signal(text: str) -> bool:
    """Whether it is a number or a name of signal(7)."""
    match = SIGNAL.fullmatch(text.upper())
    return match is not None and (match[1] is None or f"SIG{match[1]}" in signal.Signals.__members__)


def ulimit(name: str, limit: Ulimit) -> str:
    """What is wrong with one limit; nothing when it is none."""
    if name not in LIMITS:
        return f"there is no limit {name!r}: there are {', '.join(LIMITS)}"
    if limit.soft < -1 or limit.hard < -1:
        return f"the limit {name} is a number, or -1 for no limit"
    if limit.hard != -1 and not 0 <= limit.soft <= limit.hard:
        return f"the soft limit {name} is more than the hard one"
    if name == "nofile" and 0 <= limit.soft < LEAST_FILES:
        return f"nothing can be started with less than {LEAST_FILES} open files"
    return ""


def sysctls(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """Of parameters of the kernel: those without a namespace would be the whole machine's."""
    if len(spec.sysctls) > MOST_SYSCTLS:
        yield "sysctls", f"a container has at most {MOST_SYSCTLS} parameters"
    shared = spec.network.kind in (NETWORK_KIND_HOST, NETWORK_KIND_CONTAINER)
    for name, value in spec.sysctls.items():
        if NET.fullmatch(name) and shared:
            yield f"sysctls[{name}]", f"{name} belongs to a network that is not the container's own"
        elif not (NET.fullmatch(name) or IPC.fullmatch(name)):
            text = f"{name!r} cannot be set for a container alone: there are kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and net.*"
            yield f"sysctls[{name}]", text
        if not value or not value.isprintable() or len(value) > MOST_VALUE:
            yield (
                f"sysctls[{name}]",
                f"the value of {name} is empty, too long, or has a control character in it",
            )
