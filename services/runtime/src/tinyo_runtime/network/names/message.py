"""Messages of DNS (RFC 1035, RFC 6891), as far as one who passes them on needs to know them.

A message has one question. Everything after it is passed on as it is, so nothing after it has to be understood, and
nothing that a stranger made is ever decompressed.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN = 1
OK, MALFORMED, FAILED, NO_NAME, UNKNOWN, REFUSED = range(6)
RESPONSE, AUTHORITATIVE, TRUNCATED, WANTED, AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE = 0x7800
HEADER = struct.Struct("!6H")
#: Bytes of the longest name, and of a message over UDP unless who asks says more.
LONGEST, SMALL = 255, 512
#: Seconds for which who asks may believe an answer of ours: containers come and go.
LIFETIME = 2
#: Where the name of the question is: a pointer to it.
THE_NAME = b"\xc0\x0c"


@dataclass(frozen=True)
class Question:
    """What a message asks for: a name in lower case with dots, and a type."""

    id: int
    flags: int
    name: str
    kind: int
    family: int
    #: As it stands in the message.
    wire: bytes
    #: Bytes of the longest answer that who asks takes over UDP.
    size: int


def question(data: bytes) -> Question:
    """The question of a message. ValueError for what is none, or has not exactly one."""
    if len(data) < HEADER.size:
        raise ValueError("too short")
    id, flags, questions, *_ = HEADER.unpack_from(data)
    if questions != 1:
        raise ValueError("not one question")
    place, labels = HEADER.size, []
    while length := byte(data, place):
        if length > 63 or place + length > HEADER.size + LONGEST:
            raise ValueError("no name")
        label = data[place + 1 : place + 1 + length]
        labels.append(label.decode("latin-1").lower().replace(".", "\\."))
        place += 1 + length
    end = place + 5
    if end > len(data):
        raise ValueError("too short")
    kind, family = struct.unpack_from("!2H", data, place + 1)
    size = SMALL
    if data[end : end + 3] == b"\0\0\x29" and len(data) >= end + 5:  # OPT says it in place of a class
        size = max(SMALL, *struct.unpack_from("!H", data, end + 3))
    return Question(id, flags, ".".join(labels), kind, family, data[HEADER.size : end], size)


def byte(data: bytes, place: int) -> int:
    """One byte; ValueError when the message ends before it."""
    if place >= len(data):
        raise ValueError("too short")
    return data[place]


def answer(asked: Question, code: int, records: Sequence[tuple[int, bytes]] = ()) -> bytes:
    """What we answer by ourselves: records of the name that was asked for, as (type, data)."""
    flags = RESPONSE | AUTHORITATIVE | AVAILABLE | asked.flags & WANTED | code
    found = b"".join(
        THE_NAME + struct.pack("!HHIH", kind, IN, LIFETIME, len(data)) + data for kind, data in records
    )
    return HEADER.pack(asked.id, flags, 1, len(records), 0, 0) + asked.wire + found


def malformed(data: bytes) -> bytes:
    """The answer to what is no question but may have been meant as one; b"" for anything else."""
    if len(data) < HEADER.size or data[2] & 0x80:
        return b""
    return data[:2] + HEADER.pack(0, RESPONSE | MALFORMED, 0, 0, 0, 0)[2:]


def answers(asked: Question, id: int, data: bytes) -> bool:
    """Whether a message is an answer to a question that was passed on as `id`: nobody else's (RFC 5452)."""
    try:
        said = question(data)
    except ValueError:
        return False
    same = (said.id, said.name, said.kind, said.family) == (id, asked.name, asked.kind, asked.family)
    return same and bool(said.flags & RESPONSE)


def fitting(asked: Question, data: bytes) -> bytes:
    """An answer for UDP: what is too long is cut off, and who asks comes again by TCP."""
    if len(data) <= asked.size:
        return data
    flags = struct.unpack_from("!H", data, 2)[0] | TRUNCATED
    return HEADER.pack(asked.id, flags, 1, 0, 0, 0) + asked.wire


def name(text: str) -> bytes:
    """A name as it stands in a message. ValueError for what cannot."""
    labels = [label.encode("ascii") for label in text.split(".")]
    wire = b"".join(bytes([len(label)]) + label for label in labels if 0 < len(label) < 64) + b"\0"
    if len(wire) != len(text) + 2 or len(wire) > LONGEST:
        raise ValueError(f"{text!r} is no name")
    return wire
