"""Profiles of system calls as Docker has them, in JSON: who wrote one finds what is wrong with it by its path in there,
as in `syscalls[3].action`.
"""

import json
import re
from collections import Counter
from typing import Any

#: Bytes of a profile.
SIZE_LIMIT = 128 << 10
#: Comparisons of arguments in all, and rules for one call that compare several: making a filter of more takes minutes,
#: and no kernel takes it.
MOST_COMPARISONS, MOST_CHAINS = 1024, 32
#: Actions that a filter can have without a program beside the container.
ACTIONS = ("ALLOW", "ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "LOG", "TRAP")
#: Those that need one: a tracer, a listener.
ATTENDED = ("NOTIFY", "TRACE")
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
#: MAX_ERRNO of the kernel.
MOST_ERRNO = 4095
NAME = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)
ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]{1,32}", re.ASCII)
KERNEL = re.compile(r"[0-9]{1,5}\.[0-9]{1,5}", re.ASCII)


class Malformed(ValueError):
    """A profile is none: where, and why."""


def profile(text: str) -> None:
    """Raises Malformed unless a text is a profile as Docker has them."""
    if len(text.encode(errors="replace")) > SIZE_LIMIT:
        raise Malformed("it is larger than 128 KiB")
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("it nests too deeply") from None
    except ValueError as error:
        raise Malformed(f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise Malformed("it is no JSON object")
    action(document.get("defaultAction"), "defaultAction")
    number(document.get("defaultErrnoRet"), "defaultErrnoRet", MOST_ERRNO)
    if document.get("listenerPath"):
        raise Malformed("listenerPath: there is no listener beside a container")
    architectures(document)
    chains, in_all = Counter[str](), 0
    for rule, place in each(document, "syscalls"):
        names, compared = rule_of(rule, place)
        in_all += len(names) * compared
        chains.update(names if compared > 1 else ())
        if in_all > MOST_COMPARISONS or max(chains.values(), default=0) > MOST_CHAINS:
            most = (
                f"{MOST_COMPARISONS} comparisons in all, {MOST_CHAINS} rules for a call that compare several"
            )
            raise Malformed(f"{place}.args: too many arguments are compared; there may be {most}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key is there twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(f"{shown(twice)} is there twice in one object")
    return made


def architectures(document: dict[str, Any]) -> None:
    """Machines: `architectures`, or `archMap` with the ways into each kernel."""
    names = [(name, f"architectures[{i}]") for i, name in enumerate(listed(document, "architectures"))]
    for one, place in each(document, "archMap"):
        names.append((one.get("architecture"), f"{place}.architecture"))
        further = listed(one, "subArchitectures", place)
        names += [(name, f"{place}.subArchitectures[{i}]") for i, name in enumerate(further)]
    for name, place in names:
        if not (isinstance(name, str) and ARCHITECTURE.fullmatch(name)):
            raise Malformed(f"{place}: {shown(name)} is no architecture, such as SCMP_ARCH_X86_64")
    if document.get("architectures") and document.get("archMap"):
        raise Malformed("architectures: there is archMap as well, say one of them")


def rule_of(rule: dict[str, Any], place: str) -> tuple[list[str], int]:
    """One rule: which calls it is about, and how many arguments it compares."""
    names = listed(rule, "names", place)
    if rule.get("name"):
        if names:
            raise Malformed(f"{place}: say `name` or `names`, and not both")
        names = [rule["name"]]
    for index, name in enumerate(names):
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise Malformed(f"{place}.names[{index}]: {shown(name)} is no name of a system call")
    action(rule.get("action"), f"{place}.action")
    number(rule.get("errnoRet"), f"{place}.errnoRet", MOST_ERRNO)
    compared = each(rule, "args", place)
    for argument, where in compared:
        number(argument.get("index", 0), f"{where}.index", 5)
        number(argument.get("value", 0), f"{where}.value", 2**64 - 1)
        number(argument.get("valueTwo", 0), f"{where}.valueTwo", 2**64 - 1)
        op = argument.get("op")
        if not isinstance(op, str) or op.removeprefix("SCMP_CMP_") not in COMPARISONS:
            raise Malformed(f"{where}.op: {shown(op)} is none of SCMP_CMP_{', '.join(COMPARISONS)}")
    if len(compared) > 6:
        raise Malformed(f"{place}.args: a system call has six arguments")
    for key in ("includes", "excludes"):
        condition(rule.get(key), f"{place}.{key}")
    return names, len(compared)


def condition(value: Any, place: str) -> None:
    """When a rule counts."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise Malformed(f"{place}: an object is expected here")
    for key in ("arches", "caps"):
        for index, one in enumerate(listed(value, key, place)):
            if not isinstance(one, str):
                raise Malformed(f"{place}.{key}[{index}]: a text is expected here")
    least = value.get("minKernel")
    if least not in (None, "") and not (isinstance(least, str) and KERNEL.fullmatch(least)):
        raise Malformed(f"{place}.minKernel: {shown(least)} is no version of a kernel, such as 4.8")


def action(value: Any, place: str) -> None:
    """What becomes of a system call."""
    name = value.removeprefix("SCMP_ACT_") if isinstance(value, str) and value.startswith("SCMP_ACT_") else ""
    if name in ATTENDED:
        raise Malformed(f"{place}: SCMP_ACT_{name} needs a program beside the container, which there is not")
    if name not in ACTIONS:
        known = ", ".join(f"SCMP_ACT_{one}" for one in ACTIONS)
        raise Malformed(f"{place}: {shown(value)} is no action; there are {known}")


def number(value: Any, place: str, most: int) -> None:
    """A number from 0 on; nothing is one as well."""
    if value is not None and (type(value) is not int or not 0 <= value <= most):
        raise Malformed(f"{place}: {shown(value)} is no number from 0 to {most}")


def listed(value: dict[str, Any], key: str, place: str = "") -> list[Any]:
    """A list, which may be missing."""
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise Malformed(f"{place}{place and '.'}{key}: a list is expected here")
    return found or []


def each(value: dict[str, Any], key: str, place: str = "") -> list[tuple[dict[str, Any], str]]:
    """The objects of such a list, each with its place."""
    found = [(one, f"{place}{place and '.'}{key}[{i}]") for i, one in enumerate(listed(value, key, place))]
    for one, where in found:
        if not isinstance(one, dict):
            raise Malformed(f"{where}: an object is expected here")
    return found


def shown(value: Any) -> str:
    """What was found there, in a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
