"""`tinyo doctor`: what is on is told to be on, and what was taken away to be off."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tinyo_runtime
from tinyo_runtime.settings import Settings

from tests.support.instance import PATIENCE, PROGRAMS, Instance

#: Takes away what the kernel and others give, from whoever runs in here alone.
TAKE_AWAY = """
set -eu
for library in /usr/lib/*/libseccomp.so.2; do mount --bind /dev/null $library; done
umount --recursive --lazy /sys/fs/cgroup
echo 0 >"$1/none"; mount --bind "$1/none" /proc/sys/user/max_user_namespaces
nft add table ip strict
nft 'add chain ip strict arriving { type filter hook input priority 0; policy drop; }'
nft add table ip filter
nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'
sysctl -qw net.ipv4.conf.all.route_localnet=1
exec "$2" doctor -o json
"""


SOURCE = Path(tinyo_runtime.__file__).parent
#: What is written at the end of modules of the runtime: these defences are then none.
GONE = {
    "spawner/harden.py": """
DEFAULT_CAPABILITIES = int(Path("/proc/self/status").read_text().split("CapPrm:")[1].split()[0], 16)
guarded = prctl
def prctl(option, *args):
    if option != PR_SET_NO_NEW_PRIVS:
        guarded(option, *args)
def seccomp(program):
    pass
def be_killable():
    pass
""",
    "spawner/system.py": """
MASKED, READ_ONLY = {}, {}
""",
    "network/clusters.py": """
RULES = RULES.replace(" drop", " accept")
""",
}
#: Seconds for fifty attacks, also where everything is emulated.
LONG = 300
#: Attacks that each of them kept off.
SUCCEED = {
    "have the host run a program (core_pattern)",
    "read the kernel's log (dmesg)",
    "mount a file system",
    "be root in a new user namespace",
    "open a file system to mount (fsopen)",
    "enter another namespace (setns)",
    "watch the kernel (perf_event_open)",
    "hold the kernel in a page fault (userfaultfd)",
    "open a file of the host by its inode (shocker)",
    "set the host's clock",
    "send and read raw frames (AF_PACKET)",
    "send with a source that is not its own",
    "become root by a setuid program, as nobody",
    "reach a container of another cluster",
    "take another address",
}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What was said for programs, by name."""
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def off(found: dict[str, dict[str, Any]]) -> set[str]:
    """Names of what should be on."""
    return {name for name, row in found.items() if row["state"] == "off" and not row["optional"]}


def test_all_is_well(instance: Instance) -> None:
    done = instance.cli("doctor", "-o", "json", check=False)
    found = rows(done)
    assert (off(found), done.returncode) == (set(), 0), done.stderr
    for name in ("services", "overlayfs", "seccomp", "cgroup pids", "device filter", "metadata address"):
        assert found[name]["state"] == "on"
    for text in ("nobody sends from", "the host's loopback"):
        assert text in found["firewall rules"]["why"]
    shown = instance.cli("doctor").stdout
    assert "✓ seccomp" in shown and "All is well" in shown and "\x1b" not in shown


def test_without_services_the_machine_is_looked_at_all_the_same() -> None:
    with Instance("tinyo-node") as instance:
        found = rows(instance.cli("doctor", "-o", "json", check=False))
        assert off(found) == {"services"} and "cannot reach tinyo-runtime" in found["services"]["why"]
        assert found["overlayfs"]["state"] == "on", "the node could not ask, so it was looked at from here"
        instance.stop("tinyo-node")
        done = instance.cli("doctor", "-o", "json", check=False)
        found = rows(done)
        assert (off(found), done.returncode, done.stderr) == (set(), 0, "")
        assert "tinyo-node and tinyo-runtime do not run" in found["services"]["why"]
        assert found["services"]["remedy"] == "tinyo services start"
        assert found["seccomp"]["state"] == "on"


def test_what_is_taken_away_is_told(tmp_path: Path) -> None:
    """In namespaces in which it lacks, and where a network of ours should be up."""
    run = Path("/run/t0doctor")
    run.mkdir(mode=0o700)
    (run / "pool").write_text("10.77.0.0/16")
    namespaces = ["unshare", "--mount", "--net", "--propagation", "private"]
    try:
        done = subprocess.run(
            [*namespaces, "sh", "-c", TAKE_AWAY, "sh", tmp_path, PROGRAMS / "tinyo"],
            env={**os.environ, "TINYO_INSTANCE": run.name},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        (run / "pool").unlink()
        run.rmdir()
    found = rows(done)
    assert done.returncode == 1, done.stderr
    assert off(found) == {
        "user namespaces",
        "seccomp",
        "cgroups",
        "cgroup pids",
        "cgroup memory",
        "cgroup cpu",
        "firewall rules",
        "metadata address",
        "FORWARD of others",
        "INPUT of others",
        "device filter",
    }
    assert "libseccomp.so.2" in found["seccomp"]["why"]
    assert found["seccomp"]["remedy"] == "apt install libseccomp2"
    assert "resolve no names" in found["INPUT of others"]["why"]
    assert found["route_localnet"]["state"] == "off"


@pytest.mark.parametrize("chain", ["FORWARD", "INPUT"])
def test_a_firewall_that_accepts_what_comes_from_containers_is_no_fault(chain: str) -> None:
    """One chain does not speak for the other, although both are in one table, as those of iptables are."""
    prefix = Settings("t0doctor", "", "").prefix
    script = f"""
    set -eu
    nft add table ip filter
    for chain in FORWARD:forward INPUT:input; do
      nft "add chain ip filter ${{chain%:*}} {{ type filter hook ${{chain#*:}} priority 0; policy drop; }}"
    done
    nft 'add rule ip filter {chain} iifname "{prefix}*" accept'
    exec {PROGRAMS}/tinyo doctor -o json
    """
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        env={**os.environ, "TINYO_INSTANCE": "t0doctor"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    found = rows(done)
    assert ("INPUT of others" in off(found)) is (chain == "FORWARD"), done.stderr
    assert ("accepts" in found["FORWARD of others"]["why"]) is (chain == "FORWARD")


def test_doors_that_stand_open_and_what_belongs_to_nobody_are_told(instance: Instance) -> None:
    socket, cgroups = instance.run / "node.sock", Path("/proc/self/mountinfo").read_text()
    root = next(
        Path(line.split()[4], instance.name)
        for line in cgroups.splitlines()
        if " - cgroup" in line and Path(line.split()[4], instance.name).exists()
    )
    folder = instance.state / "containers/ghost"
    socket.chmod(0o666)
    (root / "ghost").mkdir()
    folder.mkdir(parents=True)
    try:
        done = instance.cli("doctor", "-o", "json", check=False)
    finally:
        socket.chmod(0o600)
        (root / "ghost").rmdir()
        folder.rmdir()
    found = rows(done)
    assert off(found) == {"who may read", "leftover cgroups", "leftover folders"}
    assert found["who may read"]["remedy"] == f"chmod 0600 {socket}"
    assert found["leftover cgroups"]["why"] == f"{root}/ghost: no container has them"
    assert found["leftover folders"]["remedy"] == f"rm -r {folder}"
    assert done.returncode == 1


def test_every_attack_is_held(instance: Instance) -> None:
    done = instance.cli("doctor", "--attack", "-o", "json", check=False, patience=LONG)
    tried = list(map(json.loads, done.stdout.splitlines()))
    assert [row for row in tried if row["result"] == "NOT held"] == []
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["attack"] for row in tried if row["result"] == "held"} >= SUCCEED
    assert all(row["why"] for row in tried if row["result"] == "not possible here")
    assert len(tried) > 40
    nothing_left(instance)


def test_attacks_succeed_where_defences_are_gone(tmp_path: Path) -> None:
    """Without system calls, capabilities, paths and clusters being guarded; what other defences hold is still held."""
    weak = tmp_path / "weak"
    shutil.copytree(SOURCE, weak / SOURCE.name)
    for name, text in GONE.items():
        with (weak / SOURCE.name / name).open("a") as module:
            module.write(text)
    with Instance(PYTHONPATH=str(weak)) as instance:
        done = instance.cli("doctor", "--attack", "-o", "json", check=False, patience=LONG)
        results = {row["attack"]: row["result"] for row in map(json.loads, done.stdout.splitlines())}
        assert {name for name in SUCCEED if results.get(name) != "NOT held"} == set(), done.stderr
        assert done.returncode == 1
        assert results["climb out by chroot"] == results["find a file of the host by .."] == "held"
        nothing_left(instance)


def test_who_is_interrupted_leaves_nothing(instance: Instance) -> None:
    command = [str(PROGRAMS / "tinyo"), "doctor", "--attack"]
    with subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE) as attacking:
        assert attacking.stdout
        attacking.stdout.readline(), attacking.stdout.readline()  # it began
        second = instance.cli("doctor", "--attack", check=False)
        assert second.returncode == 1 and "another `tinyo doctor --attack` runs" in second.stderr
        attacking.send_signal(signal.SIGINT)
        attacking.stdout.read()
        assert attacking.wait(PATIENCE) == 130
    nothing_left(instance)


def nothing_left(instance: Instance) -> None:
    """Neither containers nor images nor files."""
    assert instance.cli("image", "ls", "-o", "name").stdout == ""
    assert not (instance.run / "doctor").exists()
    containers = instance.state / "containers"
    assert not containers.exists() or os.listdir(containers) == []
