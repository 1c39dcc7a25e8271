"""Devices as people write them, as the node checks them, and as CDI files describe them."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.devices_pb2 import Device
from tinyo_ctl.keys import devices as keys
from tinyo_node.checks import devices as checks
from tinyo_runtime.devices import cdi, nodes, rules


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("/dev/fuse", {"source": "/dev/fuse"}),
        ("/dev/fuse:rw", {"source": "/dev/fuse", "permissions": "rw"}),
        ("/dev/a:/dev/b", {"source": "/dev/a", "target": "/dev/b"}),
        ("/dev/a:/dev/b:mr", {"source": "/dev/a", "target": "/dev/b", "permissions": "mr"}),
    ],
)
def test_devices_are_written_in_short(text: str, made: dict[str, str]) -> None:
    assert keys.device(text) == made


@pytest.mark.parametrize(
    "text",
    ["", "fuse", "/dev/a:", "/dev/a:rr", "/dev/a:x", "/dev/a:/dev/b:", "/dev/a:rw:/dev/b", "/dev/a:/b:r:w"],
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no device: write /dev/NAME"):
        keys.device(text)


@pytest.mark.parametrize("name", ["a.b/c=0", "nvidia.com/gpu=all", "x/y_z=GPU-1:2.3"])
def test_names_of_cdi_devices(name: str) -> None:
    assert keys.name(name) == name
    with pytest.raises(ValueError, match="under `cdi`"):
        keys.device(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "a/b", "/b=c", "a/=c", "a/b=", "a/b=-", "1/b=c", "a/b=c d", "a/b=../x"]
)
def test_what_is_no_name_of_a_cdi_device(name: str) -> None:
    with pytest.raises(ValueError, match=r"write vendor\.com/class=name"):
        keys.name(name)
    assert [field for field, _ in checks.check(ContainerSpec(cdi=[name]))] == ["cdi[0]"]


def test_the_node_fills_in_and_checks() -> None:
    spec = ContainerSpec(
        devices=[Device(source="/dev/a"), Device(source="/dev/b", target="/c", permissions="r")]
    )
    checks.fill(spec)
    assert [(d.source, d.target, d.permissions) for d in spec.devices] == [
        ("/dev/a", "/dev/a", "rwm"), ("/dev/b", "/c", "r"),
    ]  # fmt: skip
    assert not [*checks.check(spec)]
    for wrong, field in (
        (Device(source="dev"), "source"),
        (Device(source="/dev/../etc"), "source"),
        (Device(source="/dev/a", target="/"), "target"),
        (Device(source="/dev/x", target="/c"), "target"),
        (Device(source="/dev/x", permissions="rwx"), "permissions"),
    ):
        other = ContainerSpec()
        other.CopyFrom(spec)
        other.devices.append(wrong)
        checks.fill(other)
        assert f"devices[2].{field}" in dict(checks.check(other))


def test_rules_as_cgroups_read_them() -> None:
    assert [rules.said(rule) for rule in rules.DEFAULT] == [
        "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
        "c 136:* rwm",
    ]  # fmt: skip


def write(path: Path, **document: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cdiVersion": "0.8.0", "kind": "v/c", "devices": []} | document))
    return path


def env(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "containerEdits": {"env": [*values]}}


def test_a_cdi_file_is_read_as_yaml_too_and_common_edits_come_once(tmp_path: Path) -> None:
    text = """
cdiVersion: "0.5.0"
kind: v/c
containerEdits: {env: [ALL=1]}
devices:
  - name: "0"
    containerEdits: {deviceNodes: [{path: /dev/x}]}
  - name: all
    containerEdits: {env: [EACH=1], mounts: [{hostPath: /lib/a, containerPath: /lib/b, options: [ro]}]}
"""
    (tmp_path / "v.yaml").write_text(text)
    (tmp_path / "README").write_text("is no such file")
    edits = cdi.resolve(["v/c=0", "v/c=all"], [tmp_path])
    assert edits.env == ["ALL=1", "EACH=1"]
    assert edits.nodes == [{"path": "/dev/x"}]
    assert [mount["containerPath"] for mount in edits.mounts] == ["/lib/b"]


def test_the_later_folder_counts_first_and_one_folder_may_have_a_conflict(tmp_path: Path) -> None:
    folders = [tmp_path / "etc", tmp_path / "run", tmp_path / "not there"]
    write(folders[0] / "v.json", devices=[env("0", "FROM=etc"), env("1", "FROM=etc")])
    write(folders[1] / "v.json", devices=[env("0", "FROM=run")])
    assert cdi.resolve(["v/c=0"], folders).env == ["FROM=run"]
    assert cdi.resolve(["v/c=1"], folders).env == ["FROM=etc"]
    write(folders[0] / "w.json", devices=[env("0"), env("1")])
    assert cdi.resolve(["v/c=0"], folders).env == ["FROM=run"], "what does not count has no conflict"
    with pytest.raises(cdi.Unusable, match=r"both .*/v\.json and .*/w\.json describe it"):
        cdi.resolve(["v/c=1"], folders)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"cdiVersion": "2.0"}, "cdiVersion '2.0' is none that is known here"),
        ({"devices": [env("0"), env("0")]}, "it has two devices of one name"),
        ({"devices": [{}]}, "'name' is missing"),
        ({"devices": [3]}, "cannot be understood"),
        ({"devices": {"a": 1}}, "cannot be understood"),
        ({"containerEdits": []}, ""),
        ({"containerEdits": 7}, "containerEdits is no mapping"),
        ({"containerEdits": {"env": "A=1"}}, "env is no list"),
        ({"containerEdits": {"env": ["A"]}}, "'A' is no NAME=value"),
        ({"containerEdits": {"hooks": [{"path": "/x"}]}}, "asks for hooks, which TinyO does not do"),
        ({"containerEdits": {"additionalGIDs": [4]}}, "asks for additionalGIDs"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev"}]}}, "path in deviceNodes is no absolute path"),
        ({"containerEdits": {"deviceNodes": [{}]}}, "path in deviceNodes is no absolute path"),
        ({"containerEdits": {"deviceNodes": ["/dev/x"]}}, "'/dev/x' in deviceNodes"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "more": 1}]}}, "asks for more in deviceNodes"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a"}]}}, "containerPath in mounts is no absolute path"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a", "containerPath": "/../b"}]}}, "without '..'"),
    ],
)
def test_what_a_cdi_file_cannot_have(tmp_path: Path, document: dict[str, Any], why: str) -> None:
    write(tmp_path / "v.json", **({"devices": [env("0")]} | document))
    if not why:
        assert cdi.resolve(["v/c=0"], [tmp_path]) == cdi.Edits()
        return
    with pytest.raises(cdi.Unusable) as caught:
        cdi.resolve(["v/c=0"], [tmp_path])
    assert why in str(caught.value)
    assert str(tmp_path / "v.json") in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b"[]", b" " * (cdi.MAX_BYTES + 1)]
)
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_file_that_is_none_harms_no_other(tmp_path: Path, content: bytes, suffix: str) -> None:
    if suffix == "yaml" and content.startswith(b"[["):
        content = b"a: &a [*a, *b]"
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    with pytest.raises(cdi.Unusable, match=rf"bad\.{suffix} cannot be understood"):
        cdi.resolve(["v/c=0"], [tmp_path])
    write(tmp_path / "v.json", devices=[env("0")])
    assert cdi.resolve(["v/c=0"], [tmp_path]) == cdi.Edits()


def test_mounts_of_a_cdi_file_have_the_options_that_are_known() -> None:
    mount = {"containerPath": "/x", "options": ["rbind", "ro", "nosuid", "nodev", "ro"]}
    assert nodes.attributes(mount) == 7
    with pytest.raises(cdi.Unusable, match="'sync' is not known"):
        nodes.attributes(mount | {"options": ["sync"]})
    with pytest.raises(cdi.Unusable, match="type 'tmpfs'"):
        nodes.attributes(mount | {"type": "tmpfs"})
