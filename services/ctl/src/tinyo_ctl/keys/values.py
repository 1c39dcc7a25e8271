"""What single values stand for, wherever they are written. ValueError with a sentence for people."""

import re

SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
#: Powers of 1024, as docker takes all of these.
UNITS = ("", "k", "m", "g", "t", "p")


def size(text: str) -> int:
    """Bytes: "512m", "1.5g", "64MiB", "4096"."""
    match = SIZE.fullmatch(text)
    if not match or (number := float(match[1]) * 1024 ** UNITS.index(match[2].lower())) >= 2**62:
        raise ValueError(
            f"{text!r} is no size: write a number of bytes, or one with k, m, g or t, as in 512m"
        )
    return int(number)


def milliseconds(text: str, pattern: re.Pattern[str]) -> int | None:
    """Of "10s", "1m30s", "500ms"; a number alone is seconds, as with docker. None for what has not the pattern, whose
    groups are hours, minutes, seconds and milliseconds."""
    match = pattern.fullmatch(f"{text}s" if re.fullmatch(r"[0-9.]+", text) else text)
    if not text or not match:
        return None
    hours, minutes, seconds, millis = match.groups(default="0")
    return (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000) + int(millis)


def number(text: str) -> int:
    """A number from 1 upwards."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise ValueError(f"{text!r} is no number from 1 upwards")
    return int(text)


def truth(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"
