"""The key `restart`: what can be written, what it means, and what a node takes."""

from pathlib import Path

import pytest
from tinyo.v1 import policy_pb2 as policy
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo_ctl.mistakes import StatefileError
from tinyo_ctl.statefile import load
from tinyo_node import checks


@pytest.mark.parametrize(
    ("written", "kind", "most"),
    [
        ("no", policy.RESTART_KIND_NO, 0),
        ('"no"', policy.RESTART_KIND_NO, 0),
        ("never", policy.RESTART_KIND_NO, 0),
        ("on-failure", policy.RESTART_KIND_ON_FAILURE, 0),
        ("on-failure:5", policy.RESTART_KIND_ON_FAILURE, 5),
        ("always", policy.RESTART_KIND_ALWAYS, 0),
        ("unless-stopped", policy.RESTART_KIND_UNLESS_STOPPED, 0),
    ],
)
def test_what_can_be_written(tmp_path: Path, written: str, kind: int, most: int) -> None:
    (tmp_path / "web.yml").write_text(f"container: a\nrestart: {written}\n")
    restart = load(str(tmp_path / "web.yml")).containers[0].restart
    assert (restart.kind, restart.max_restarts) == (kind, most)


@pytest.mark.parametrize(
    "written", ["yes", "on-failure:0", "on-failure: 5", "on-failure:-1", "always:3", "on-failure:9999999999"]
)
def test_what_cannot_is_told_with_its_place(tmp_path: Path, written: str) -> None:
    (tmp_path / "web.yml").write_text(f"container: a\nrestart: '{written}'\n")
    with pytest.raises(StatefileError) as caught:
        load(str(tmp_path / "web.yml"))
    assert f"web.yml:2:10: {written!r} is no restart policy" in str(caught.value)


def test_a_node_stores_no_policy_as_unset_and_takes_only_what_it_knows() -> None:
    spec = ContainerSpec(name="web")
    spec.restart.kind = policy.RESTART_KIND_NO
    checks.fill(spec)
    assert not spec.HasField("restart")
    spec.restart.max_restarts = 1
    for kind, field in (
        (0, "kind"),
        (1, "max_restarts"),
        (3, "max_restarts"),
        (4, "max_restarts"),
        (99, "kind"),
    ):
        spec.restart.kind = kind  # type: ignore[assignment]
        checks.fill(spec)
        assert f"restart.{field}" in dict(checks.check(spec)), kind
    spec.restart.kind = policy.RESTART_KIND_ON_FAILURE
    assert not dict(checks.check(spec))
