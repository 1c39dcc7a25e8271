"""What has to be set on this machine so that IPv6 packets come to containers and back; put back at the end.

Linux 6.17 can let single interfaces forward (`force_forwarding`), as with IPv4. Before that either all of them do or none;
and a machine that forwards no longer listens to routers where `accept_ra` is 1, so it is made 2 there.
"""

import json
from contextlib import suppress
from pathlib import Path

from tinyo_runtime.network.pool6 import CONF, ROUTES

#: No bits of the destination, and none of the source.
DEFAULT = ("0" * 32, "00", "0" * 32, "00")


def open(record: Path, uplinks: set[str]) -> None:
    """Lets what leads outwards forward."""
    before = json.loads(record.read_text()) if record.exists() else {}

    def change(name: str, value: str) -> None:
        if (was := (CONF / name).read_text().strip()) != value:
            before.setdefault(name, was)
            record.write_text(json.dumps(before))
            (CONF / name).write_text(value)

    if (CONF / "all/force_forwarding").exists():
        for interface in uplinks | leading_out():
            with suppress(FileNotFoundError):  # it has no IPv6
                change(f"{interface}/force_forwarding", "1")
    elif (CONF / "all/forwarding").read_text() == "0\n":
        names = [path.name for path in CONF.iterdir() if path.name != "all"]
        # In this order: the last is put back first, and changes all of them.
        before |= {f"{name}/forwarding": "1" for name in names if _is(name, "forwarding", "1")}
        for name in names:
            if _is(name, "accept_ra", "1"):
                change(f"{name}/accept_ra", "2")
        change("all/forwarding", "1")


def close(record: Path) -> None:
    """Undoes `open`."""
    if record.exists():
        for name, value in reversed(json.loads(record.read_text()).items()):
            with suppress(FileNotFoundError):  # the interface is gone
                (CONF / name).write_text(value)
        record.unlink()


def leading_out() -> set[str]:
    """Interfaces with a default route (/proc/net/ipv6_route); the kernel has one of its own that leads nowhere."""
    lines = map(str.split, ROUTES.read_text().splitlines())
    return {fields[9] for fields in lines if tuple(fields[:4]) == DEFAULT and fields[9] != "lo"}


def _is(interface: str, setting: str, value: str) -> bool:
    return (CONF / interface / setting).read_text().strip() == value
