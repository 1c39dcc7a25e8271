"""What containers may take of the machine: real services, a real kernel with whatever cgroups it has."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.resources_pb2 import IoLimit, Resources
from tinyo.v1.stats_pb2 import ContainerStats
from tinyo_runtime import hierarchies

from tests.support.client import Client
from tests.support.instance import Instance

MIB = 1 << 20
#: Takes more memory than it is given, in a process of its own.
BOMB = "cat /dev/zero | head -c 200000000 | tail"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def own(image: str) -> Iterator[tuple[Instance, Client]]:
    """An instance whose services may be killed."""
    with Instance() as made, Client(made.socket("tinyo-node")) as client:
        yield made, client


def limited(image: str, script: str = "", **resources: object) -> v1.ContainerSpec:
    """A container with limits."""
    command = ["sh", "-c", script] if script else []
    return v1.ContainerSpec(name="web", image=image, command=command, resources=Resources(**resources))  # type: ignore[arg-type]


def cgroup(instance: Instance, container: v1.Container, controller: str) -> Path:
    """The container's cgroup in the hierarchy of a controller."""
    place = hierarchies.controllers().get(controller)
    if not place:
        pytest.skip(f"this kernel has no {controller} controller")
    return place.hierarchy / instance.name / container.id


def value(folder: Path, v2: str, v1: str) -> str:
    """What the kernel says, whichever of the two files it has."""
    return (folder / (v2 if (folder / v2).exists() else v1)).read_text().strip()


def test_a_memory_bomb_is_killed_and_that_is_told(instance: Instance, client: Client, image: str) -> None:
    client.apply(limited(image, BOMB, memory_bytes=16 * MIB))
    event = client.until("web", ev.EVENT_REASON_EXITED)
    assert event.exit.oom_killed and event.exit.code == 137
    assert event.message == "code 137, out of memory"
    assert client.get("web").status.exit.oom_killed
    assert "exited (137, out of memory)" in instance.cli("ls").stdout


def test_what_is_killed_otherwise_is_not_told_as_out_of_memory(client: Client, image: str) -> None:
    newest = client.events()[-1].sequence
    client.apply(limited(image, "sh -c 'kill -9 $$'; exit 137", memory_bytes=64 * MIB))
    exit = client.until("web", ev.EVENT_REASON_EXITED, newest).exit
    assert (exit.code, exit.oom_killed) == (137, False)


def test_a_memory_bomb_is_told_by_a_runtime_that_was_restarted(
    own: tuple[Instance, Client], image: str
) -> None:
    instance, client = own
    client.up(limited(image, f"read x; {BOMB}", memory_bytes=16 * MIB))
    (container,) = client.ls()
    instance.kill("tinyo-runtime")
    instance.start("tinyo-runtime")
    with open(f"/proc/{container.status.pid}/fd/0", "wb", buffering=0) as stdin:
        stdin.write(b"\n")
    assert client.until("web", ev.EVENT_REASON_EXITED).exit.oom_killed


def test_a_fork_bomb_is_held(instance: Instance, client: Client, image: str) -> None:
    (container,) = client.up(limited(image, "(while :; do sleep 1000 & done) 2>/dev/null; read x", pids=20))
    folder = cgroup(instance, container, "pids")
    stats = sample(client)
    while not int((folder / "pids.events").read_text().split()[1]):  # bounded by the time-out of the calls
        stats = sample(client)
    assert stats.pids <= 20 == stats.pids_limit


def test_processors_are_limited_and_that_is_counted(instance: Instance, client: Client, image: str) -> None:
    (container,) = client.up(limited(image, "while :; do :; done", cpu_millis=50, cpu_weight=10))
    folder = cgroup(instance, container, "cpu")
    assert value(folder, "cpu.max", "cpu.cfs_quota_us") in ("5000 100000", "5000")
    assert value(folder, "cpu.weight", "cpu.shares") in ("10", "50")
    for answer in client.node.Stats(pb.StatsRequest(interval_ms=100), timeout=30):
        if answer.stats[0].cpu_throttled_periods:
            break
    stats = answer.stats[0]
    assert stats.cpu_periods >= stats.cpu_throttled_periods > 0 < stats.cpu_throttled_ns
    assert 0 < stats.cpu_user_ns <= stats.cpu_usage_ns


def test_a_cpuset_is_all_that_it_sees(instance: Instance, client: Client, image: str) -> None:
    one = str(max(os.sched_getaffinity(0)))
    (container,) = client.up(limited(image, cpuset=one))
    for command in (("cat", "/proc/1/status"), ("cat", "/proc/self/status")):  # those that join have it, too
        status = client.run("web", *command)[1].decode()
        assert f"Cpus_allowed_list:\t{one}\n" in status
    assert cgroup(instance, container, "cpuset").exists()
    client.down("web")
    with pytest.raises(AssertionError, match=r"this machine offers the processors"):
        client.up(limited(image, cpuset="8000"))


@pytest.fixture(scope="module")
def disk() -> Iterator[str]:
    """A disk of its own."""
    subprocess.run(["busybox", "modprobe", "loop"], capture_output=True, check=False)  # where it is a module
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(64 * MIB)
        made = subprocess.run(
            ["losetup", "--find", "--show", file.name], capture_output=True, text=True, check=False
        )
        if made.returncode:
            pytest.skip(f"no loop devices here: {made.stderr.strip()}")
        yield (name := made.stdout.strip())
        subprocess.run(["losetup", "--detach", name], check=True)


def test_a_disk_is_limited(instance: Instance, client: Client, image: str, disk: str) -> None:
    limit = IoLimit(device=disk, read_bps=MIB, write_iops=7)
    (container,) = client.up(limited(image, io=[limit]))
    folder = cgroup(instance, container, "io")
    numbers = f"{os.major(os.stat(disk).st_rdev)}:{os.minor(os.stat(disk).st_rdev)}"
    said = value(folder, "io.max", "blkio.throttle.read_bps_device")
    assert said in (f"{numbers} rbps={MIB} wbps=max riops=max wiops=7", f"{numbers} {MIB}")
    assert f"{container.id}" in client.run("web", "cat", "/proc/self/cgroup")[1].decode() or folder.exists()
    assert str(container.status.pid) in (folder / "cgroup.procs").read_text().split()


@pytest.mark.parametrize("device", ["/dev/null", "/dev/nothing", "4000:1"])
def test_what_is_no_disk_is_refused(client: Client, image: str, device: str) -> None:
    answers = client.apply(limited(image, io=[IoLimit(device=device, read_bps=1)]))
    error = answers[-1].settled.containers[0].status.error
    assert (error.reason, error.field) == ("LIMIT_REFUSED", "resources.io[0].device")


def test_a_score_is_not_inherited_from_the_services(instance: Instance, client: Client, image: str) -> None:
    (spawner,) = instance.spawners()
    score = Path(f"/proc/{spawner}/oom_score_adj")
    before = score.read_text()
    score.write_text("500")
    try:
        client.up(limited(image))
        scores = client.run("web", "cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj")[1]
    finally:
        score.write_text(before)
    assert scores == b"0\n0\n"
    code, _, errors = client.run("web", "sh", "-c", "echo -1 >/proc/self/oom_score_adj")
    assert code and b"ermission denied" in errors


def test_the_services_protect_themselves(instance: Instance) -> None:
    """Where they may: CAP_SYS_RESOURCE is not everybody's."""
    effective = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    expected = "-900\n" if effective >> 24 & 1 else Path("/proc/self/oom_score_adj").read_text()
    for pid in (instance.pid("tinyo-runtime"), instance.pid("tinyo-node"), *instance.spawners()):
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == expected


def test_an_update_is_live_and_stays(own: tuple[Instance, Client], image: str) -> None:
    instance, client = own
    (container,) = client.up(limited(image, memory_bytes=64 * MIB, pids=100))
    folder = cgroup(instance, container, "memory")

    def limit() -> str:
        return value(cgroup(instance, client.get("web"), "memory"), "memory.max", "memory.limit_in_bytes")

    assert limit() == str(64 * MIB)
    one = str(max(os.sched_getaffinity(0)))
    instance.cli("update", "web", "--memory", "256m", "--cpuset", one)  # more than memory and swap were
    assert limit() == str(256 * MIB)
    status = client.run("web", "cat", "/proc/1/status")[1].decode()
    assert f"Cpus_allowed_list:\t{one}\n" in status
    instance.cli("update", "web", "--memory", "32m")
    assert limit() == str(32 * MIB)
    assert client.get("web").id == container.id
    instance.kill("tinyo-node")
    instance.kill("tinyo-runtime")
    instance.start("tinyo-runtime")
    instance.start("tinyo-node")
    instance.cli("stop", "-t", "0", "web")
    assert not folder.exists()
    instance.cli("start", "web")
    assert limit() == str(32 * MIB)
    assert client.get("web").spec.resources == Resources(memory_bytes=32 * MIB, pids=100, cpuset=one)
    # A Statefile is the truth again, without a restart.
    pid = client.get("web").status.pid
    answers = client.apply(limited(image, memory_bytes=64 * MIB))
    assert answers[0].accepted.changes[0].action == pb.CHANGE_ACTION_UPDATE
    assert limit() == str(64 * MIB)
    assert client.get("web").status.pid == pid
    instance.cli("update", "web", "--memory", "none")
    assert sample(client).HasField("memory_limit_bytes") is False


def test_an_update_that_is_refused_changes_nothing(instance: Instance, client: Client, image: str) -> None:
    (container,) = client.up(limited(image, memory_bytes=64 * MIB))
    done = instance.cli("update", "web", "--memory", "32m", "--cpuset", "8000", check=False)
    assert done.returncode == 1
    assert "this machine offers the processors" in done.stderr
    assert client.get("web").spec.resources == Resources(memory_bytes=64 * MIB)
    folder = cgroup(instance, container, "memory")
    assert value(folder, "memory.max", "memory.limit_in_bytes") == str(64 * MIB)
    done = instance.cli("update", "web", "--memory", "1m", check=False)
    assert "memory is at least 6 MiB" in done.stderr
    with pytest.raises(grpc.RpcError, match="there is no such limit"):
        client.node.Update(pb.UpdateRequest(names=["web"], fields=["nothing"]))


def test_other_limits_keep_the_files_of_a_container_that_has_ended(client: Client, image: str) -> None:
    (container,) = client.up(limited(image, memory_bytes=64 * MIB))
    client.node.Stop(pb.StopRequest(names=["web"], grace_ms=0), timeout=30)
    answers = client.apply(limited(image, memory_bytes=32 * MIB))
    assert answers[0].accepted.changes[0].action == pb.CHANGE_ACTION_START
    assert client.get("web").id == container.id
    assert sample(client).memory_limit_bytes == 32 * MIB


def test_an_apply_that_cannot_be_had_says_so(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    statefile = tmp_path / "web.yml"
    statefile.write_text(f'container: "{image}"\nmemory: 64m\n')
    instance.cli("+", str(statefile))
    statefile.write_text(f'container: "{image}"\nmemory: 64m\ncpuset: "8000"\n')
    done = instance.cli("+", str(statefile), check=False)
    assert done.returncode == 1
    assert "web.yml:3:9: cpuset: '8000': this machine offers the processors" in done.stderr
    statefile.write_text(f'container: "{image}"\nmemory: 32m\n')
    assert "updating" in instance.cli("+", str(statefile)).stdout
    assert "up to date" in instance.cli("+", str(statefile)).stdout


def sample(client: Client) -> ContainerStats:
    """What the only container takes of the machine."""
    (answer,) = client.node.Stats(pb.StatsRequest(), timeout=30)
    (stats,) = answer.stats
    return stats
