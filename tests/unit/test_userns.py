"""Ranges of ids: which containers get, and who has some already."""

import os
import struct
from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.userns_pb2 import USER_NAMESPACE_OFF, USER_NAMESPACE_ON, USER_NAMESPACE_UNSPECIFIED
from tinyo_ctl.statefile import load
from tinyo_runtime.options import ranges
from tinyo_runtime.options.ranges import Pool
from tinyo_runtime.spawner.userns import IDS, recorded


def layer(folder: Path, name: str) -> Path:
    upper = folder / name / "upper"
    upper.mkdir(parents=True)
    return upper


@pytest.mark.parametrize(
    ("written", "meant"),
    [("", USER_NAMESPACE_UNSPECIFIED), ("userns: true", USER_NAMESPACE_ON), ("userns: false", USER_NAMESPACE_OFF)],
)  # fmt: skip
def test_a_statefile_has_three_answers(tmp_path: Path, written: str, meant: int) -> None:
    (tmp_path / "web.yml").write_text(f"container: a\n{written}\n")
    assert load(str(tmp_path / "web.yml")).containers[0].userns == meant
    assert ContainerSpec().userns == USER_NAMESPACE_UNSPECIFIED


def test_ranges_of_one_instance_are_no_others() -> None:
    own = ranges.chosen("auto", "tinyo")
    other = ranges.chosen("auto", "another")
    assert own == range(0x30000000, 0x40000000 - IDS + 1, IDS) and len(own) == 4096
    assert len(other) == 256 and own[-1] + IDS <= other[0] and other[-1] + IDS <= 0x70000000
    assert [*ranges.chosen("0x100000:200000", "tinyo")] == [0x100000 + IDS * number for number in range(3)]


@pytest.mark.parametrize(
    "ids", ["", "1", "a:b", "65536", "0:65536", "65536:65535", "2147418113:65536", "65536:-1"]
)
def test_a_setting_that_is_none_is_told(ids: str) -> None:
    with pytest.raises(SystemExit) as caught:
        ranges.chosen(ids, "tinyo")
    assert f"userns_ids {ids!r}" in str(caught.value)


def test_a_range_has_one_owner_until_its_layer_is_gone(tmp_path: Path) -> None:
    pool = Pool(range(IDS, 3 * IDS + 1, IDS), tmp_path)
    one, two, three, four = (layer(tmp_path, name) for name in ("1", "2", "3", "4"))
    for number, upper in enumerate((one, two, three), 1):
        assert pool.take() == number * IDS
        pool.taken[number * IDS] = upper
    assert (pool.take(), pool.held_by(two), pool.held_by(four)) == (0, 2 * IDS, 0)
    two.rmdir()
    assert pool.take() == 2 * IDS
    assert pool.take() == 0, "it is somebody's who has not said yet"


def test_ranges_are_known_after_a_restart(tmp_path: Path) -> None:
    one, two = layer(tmp_path, "1"), layer(tmp_path, "2")
    ranges.remember(one, IDS)
    assert (recorded(one), recorded(two)) == (IDS, 0)
    assert Pool(range(IDS, 2 * IDS + 1, IDS), tmp_path).take() == 2 * IDS


def test_ranges_of_users_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "subuid").write_text(f"# a comment\nbob:{IDS + 5}:1\nbroken\nann:x:1\n")
    (tmp_path / "subgid").write_text(f"bob:{3 * IDS - 1}:1\n")
    monkeypatch.setattr(ranges, "FILES", (str(tmp_path / "subuid"), str(tmp_path / "subgid"), "/nowhere"))
    pool = Pool(range(IDS, 5 * IDS, IDS), tmp_path)
    assert pool.take() == 3 * IDS


def test_a_layer_is_given_once_however_often_it_was_begun(tmp_path: Path) -> None:
    upper = layer(tmp_path, "1")
    (upper / "a/b").mkdir(parents=True)
    os.chown(upper / "a", 1000, 33)
    os.chmod(upper / "a", 0o2755)
    entries = ((1, 7, -1), (2, 4, 1000), (4, 5, -1), (8, 4, 33), (0x10, 5, -1), (0x20, 5, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(upper / "a", "system.posix_acl_default", acl)
    (upper / "link").symlink_to("/nowhere")
    ranges.give(upper / "a", IDS)  # as if it had been interrupted
    for _ in range(2):
        ranges.give(upper, IDS)
    owners = {name: os.lstat(upper / name) for name in ("", "a", "a/b", "link")}
    assert {name: (found.st_uid - IDS, found.st_gid - IDS) for name, found in owners.items()} == {
        "": (0, 0),
        "a": (1000, 33),
        "a/b": (0, 0),
        "link": (0, 0),
    }
    assert owners["a"].st_mode & 0o7777 == 0o2755
    given = os.getxattr(upper / "a", "system.posix_acl_default")
    assert [id - IDS for tag, _, id in struct.iter_unpack("<HHI", given[4:]) if tag in (2, 8)] == [1000, 33]
