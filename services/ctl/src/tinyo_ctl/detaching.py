"""Keys that leave a terminal without ending what runs in it, "ctrl-p,ctrl-q" unless others are said."""

import argparse
import re

#: As docker has them.
DEFAULT = "ctrl-p,ctrl-q"
KEY = re.compile(r"ctrl-([a-z@\[\\\]^_])|([\x21-\x2b\x2d-\x7e])")


class Keys:
    """Looks for them in what is typed; none are never found."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence, self._held = sequence, b""

    def passed(self, typed: bytes) -> tuple[bytes, bool]:
        """What of it is input, and whether the keys were typed. A beginning of them is held back until it is known."""
        if not self._sequence:
            return typed, False
        data = self._held + typed
        before, found, _ = data.partition(self._sequence)
        if found:
            self._held = b""
            return before, True
        size = next(n for n in range(len(self._sequence) - 1, -1, -1) if data.endswith(self._sequence[:n]))
        self._held = self._sequence[:size]
        return data[: len(data) - size], False


def keys(text: str) -> bytes:
    """The bytes of keys on the command line: single characters, or ctrl- and one, with commas between; "" is none."""
    parts = [KEY.fullmatch(part) for part in text.split(",")] if text else []
    if not all(parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} are no keys: write a character or ctrl- and one, as in ctrl-p,ctrl-q or ctrl-e,x"
        )
    return bytes(ord(m[1].upper()) & 0x1F if m[1] else ord(m[2]) for m in parts if m)
