"""The keys `tty` and `stdin`: what can be written, what it means, and what a node takes."""

from pathlib import Path

import pytest
from tinyo.v1 import stdin_pb2 as stdin
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo_ctl.mistakes import StatefileError
from tinyo_ctl.statefile import load
from tinyo_node import checks


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", stdin.STANDARD_INPUT_UNSPECIFIED),
        ("stdin: open", stdin.STANDARD_INPUT_OPEN),
        ("stdin: true", stdin.STANDARD_INPUT_OPEN),
        ("stdin: closed", stdin.STANDARD_INPUT_CLOSED),
        ("stdin: false", stdin.STANDARD_INPUT_CLOSED),
        ("stdin: once", stdin.STANDARD_INPUT_ONCE),
    ],
)
def test_what_can_be_written(tmp_path: Path, written: str, meant: int) -> None:
    (tmp_path / "web.yml").write_text(f"container: a\ntty: true\n{written}\n")
    spec = load(str(tmp_path / "web.yml")).containers[0]
    assert (spec.tty, spec.stdin) == (True, meant)


def test_what_cannot_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("container: a\ntty: yes\nstdin: pipe\n")
    with pytest.raises(StatefileError) as caught:
        load(str(tmp_path / "web.yml"))
    assert "web.yml:2:6: 'yes' is neither true nor false" in str(caught.value)
    assert "web.yml:3:8: 'pipe' is no kind of standard input" in str(caught.value)


def test_a_node_stores_the_default_as_nothing_and_refuses_what_it_does_not_know() -> None:
    spec = ContainerSpec(name="web", stdin=stdin.STANDARD_INPUT_OPEN)
    checks.fill(spec)
    assert spec == ContainerSpec(name="web")
    spec.stdin = 9  # type: ignore[assignment]
    assert [field for field, _ in checks.check(spec)] == ["stdin"]
