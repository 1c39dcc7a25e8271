"""Failpoints: only what is asked for happens, and only where."""

import errno
from pathlib import Path

import pytest
from tinyo_runtime import failpoints

from tests.support import crash


@pytest.mark.parametrize("text", ["x", "=kill", "os.mkdir *=explode", "os.mkdir *#x=kill", "os.mkdir *#2"])
def test_points_that_are_none(text: str) -> None:
    with pytest.raises(SystemExit, match=r"write EVENT PATH\[#N\]="):
        failpoints.parse(text)


def test_actions(tmp_path: Path) -> None:
    """An errno at the second folder, a note of each; what is only read is no point."""
    notes = tmp_path / "notes"

    def work() -> None:
        (tmp_path / "one").mkdir()
        with pytest.raises(OSError) as caught:
            (tmp_path / "two").mkdir()
        assert caught.value.errno == errno.ENOSPC and not (tmp_path / "two").exists()
        (tmp_path / "three").mkdir()
        notes.read_text()
        (tmp_path / "file").write_text("x")
        (tmp_path / "file").rename(tmp_path / "one/file")

    points = f"os.mkdir {tmp_path}/*#2=ENOSPC;* {tmp_path}/*=note:{notes}"
    assert crash.outcome(work, points) == 0
    names = [
        f"{event} {tmp_path}/{name}"
        for event, name in (
            ("os.mkdir", "one"),
            ("os.mkdir", "three"),
            ("open", "file"),
            ("os.rename", "one/file"),
        )
    ]
    assert notes.read_text().splitlines() == names
