"""Bundles with a user namespace: root of theirs is nobody on the host, and what the namespace owns is theirs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundle
from tests.support.podman import Podman, made_for_a_test

FIRST, IDS = 100_000, 65_536
MAP = [{"containerID": 0, "hostID": FIRST, "size": IDS}]
#: What a process may do.
STATUS = "grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNew|Seccomp:)' /proc/self/status"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Its files belong to root of the namespace."""
    made = Bundle(tmp_path)
    for folder, _, files in os.walk(made.folder / "rootfs"):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, FIRST, FIRST, follow_symlinks=False)
    mapped(made)
    return made


def mapped(bundle: Bundle, **more: Any) -> None:
    """Gives it a user namespace."""
    namespaces = [*bundle.config["linux"]["namespaces"], {"type": "user"}]
    bundle.change(linux={"namespaces": namespaces, "uidMappings": MAP, "gidMappings": MAP} | more)


def test_root_is_nobody_outside(bundle: Bundle, tmp_path: Path) -> None:
    bundle.shell(f"cat /proc/self/uid_map /proc/self/gid_map; {STATUS}; exec sleep 1000")
    pid = bundle.create("a", tmp_path / "out")
    assert bundle.oci("start", "a").returncode == 0
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == status["Gid"].split() == [str(FIRST)] * 4
    assert status["Groups"].strip() == ""
    done = bundle.oci(
        "exec", "a", "sh", "-c", f"id -u; stat -c %u /proc/1 /proc/$$; {STATUS}; kill -9 1; id -g"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[:3], lines[-1]) == (["0", "0", "0"], "0")
    own = [line.split() for line in (tmp_path / "out").read_text().splitlines()]
    assert own[:2] == [["0", str(FIRST), str(IDS)]] * 2
    assert own[2:] == [line.split() for line in lines[3:-1]], "a further process has what the first has"
    assert ["CapEff:", "00000000800405fb"] in own and ["Seccomp:", "2"] in own
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    bundle.oci("delete", "--force", "a")
    os.waitpid(pid, 0)
    assert bundle.nothing_left()


def test_its_files_streams_and_devices(bundle: Bundle) -> None:
    """What it makes is its user's on the host too; streams can be opened again; devices are the host's."""
    script = """
        touch /tmp/made; stat -c %u:%g /tmp/made; echo again >/dev/stdout
        echo >/dev/null && busybox head -c 2 /dev/zero | wc -c
        stat -c %u /dev/null /dev /proc; busybox mknod /tmp/null c 1 3 2>&1; true"""
    (bundle.folder / "rootfs/tmp").chmod(0o1777)
    user = {"uid": 7, "gid": 8, "additionalGids": [9]}
    out = bundle.run(script, process={"user": user, "noNewPrivileges": False}, root={"readonly": False})
    assert out.splitlines() == [
        "7:8",
        "again",
        "2",
        "65534",
        "0",
        "65534",
        "mknod: /tmp/null: Operation not permitted",
    ]
    lent = os.stat("/dev/null")
    assert (lent.st_uid, lent.st_gid) == (0, 0), "also where it is a stream"
    found = os.stat(bundle.folder / "rootfs/tmp/made")
    assert (found.st_uid, found.st_gid) == (FIRST + 7, FIRST + 8)


def test_the_namespace_owns_the_others(bundle: Bundle) -> None:
    """Capabilities that a bundle gives count for what it has of its own, and for nothing of the host's."""
    capabilities = {
        kind: ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"]
        for kind in ("bounding", "effective", "permitted")
    }
    bundle.change(linux={"seccomp": None}, process={"capabilities": capabilities})
    secret = bundle.folder / "rootfs/secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    attack = "cat /secret 2>&1"
    script = f"""
        mount -t tmpfs tmpfs /tmp && echo mounted; hostname other && hostname
        busybox ip link set lo mtu 1400 && echo network; {attack}; true"""
    refused = "cat: can't open '/secret': Permission denied"
    assert bundle.run(script).splitlines() == ["mounted", "other", "network", refused]
    namespaces = [one for one in bundle.config["linux"]["namespaces"] if one["type"] != "user"]
    without = {"namespaces": namespaces, "uidMappings": [], "gidMappings": []}
    assert bundle.run(attack, linux=without) == "of the host", "the attack is one"


def test_a_terminal_is_its_users(bundle: Bundle) -> None:
    bundle.shell("sleep 1000")
    pid = bundle.create("a")
    bundle.oci("start", "a")
    done = bundle.oci("exec", "--user", "5:6", "--tty", "a", "sh", "-c", "tty; stat -c %u:%g /dev/pts/0")
    assert (done.returncode, done.stdout.split()) == (0, ["/dev/pts/0", "5:5"]), done.stderr
    bundle.oci("delete", "--force", "a")
    os.waitpid(pid, 0)


def test_namespaces_that_exist_can_be_joined(bundle: Bundle) -> None:
    """As with the others: by whoever may, before it is nobody."""
    bundle.shell("sleep 1000")
    pid = bundle.create("first")
    namespaces = [
        {"type": kind} | ({"path": f"/proc/{pid}/ns/{name}"} if name else {})
        for kind, name in (
            ("mount", ""),
            ("user", ""),
            ("pid", ""),
            ("uts", ""),
            ("network", "net"),
            ("ipc", "ipc"),
        )
    ]
    # Nobody mounts what shows a namespace that is not theirs.
    mounts = [one for one in bundle.config["mounts"] if one["type"] not in ("sysfs", "mqueue", "cgroup")]
    found = bundle.run(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc",
        linux={"namespaces": namespaces},
        mounts=mounts,
    )
    assert found.split() == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc")]
    bundle.oci("delete", "--force", "first")
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linux": {"uidMappings": []}}, "linux.uidMappings must say which id of the host is 0"),
        ({"linux": {"gidMappings": [MAP[0] | {"containerID": 1}]}}, "linux.gidMappings must say which id"),
        ({"linux": {"uidMappings": [*MAP, {"containerID": 9, "hostID": 1, "size": 1}]}}, "has ranges that overlap at 9"),
        ({"linux": {"uidMappings": [*MAP, {"containerID": 70000, "hostID": FIRST, "size": 1}]}}, "overlap at 100000"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1}]}}, "uidMappings[0].size is needed"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1 << 32}]}}, "size must be from 1 to"),
        ({"process": {"user": {"uid": 70000}}}, "process.user.uid has 70000, which the user namespace does not map"),
        ({"process": {"user": {"additionalGids": [70000]}}}, "additionalGids has 70000"),
        ({"linux": {"devices": [{"path": "/dev/nope", "type": "c", "major": 1, "minor": 3}]}}, "devices has /dev/nope"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/1/ns/user"}]}}, "a user namespace is a new one"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_by_name(bundle: Bundle, changes: dict[str, Any], message: str) -> None:
    bundle.change(**changes)
    done = bundle.oci("create", "a")
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert bundle.nothing_left()


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    with made_for_a_test(Bundle(tmp_path)) as made:
        yield made


def test_podman_maps_users_with_it(podman: Podman) -> None:
    # Without a mount of podman's own: with mappings it calls us from a mount namespace of its own, and what it unmounts
    # there stays mounted here where mounts do not propagate.
    maps = ("--uidmap", f"0:{FIRST}:5000", "--gidmap", f"0:{FIRST}:5000", "--ipc", "none")
    script = "cat /proc/self/uid_map; touch /made; stat -c %u:%g /made; sleep 1000"
    started = podman("run", "-d", "--name", "a", *maps, *podman.limits, "busybox", "sh", "-c", script)
    assert started.returncode == 0, started.stderr
    inside = podman("exec", "--user", "5:6", "a", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert inside.stdout.split() == ["5", "0", str(FIRST), "5000"]
    assert podman("logs", "a").stdout.split() == ["0", str(FIRST), "5000", "0:0"]
    done = podman("rm", "--force", "--time", "0", "a")
    assert done.returncode == 0, done.stderr
