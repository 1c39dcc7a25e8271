"""Limits: what a container may take of the machine."""

import re

from tinyo_ctl.keys.kinds import Key, One, Several, Table

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


def swap(text: str) -> int:
    """Bytes, or -1 for as much as there is."""
    return -1 if text in ("-1", "unlimited") else size(text)


def cpus(text: str) -> int:
    """Thousandths of a processor: "1.5"."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or not (millis := round(float(text) * 1000)):
        raise ValueError(f"{text!r} is no number of processors: write one as in 0.5 or 2")
    return millis


def number(text: str) -> int:
    """A number from 1 upwards."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise ValueError(f"{text!r} is no number from 1 upwards")
    return int(text)


KEYS = {
    "memory": Key("resources.memory_bytes", One(size)),
    "memory_swap": Key("resources.memory_swap_bytes", One(swap)),
    "memory_reservation": Key("resources.memory_reservation_bytes", One(size)),
    "cpus": Key("resources.cpu_millis", One(cpus)),
    "cpu_weight": Key("resources.cpu_weight", One(number)),
    "cpuset": Key("resources.cpuset", One(str)),
    "pids": Key("resources.pids", One(number)),
    "io_weight": Key("resources.io_weight", One(number)),
    "io": Key(
        "resources.io",
        Several(
            Table(
                {
                    "device": Key("device", One(str), needed=True),
                    "read_bps": Key("read_bps", One(size)),
                    "write_bps": Key("write_bps", One(size)),
                    "read_iops": Key("read_iops", One(number)),
                    "write_iops": Key("write_iops", One(number)),
                }
            )
        ),
    ),
}
