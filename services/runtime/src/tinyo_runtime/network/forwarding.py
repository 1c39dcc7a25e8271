"""Forwarding on the interfaces that lead outwards: without it, answers never reach a container.

The veths have their own setting. What an uplink had before is remembered in the run folder, and put back.
"""

import json
from contextlib import suppress
from pathlib import Path

CONF = Path("/proc/sys/net/ipv4/conf")


def enable(record: Path) -> None:
    """Lets the interfaces with a default route forward, where they do not yet."""
    before = json.loads(record.read_text()) if record.exists() else {}
    for interface in uplinks():
        setting = CONF / interface / "forwarding"
        if setting.read_text().strip() == "0":
            before[interface] = "0"
            record.write_text(json.dumps(before))
            setting.write_text("1")


def restore(record: Path) -> None:
    """Undoes `enable`."""
    if record.exists():
        for interface, value in json.loads(record.read_text()).items():
            with suppress(FileNotFoundError):  # the interface is gone
                (CONF / interface / "forwarding").write_text(value)
        record.unlink()


def uplinks() -> set[str]:
    """Interfaces with a default route (/proc/net/route)."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    return {fields[0] for fields in map(str.split, lines) if fields[1] == fields[7] == "00000000"}
