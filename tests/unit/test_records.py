"""Boot records: whenever the runtime is killed, each container has one, and it is whole."""

from pathlib import Path

import pytest
from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig, ContainerState
from tinyo_runtime import records


def state(sequence: int) -> ContainerState:
    """One of container `c`."""
    return ContainerState(config=ContainerConfig(id="c", cluster="x"), sequence=sequence)


def written(sequence: int) -> bytes:
    """A whole record."""
    return BootRecord(state=state(sequence), interface="ty1").SerializeToString()


def test_the_last_record_is_the_one_that_counts(tmp_path: Path) -> None:
    for sequence in (1, 2):
        records.save(tmp_path, state(sequence), "ty1")
        assert [record.state for record in records.load(tmp_path)] == [state(sequence)]
    records.remove(tmp_path, "c")
    records.remove(tmp_path, "c")
    assert [*records.load(tmp_path)] == []


@pytest.mark.parametrize(
    ("former", "new", "found"),
    [
        (written(1), b"", 1),
        (written(1), written(2)[:-3], 1),
        (written(1), written(2), 1),
        (None, written(2), 2),
        (None, b"", None),
        (None, written(2)[:-3], None),
    ],
    ids=["begun", "cut off", "whole", "without its name", "the first, begun", "the first, cut off"],
)
def test_a_kill_leaves_one_record_or_none(
    tmp_path: Path, former: bytes | None, new: bytes, found: int | None
) -> None:
    """Two of one container were read once, and an empty one as a container without an id."""
    folder = tmp_path / "containers"
    folder.mkdir()
    (folder / ".c").write_bytes(new)
    if former:
        (folder / "c").write_bytes(former)
    loaded = list(records.load(tmp_path))
    assert [record.state.sequence for record in loaded] == ([found] if found else [])
    assert [path.name for path in folder.iterdir()] == (["c"] if found else [])
