"""Limits: what a container may take of the machine."""

import re

from tinyo_ctl.keys.kinds import Key, One, Several, Table
from tinyo_ctl.keys.values import number, size


def swap(text: str) -> int:
    """Bytes, or -1 for as much as there is."""
    return -1 if text in ("-1", "unlimited") else size(text)


def cpus(text: str) -> int:
    """Thousandths of a processor: "1.5"."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or not (millis := round(float(text) * 1000)):
        raise ValueError(f"{text!r} is no number of processors: write one as in 0.5 or 2")
    return millis


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
