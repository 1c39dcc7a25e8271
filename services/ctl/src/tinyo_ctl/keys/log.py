"""The key `log`: how much of what a container writes is kept."""

from tinyo_ctl.keys.kinds import Key, One, Table
from tinyo_ctl.keys.storage import size


def number(text: str) -> int:
    """A number from 1 upwards."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ValueError(f"{text!r} is no number from 1 upwards")
    return int(text)


KEYS = {
    "log": Key(
        "log",
        Table({"max_size": Key("max_size_bytes", One(size)), "max_files": Key("max_files", One(number))}),
    )
}
