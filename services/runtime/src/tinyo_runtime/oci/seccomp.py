"""`linux.seccomp` of a bundle as a program for the kernel (seccomp(2)), by libseccomp: the format that Docker's profiles
have once they are resolved."""

import binascii
import errno

from tinyo_runtime.libseccomp import Compare, Filter
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.parts import Part

#: What happens at a call, as libseccomp names it; ERRNO and TRACE take a number.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
#: AUDIT_ARCH_* with libseccomp's bit for x32.
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028, "SCMP_ARCH_AARCH64": 0xC00000B7,
}  # fmt: skip
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
                for way in _ways(comparisons):
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


def _ways(comparisons: list[Compare]) -> list[list[Compare]]:
    """All must hold; but two about one argument stand for either of them, as Docker's profiles mean it (as in runc)."""
    places = [one.place for one in comparisons]
    return [[one] for one in comparisons] if len(set(places)) < len(places) else [comparisons]
