"""`linux.seccomp` of a bundle as a program for the kernel (seccomp(2)), by libseccomp: the format that Docker's profiles
have once they are resolved."""

import binascii
import errno

from tinyo_runtime.libseccomp import ACTIONS, ARCHITECTURES, OPERATORS, Compare, Filter, ways
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.parts import Part

#: They have a number.
WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
#: seccomp(2): SECCOMP_FILTER_FLAG_*. A process with one thread needs no TSYNC.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}  # fmt: skip


def program(seccomp: Part) -> tuple[str, int]:
    """As a plan has it, in base64, and the flags to load it with; "" where a bundle has none. OciError."""
    if not seccomp:
        return "", 0
    for key in ("listenerPath", "listenerMetadata"):
        seccomp.refuse(key)
    flags = 0 if seccomp.texts("flags") else FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    for flag in seccomp.texts("flags"):
        if flag not in FLAGS:
            raise seccomp.wrong("flags", f"has {flag!r}: there are {', '.join(FLAGS)}")
        flags |= FLAGS[flag]
    try:
        return binascii.b2a_base64(_compiled(seccomp), newline=False).decode(), flags
    except OSError as error:
        raise OciError(
            f"{seccomp.where} cannot be made: {error}; is the package libseccomp2 there?"
        ) from None


def _action(part: Part, key: str, number: str) -> int:
    name = part.needed(key)
    if name not in ACTIONS:
        raise part.wrong(key, f"is {name!r}: there are {', '.join(ACTIONS)}")
    more = part.number(number, 0, 4095)
    return ACTIONS[name] | ((errno.EPERM if more is None else more) if name in WITH_NUMBER else 0)


def _compiled(seccomp: Part) -> bytes:
    default = _action(seccomp, "defaultAction", "defaultErrnoRet")
    with Filter(default) as made:
        for name in seccomp.texts("architectures"):
            if name in ARCHITECTURES:  # others are of machines that this is not
                made.add_architecture(ARCHITECTURES[name])
        for entry in seccomp.parts("syscalls"):
            action, comparisons = _action(entry, "action", "errnoRet"), _comparisons(entry)
            for name in entry.texts("names") if action != default else ():
                for way in ways(comparisons):
                    made.add(action, name, *way)
        return made.program()


def _comparisons(entry: Part) -> list[Compare]:
    """Those of one entry."""
    found = []
    for one in entry.parts("args"):
        operator = one.needed("op")
        if operator not in OPERATORS:
            raise one.wrong("op", f"is {operator!r}: there are {', '.join(OPERATORS)}")
        place, first, second = (
            one.number("index", 0, 5),
            one.number("value") or 0,
            one.number("valueTwo") or 0,
        )
        found.append(Compare(place or 0, OPERATORS[operator], first, second))
    return found
