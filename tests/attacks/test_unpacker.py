"""What somebody could do who took over the unpacker by what it reads: nothing, but fill the folder that it has anyway.

The attacks are functions of `captive`, which a real process runs after it has confined itself.
"""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo_runtime.unpack import landlock

from tests.support.instance import PATIENCE

CAPTIVE = Path(__file__).parents[1] / "support/captive.py"
#: Errors that mean no; others would mean that an attack was made in the wrong way.
NO = {"ENOSYS", "EPERM", "EACCES"}

#: Each wall is taken down in turn; chroot, capabilities, limits and an empty network are always there.
each_wall = pytest.mark.parametrize(
    "without",
    [
        "",
        "landlock",
        pytest.param(
            "seccomp", marks=pytest.mark.skipif(landlock.version() < 6, reason="Landlock of Linux 6.12")
        ),
    ],
)


class Cell:
    """A layer's folder, a file beside it, and a process of ours that somebody might want to harm."""

    def __init__(self, folder: Path, victim: int) -> None:
        self.folder, self.victim = folder, victim
        (folder / "layer").mkdir()
        (folder / "outside").write_text("untouched")

    def attack(self, name: str, without: str = "") -> dict[str, str]:
        """How each attempt went: "done" or an error's name."""
        command = [
            sys.executable,
            "-I",
            str(CAPTIVE),
            name,
            f"{self.folder}/layer",
            str(self.victim),
            without,
        ]
        with open(self.folder / "log", "wb") as log:
            done = subprocess.run(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, timeout=PATIENCE, env={}
            )
        assert done.returncode == 0, (self.folder / "log").read_text()
        return dict(line.rsplit(" ", 1) for line in done.stdout.decode().splitlines())


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Cell]:
    with subprocess.Popen(["sleep", str(PATIENCE)]) as victim:
        try:
            yield Cell(tmp_path, victim.pid)
            assert victim.poll() is None, "somebody harmed the victim"
        finally:
            victim.kill()
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["layer", "log", "outside"]


def test_what_it_does_itself_still_works(cell: Cell) -> None:
    assert set(cell.attack("work").values()) == {"done"}


def test_no_other_call_is_there(cell: Cell) -> None:
    answers = cell.attack("any_call")
    assert len(answers) > 1100 and set(answers.values()) == {"ENOSYS"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 has a second way into the kernel")
def test_there_is_no_second_way_into_the_kernel(cell: Cell) -> None:
    assert cell.attack("second_way") == {"getpid": "ENOSYS"}


@each_wall
def test_nothing_outside_is_found(cell: Cell, without: str) -> None:
    answers = cell.attack("outside", without)
    assert set(answers.values()) <= NO | {"ENOENT"}


@each_wall
def test_inside_is_only_what_filling_a_folder_needs(cell: Cell, without: str) -> None:
    answers = cell.attack("inside", without)
    if without == "landlock" or landlock.version() < 2:
        assert (answers.pop("read"), answers.pop("socket")) == ("done", "done")
    assert set(answers.values()) <= NO


@each_wall
def test_nobody_else_is_harmed(cell: Cell, without: str) -> None:
    answers = cell.attack("others", without)
    if without == "seccomp":  # the signal is refused when it is sent
        assert [answers.pop(name) for name in ("owner", "signal", "async")] == ["done"] * 3
    assert set(answers.values()) <= NO


@each_wall
def test_there_is_no_network(cell: Cell, without: str) -> None:
    """Nor an abstract socket, which has no file that could be out of reach."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{cell.folder}/layer")
        listener.listen()
        answers = cell.attack("network", without)
    assert set(answers.values()) <= NO | {"ENETUNREACH", "ENOENT", "ECONNREFUSED", "EAFNOSUPPORT"}


@each_wall
def test_nothing_is_mounted(cell: Cell, without: str) -> None:
    assert set(cell.attack("mounts", without).values()) <= NO | {"EINVAL"}


@pytest.mark.parametrize("without", ["", "landlock"])
def test_the_kernel_gives_nothing_more(cell: Cell, without: str) -> None:
    assert set(cell.attack("privileges", without).values()) <= NO


def test_limits(cell: Cell) -> None:
    assert cell.attack("limits") == {"memory": "MemoryError", "file": "EFBIG", "hole": "done"}


def test_the_log_of_whoever_started_it_stays_as_it_is(cell: Cell) -> None:
    """It may write there to the end of its preparations; afterwards what it says goes where its answer goes."""
    assert cell.attack("log") == {"mode": "done", "owner": "done", "said": "done"}
    found = (cell.folder / "log").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode), found.st_size) == (0, 0o644, 0)
