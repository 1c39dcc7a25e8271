"""Boot records: what is true of a container until the next boot, in the run folder (a tmpfs)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.runtime.v1.runtime_pb2 import ContainerState


def save(run: Path, state: ContainerState, interface: str) -> None:
    """Replaces the record of a container in one step."""
    folder = f"{run}/containers"
    ticks = start_ticks(state.pid) if state.pid else 0
    record = BootRecord(state=state, start_ticks=ticks, interface=interface)
    new = f"{folder}/.{state.config.id}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    with open(new, "wb", 0) as file:
        file.write(record.SerializeToString())
    os.replace(new, f"{folder}/{state.config.id}")


def remove(run: Path, id: str) -> None:
    """Forgets a container; one that has no record is no error."""
    (run / "containers" / id).unlink(missing_ok=True)


def load(run: Path) -> Iterator[BootRecord]:
    """Every record of this boot. One that cannot be read was never finished, and is taken away."""
    for path in sorted(run.glob("containers/*")):
        record = BootRecord()
        try:
            record.ParseFromString(path.read_bytes())
        except DecodeError:
            path.unlink()
            continue
        yield record


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since the boot (proc_pid_stat(5)); 0 when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[19])
