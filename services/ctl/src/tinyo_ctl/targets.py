"""What people call containers besides their names and Statefiles."""

import os
from collections.abc import Iterable

from tinyo.v1.container_pb2 import Container

from tinyo_ctl.failures import Failure
from tinyo_ctl.tell import safe


def find(target: str, present: Iterable[Container]) -> list[Container]:
    """Those whose id begins so, or that came from standard input ("-"); none when it is a Statefile.

    Failure when several ids begin so, or it is nothing at all.
    """
    found = [one for one in present if len(target) >= 4 and one.id.startswith(target)]
    if len(found) > 1:
        names = ", ".join(one.spec.name for one in found)
        raise Failure(safe(f"{target!r} is the beginning of several ids: {names}"))
    origin = "-" if target == "-" else os.path.realpath(target)
    if target == "-":
        found = [one for one in present if one.origin == origin]
    if not found and origin not in [one.origin for one in present]:
        raise unknown(target, [one.spec.name for one in present])
    return found


def unknown(target: str, names: list[str]) -> Failure:
    """Something that nothing is called, with the nearest name."""
    # Only when somebody mistook something.
    import difflib

    near = difflib.get_close_matches(target, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "`tinyo ls -a -o wide` shows what there is"
    return Failure(safe(f"{target!r} is neither a container nor a Statefile that brought one up: {hint}"))
