"""Numbers in other notations than a header's octal digits."""

from tinyo_runtime.unpack.refusals import Refused


def base_256(field: bytes) -> int:
    """A number as GNU tar writes it when it is large or negative: two's complement, after a first bit that is set."""
    magnitude = int.from_bytes(field) & ~(0x80 << 8 * (len(field) - 1))
    return int.from_bytes(field, signed=True) if field[0] & 0x40 else magnitude


def decimal(value: bytes) -> int:
    """Decimal digits and nothing else (int() would also take signs and underscores)."""
    if not value.isdigit() or len(value) > 20:
        raise Refused(f"{value[:40]!r} in an extended header is not a number")
    return int(value)
