"""Profiles of system calls that users bring, in Docker's JSON, as programs for the kernel.

What is wrong with one the node has told; here it only must not do harm.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tinyo_runtime import libseccomp
from tinyo_runtime.libseccomp import ARCHITECTURES, OPERATORS, Compare, number_of, ways
from tinyo_runtime.options import filters

#: Instructions of a filter (BPF_MAXINSNS).
LONGEST = 4096
#: Comparisons of arguments in all, and rules for one call that compare several: libseccomp takes minutes for what has
#: more, and the kernel not at all.
MOST_COMPARISONS, MOST_CHAINS = 1024, 32
#: Nobody is beside a container who could trace it.
ACTIONS = {name: number for name, number in libseccomp.ACTIONS.items() if name != "SCMP_ACT_TRACE"}
#: How Docker calls the machines.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def compiled(text: str, capabilities: frozenset[str]) -> bytes:
    """The program for a container that has these capabilities, by name ("CAP_SYS_CHROOT"). Raises OSError, and
    LookupError, TypeError, ValueError or RecursionError where the text is no profile."""
    profile = json.loads(text)
    chains, compared_in_all = Counter[str](), 0
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    with filters.begun(default, architectures(profile)) as rules:
        for rule in profile.get("syscalls") or ():
            does = action(rule["action"], rule.get("errnoRet"))
            if does == default or not counts(rule, capabilities):  # libseccomp refuses what says nothing
                continue
            chain = comparisons(rule.get("args") or ())
            for name in rule.get("names") or [rule["name"]]:
                for compared in chain:
                    chains[name] += len(compared) > 1
                    compared_in_all += len(compared)
                    if compared_in_all > MOST_COMPARISONS or chains[name] > MOST_CHAINS:
                        raise ValueError("it compares too many arguments")
                    rules.add(does, plain(name), *compared)
        program = newer_calls(profile, default) + rules.program()
    if len(program) > LONGEST * 8:
        raise OSError(f"it makes {len(program) // 8} instructions, and the kernel takes {LONGEST}")
    return program


def newer_calls(profile: dict[str, Any], default: int) -> bytes:
    """Calls that are newer than all that a profile names are as if the kernel did not have them, as with runc, where
    it would answer them with an error: C libraries do without what is missing, and give up about other errors."""
    newest = max((number_of(plain(name)) for name in named(profile)), default=0)
    if newest < filters.UNIFIED or default & ~0xFFFF != filters.ERRNO:
        return b""
    return filters.packed(filters.missing_from(newest + 1))


def named(profile: dict[str, Any]) -> Iterator[str]:
    """Every call that it names, whatever becomes of it."""
    for rule in profile.get("syscalls") or ():
        yield from rule.get("names") or [rule["name"]]


def plain(name: str) -> str:
    """The name of a call; in C it would end at a NUL."""
    if not name.isidentifier():
        raise ValueError(f"{name!r} is no system call")
    return name


def action(name: str, error: int | None) -> int:
    """What becomes of a call, as a number of seccomp(2)."""
    number = ACTIONS[name]
    return number | (1 if error is None else error & 0xFFFF) if number == filters.ERRNO else number


def architectures(profile: dict[str, Any]) -> list[int]:
    """Ways into this kernel besides the machine's own: those that are listed, or that belong to this machine."""
    own, *further = filters.ARCHITECTURES[os.uname().machine]
    names = list(profile.get("architectures") or ())
    for one in profile.get("archMap") or ():
        if ARCHITECTURES.get(one["architecture"]) == own:
            names += one.get("subArchitectures") or ()
    found = {ARCHITECTURES.get(name) for name in names}
    return [architecture for architecture in further if architecture in found]


def counts(rule: dict[str, Any], capabilities: frozenset[str]) -> bool:
    """Whether it is for a container with these capabilities, on this machine."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    machine = MACHINES[os.uname().machine]
    return not (
        (includes.get("arches") and machine not in includes["arches"])
        or not capabilities.issuperset(includes.get("caps") or ())
        or (includes.get("minKernel") and not reached(includes["minKernel"]))
        or machine in (excludes.get("arches") or ())
        or not capabilities.isdisjoint(excludes.get("caps") or ())
        or (excludes.get("minKernel") and reached(excludes["minKernel"]))
    )


def reached(version: str) -> bool:
    """Whether this kernel is at least "4.8"."""
    release = os.uname().release.split("-")[0].split(".")
    return tuple(map(int, release[:2])) >= tuple(map(int, version.split(".")))


def comparisons(arguments: Iterable[dict[str, Any]]) -> list[list[Compare]]:
    """Of the arguments of a call; the prefix of an operator may be missing."""
    compared = []
    for one in arguments:
        how = OPERATORS[f"SCMP_CMP_{one['op'].removeprefix('SCMP_CMP_')}"]
        values = (one.get("value") or 0, one.get("valueTwo") or 0)
        compared.append(Compare(one.get("index") or 0, how, *values))
    return ways(compared)
