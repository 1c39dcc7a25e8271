"""Boot records: what is true of a container until the next boot, in the run folder (a tmpfs)."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.runtime.v1.runtime_pb2 import ContainerState

log = logging.getLogger(__name__)


def save(run: Path, state: ContainerState, interface: str) -> None:
    """Writes the record of a container. Whenever we end, there is the former one, or the new one, or both.

    It is not renamed onto the former one: if the folder is no tmpfs but on ext4, that would wait for the disk
    (ext4(5), auto_da_alloc), 1 ms each time.
    """
    folder = f"{run}/containers"
    ticks = start_ticks(state.pid) if state.pid else 0
    record = BootRecord(state=state, start_ticks=ticks, interface=interface)
    new = f"{folder}/.{state.config.id}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    try:
        with open(new, "wb") as file:  # buffered: all of it, or an error
            file.write(record.SerializeToString())
    except OSError as error:
        log.warning("what is known of container %s was not written: %s", state.config.id, error)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{state.config.id}")
    os.rename(new, f"{folder}/{state.config.id}")


def remove(run: Path, id: str) -> None:
    """Forgets a container; one that has no record is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{run}/containers/{id}")


def load(run: Path) -> Iterator[BootRecord]:
    """Every record of this boot. One that was not finished is taken away; one that was, and only lacks its name, gets it."""
    for new in run.glob("containers/.*"):
        if (former := new.with_name(new.name[1:])).exists():
            new.unlink()
        else:
            new.rename(former)
    for path in sorted(run.glob("containers/*")):
        record = BootRecord()
        try:
            record.ParseFromString(path.read_bytes())
        except DecodeError:
            record.Clear()
        if record.state.config.id == path.name:
            yield record
        else:
            path.unlink()


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since the boot (proc_pid_stat(5)); 0 when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[19])
