"""What a container changed becomes the blob of a layer, in a confined process that has no say in anything else."""

import asyncio
import errno
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import grpc

from tinyo_runtime import failures
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import child, verify
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST

#: Bytes of what the confined process says.
_MAX_ANSWER = 1 << 20
PACK = [sys.executable, "-I", str(Path(__file__).parents[1] / "pack/__main__.py")]
#: What may be left out of a layer: one of them, and several.
_NOTES = {
    "sockets": ("a socket is", "{} sockets are"),
    "devices": ("a device is", "{} devices are"),
    "names": ('a file or folder whose name begins with ".wh." is', '{} names that begin with ".wh." are'),
    "attributes": ('an attribute with "=" in its name is', '{} attributes with "=" in their names are'),
}


class Packed(NamedTuple):
    """The layer that was written."""

    diff_id: str
    #: What is not as in the container, a sentence each.
    notes: list[str]


async def pack(name: str, upper: Path, compression: str, blob: Path) -> Packed:
    """Writes the layer of a container of that name. Raises COMMIT_REFUSED and OSError; cancelled, it ends at once."""
    with blob.open("xb", buffering=0) as file:
        command = [*PACK, str(upper), compression, str(file.fileno())]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, pass_fds=[file.fileno()], env={}
        )
        try:
            async with child.ended(process):
                assert process.stdout
                answer = await process.stdout.read(_MAX_ANSWER)  # it says all at once, in the end
        except child.Died as error:
            message = f"what container {name!r} changed was not packed, because of the process that does it: {error}"
            raise TinyoError(grpc.StatusCode.INTERNAL, "INTERNAL", message) from None
    return _judged(name, answer, blob)


def _judged(name: str, answer: bytes, blob: Path) -> Packed:
    """What the confined process says, which is believed only where it cannot do harm."""
    try:
        verdict = verify.load(answer)
        if not verdict.get("error"):
            diff_id = member(verdict, "diff_id", str)
            left_out = member(verdict, "left_out", dict)
            if not DIGEST.fullmatch(diff_id) or not all(type(count) is int for count in left_out.values()):
                raise Malformed("no verdict")
            return Packed(diff_id, [*_notes(left_out)])
    except Malformed:
        message = f"packing what container {name!r} changed ended without a verdict"
        raise TinyoError(grpc.StatusCode.INTERNAL, "INTERNAL", message) from None
    if verdict["error"] == "system":
        number = verdict.get("errno")
        why = os.strerror(number) if isinstance(number, int) else str(verdict.get("message"))
        raise OSError(number if isinstance(number, int) else errno.EIO, why, str(blob))
    raise failures.commit_refused(name, str(verdict.get("message")))


def _notes(left_out: Mapping[str, int]) -> list[str]:
    notes = []
    for what, (one, several) in _NOTES.items():
        if count := left_out.get(what, 0):
            notes.append(f"{one if count == 1 else several.format(count)} not in the image")
    if count := left_out.get("changed", 0):
        files = "a file" if count == 1 else f"{count} files"
        notes.append(f"{files} changed while the container was read, and may be in the image half changed")
    return notes
