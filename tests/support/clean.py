"""The oracle: what a test left behind on this machine.

    baseline = snapshot()
    ...                        # whatever must undo what it does
    assert_clean(baseline)     # AssertionError: one line for each thing that is left or gone

The kernel takes some things apart after the call that asked for it has returned (network namespaces, lazy
unmounts, cgroups), so `assert_clean` looks again until all is as before, or until its time is up.
"""

import ctypes
import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

#: As the links in /proc/PID/ns and /proc/PID/fd name them.
NAMESPACE = re.compile(r"\b(?:cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]")
#: Asked for at once: starting `ip` is what takes time.
ROUTES = "route show table all\nrule show\nneigh show nud permanent\n"
#: What a process does that has ended, or that ends while we look.
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Snapshot:
    """What is there, as lines for people, by kind. `pids` and `folders` say what was looked at closely."""

    facts: dict[str, frozenset[str]]
    pids: tuple[int, ...] = ()
    folders: tuple[Path, ...] = ()


def snapshot(pids: Iterable[int] = (), folders: Iterable[Path] = ()) -> Snapshot:
    """Everything that is there now; the open descriptors of `pids` and all files below `folders` as well."""
    watched = Snapshot({}, tuple(pids), tuple(folders))
    facts = {kind: frozenset(look()) for kind, look in LOOKS.items()}
    facts["descriptor"] = frozenset(line for pid in watched.pids for line in descriptors(pid))
    facts["file"] = frozenset(str(path) for folder in watched.folders for path in folder.rglob("*"))
    return replace(watched, facts=facts)


def assert_clean(baseline: Snapshot, within: float = 5.0) -> None:
    """Fails with a readable difference unless everything is as it was within so many seconds."""
    deadline = time.monotonic() + within
    while difference := list(compare(baseline, snapshot(baseline.pids, baseline.folders))):
        if time.monotonic() > deadline:
            raise AssertionError("\n  ".join(["not clean:", *difference]))
        time.sleep(0.02)


def compare(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """One line for each thing that is only in one of the two."""
    for kind, facts in before.facts.items():
        yield from (f"left behind: {kind} {line}" for line in sorted(after.facts[kind] - facts))
        yield from (f"gone: {kind} {line}" for line in sorted(facts - after.facts[kind]))


def mounts() -> Iterator[str]:
    """Mounts of our mount namespace (proc_pid_mountinfo(5))."""
    return numbered(
        f"{fields[4]} ({fields[fields.index('-') + 1]} {fields[fields.index('-') + 2]})"
        for fields in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())
    )


def interfaces() -> Iterator[str]:
    """Network interfaces of our network namespace."""
    return (name for _, name in socket.if_nameindex())


def routes() -> Iterator[str]:
    """Routes, rules and permanent neighbours, of all tables and both protocols."""
    for family in ("-4", "-6"):
        for line in run("ip", family, "-batch", "-", said=ROUTES):
            # Nobody makes these: a timer, and a peer that is not there yet or no more.
            yield re.sub(r" expires \S+| linkdown\b", "", line).strip()


def nftables() -> Iterator[str]:
    """Each statement of the ruleset and each element of a set or map, behind the names of what holds it."""
    path: list[str] = []
    for line in map(str.strip, run("nft", "--stateless", "list", "ruleset")):
        if line.endswith("{"):
            path.append(line[:-1].strip())
            yield " / ".join(path)
        elif line == "}":
            path.pop()
        else:
            elements = line.removeprefix("elements = {").removesuffix("}").split(",")
            yield from (" / ".join([*path, element.strip()]) for element in elements if element.strip())


def cgroups() -> Iterator[str]:
    """cgroups in every hierarchy, save those that systemd comes and goes with."""
    for fields in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines()):
        if fields[fields.index("-") + 1].startswith("cgroup"):
            for path, names, _ in os.walk(fields[4]):
                names[:] = [name for name in names if not name.endswith((".slice", ".scope", ".service"))]
                yield from (f"{path}/{name}" for name in names)


def descendants() -> Iterator[int]:
    """Processes that descend from this one. The tests are a subreaper: nobody gets away by losing a parent."""
    parents = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with suppress(*GONE):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if not (state == "Z" and int(parent) == os.getpid()):  # an orphan that ended; nobody asks for it
                parents[pid] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    yield from sorted(found - {os.getpid()})


def processes() -> Iterator[str]:
    """The descendants by what they run; the helpers that look are not there when they are counted."""
    for pid in descendants():
        with suppress(*GONE):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield f"{pid} {command.strip() or Path(f'/proc/{pid}/comm').read_text().strip()}"


def namespaces() -> Iterator[str]:
    """Namespaces that are not ours and that descendants are in, hold open, or that are mounted."""
    ours = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    found = set[str]()
    for pid in [os.getpid(), *descendants()]:
        for folder in ("ns", "fd"):
            found.update(target for target in links(f"/proc/{pid}/{folder}") if NAMESPACE.fullmatch(target))
    found.update(NAMESPACE.findall(Path("/proc/self/mountinfo").read_text()))
    yield from found - ours


def ports() -> Iterator[str]:
    """TCP ports that are listened on (proc_net_tcp(5): hexadecimal address:port, state 0A)."""
    for name in ("tcp", "tcp6"):
        for fields in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:]):
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                yield f"{name} {address} {int(port, 16)}"


def sysctls() -> Iterator[str]:
    """Settings of the whole machine that a program of our kind is tempted to change."""
    for name in ("ip_forward", "conf/all/route_localnet", "conf/all/rp_filter", "conf/all/arp_ignore"):
        yield f"net/ipv4/{name} = {Path('/proc/sys/net/ipv4', name).read_text().strip()}"


def temporary() -> Iterator[str]:
    """What `tempfile` and we put into the folders for it."""
    for folder in map(Path, ("/tmp", "/var/tmp", "/dev/shm")):
        yield from (
            str(path) for path in folder.glob("*") if path.name.startswith(("tmp", "tinyo", ".tinyo"))
        )


def loop_devices() -> Iterator[str]:
    """Loop devices that have a file."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(*GONE):
            yield f"{path.parts[3]} {path.read_text().strip()}"


def bpf_objects() -> Iterator[str]:
    """Programs, maps and links of the kernel's BPF (bpf(2), BPF_*_GET_NEXT_ID)."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    for name, command in (("program", 11), ("map", 12), ("link", 31)):
        attributes = (ctypes.c_uint32 * 32)()
        while syscall(number, command, ctypes.byref(attributes), ctypes.sizeof(attributes)) == 0:
            attributes[0] = attributes[1]
            yield f"{name} {attributes[0]}"


def descriptors(pid: int) -> Iterator[str]:
    """Open descriptors of a process: their targets without numbers, "pid 7 socket (2)" for the second."""
    kinds = (re.sub(r":\[\d+\]$", "", target) for target in links(f"/proc/{pid}/fd"))
    return numbered(f"of pid {pid}: {kind}" for kind in kinds)


LOOKS: dict[str, Callable[[], Iterator[str]]] = {
    "mount": mounts,
    "interface": interfaces,
    "route": routes,
    "nftables": nftables,
    "cgroup": cgroups,
    "process": processes,
    "namespace": namespaces,
    "port": ports,
    "sysctl": sysctls,
    "temporary": temporary,
    "loop device": loop_devices,
    "BPF": bpf_objects,
}


def numbered(lines: Iterable[str]) -> Iterator[str]:
    """Equal lines told apart: a second "x" becomes "x (2)"."""
    seen = Counter[str]()
    for line in lines:
        seen[line] += 1
        yield line if seen[line] == 1 else f"{line} ({seen[line]})"


def links(folder: str) -> Iterator[str]:
    """Targets of the links in a folder of /proc."""
    with suppress(*GONE):
        for name in os.listdir(folder):
            with suppress(*GONE):
                yield os.readlink(f"{folder}/{name}")


def run(*command: str, said: str = "") -> list[str]:
    """Lines that a program printed, which was told something."""
    done = subprocess.run(command, input=said, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()
