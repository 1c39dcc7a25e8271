"""What a Statefile says of a container's process: real services, real processes, the kernel's own words."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.v1 import event_pb2 as ev

from tests.support import images
from tests.support.client import Client
from tests.support.instance import Instance

#: Whether the services may raise hard limits and lower scores: CAP_SYS_RESOURCE is not everybody's.
PRIVILEGED = bool(int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1)
#: Says when it is ready, and which signal it got.
LOYAL = "trap 'echo got {0}; exit 7' {0}; echo ready; while :; do read x; done"
GROUPS = b"root:x:0:\nwheel:x:10:bob\nstaff:x:50:other,bob\naudio:x:63:\n"
USERS = b"root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture(scope="module")
def special(image: str) -> str:
    """An image that says more of its process than most."""
    files = images.layer(images.file("etc/group", GROUPS), images.file("etc/passwd", USERS))
    said = {"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"], "StopSignal": "SIGRTMIN+3"}
    return images.busybox_image(image.partition("/")[0], "special", [files], **said)


@pytest.fixture
def statefile(tmp_path: Path, instance: Instance, client: Client, image: str, special: str) -> "Statefile":
    return Statefile(tmp_path / "web.yml", instance, {"alpine": image, "special": special})


class Statefile:
    """A file that is brought up."""

    def __init__(self, path: Path, instance: Instance, images: dict[str, str]) -> None:
        self.path, self.instance, self.images = path, instance, images

    def up(self, text: str, image: str = "alpine", check: bool = True) -> str:
        """Applies lines of a Statefile; what was printed."""
        self.path.write_text(f"container: {self.images[image]}\n{text}\n")
        done = self.instance.cli("+", str(self.path), check=False)
        told = done.stdout + done.stderr
        if "cannot have a user namespace" in told:
            pytest.skip(told.strip())
        assert not check or done.returncode == 0, told
        return told


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", b"entry cmd"),
        ("args: [a, b c]", b"entry a b c"),
        ("command: one\nargs: two", b"entry one two"),
        ("entrypoint: echo own", b"own"),
        ("entrypoint: [echo, own]\nargs: x", b"own x"),
        ("entrypoint: []\ncommand: echo reset", b"reset"),
        ("entrypoint: ''\nargs: [echo, reset]", b"reset"),
    ],
)
def test_what_is_executed(statefile: Statefile, client: Client, text: str, printed: bytes) -> None:
    statefile.up(text, "special", check=False)
    client.until("web", ev.EVENT_REASON_EXITED)
    assert client.logs("web", follow=True) == printed + b"\n"


def test_nothing_to_execute_points_at_the_statefile(statefile: Statefile) -> None:
    told = statefile.up("entrypoint: []", "special", check=False)
    assert "there is no command: the image has none, or `entrypoint` replaces it" in told
    told = statefile.up("entrypoint: nope", "special", check=False)
    assert "web.yml:2:13: command 'nope' was not found in the image" in told


def test_an_entrypoint_that_is_reset_changes_the_container(statefile: Statefile, client: Client) -> None:
    statefile.up("command: sleep 1000")
    before = client.get("web").id
    statefile.up("command: sleep 1000\nentrypoint:")
    assert client.get("web").id == before
    statefile.up("command: sleep 1000\nentrypoint: []")
    assert client.get("web").id != before


def test_variables_of_a_file(statefile: Statefile, client: Client) -> None:
    (statefile.path.parent / "app.env").write_text("# mine\nA=of the file\nB=of the file\nTINYO_INSTANCE\n")
    statefile.up("env_file: app.env\nenv: {B: of the Statefile}\ncommand: sleep 1000")
    script = 'echo "$A, $B, $TINYO_INSTANCE"'
    expected = f"of the file, of the Statefile, {statefile.instance.name}\n"
    assert client.run("web", "sh", "-c", script)[1].decode() == expected


def test_a_hostname(statefile: Statefile, client: Client) -> None:
    statefile.up("hostname: db1.example.com\ncommand: sleep 1000")
    script = "hostname; cat /etc/hostname; grep -q 'db1.example.com db1$' /etc/hosts && echo known; grep -c web /etc/hosts"
    assert client.run("web", "sh", "-c", script)[1] == b"db1.example.com\ndb1.example.com\nknown\n0\n"
    told = statefile.up("hostname: a_b\ncommand: sleep 1000", check=False)
    assert "web.yml:2:11: hostname 'a_b': use at most 63 of" in told


def test_groups(statefile: Statefile, client: Client) -> None:
    """The image's own memberships, as docker has it, and those that were asked for; also for further processes."""
    statefile.up("user: bob\ngroups: [audio, 1234, '50']\ncommand: sleep 1000\nentrypoint: []", "special")
    pid = client.get("web").status.pid
    for status in (
        Path(f"/proc/{pid}/status").read_bytes(),
        client.run("web", "cat", "/proc/self/status")[1],
    ):
        (groups,) = (line for line in status.split(b"\n") if line.startswith(b"Groups:"))
        assert sorted(map(int, groups.split()[1:])) == [10, 50, 63, 1001, 1234]
    told = statefile.up("groups: [audio, nobodys]\ncommand: sleep 1000", "special", check=False)
    assert "web.yml:2:17: the image knows no group 'nobodys': write its number" in told
    told = statefile.up("groups: 70000\nuserns: true\ncommand: sleep 1000", check=False)
    assert "web.yml:2:9: the user of the image or a group of theirs has no id in the container's user" in told


def test_limits_of_processes(statefile: Statefile, client: Client) -> None:
    """Also hard ones above those of the services, and for further processes."""
    own = int(limits(statefile.instance.spawners()[0])["Max pending signals"][1]) + 7 * PRIVILEGED
    text = f"ulimits: {{nofile: 512:2048, core: 0, fsize: unlimited, sigpending: {own}, nproc: {{soft: 100, hard: 200}}}}"
    statefile.up(f"{text}\nuser: nobody\ncommand: sleep 1000")
    pid = client.get("web").status.pid
    joined = client.run("web", "cat", "/proc/self/limits")[1].decode()
    for found in (limits(pid), parsed(joined)):
        assert found["Max open files"] == ["512", "2048"]
        assert found["Max core file size"] == ["0", "0"]
        assert found["Max file size"] == ["unlimited", "unlimited"]
        assert found["Max pending signals"] == [str(own)] * 2
        assert found["Max processes"] == ["100", "200"]
    told = statefile.up("ulimits:\n  nofile: 99999999999\ncommand: sleep 1000", check=False)
    assert (
        "web.yml:3:11: the limit nofile cannot be 99999999999: that is more than this machine allows" in told
    )
    told = statefile.up("ulimits:\n  files: 1\ncommand: sleep 1000", check=False)
    assert "web.yml:3:10: there is no limit 'files': there are as, core" in told


def limits(pid: int) -> dict[str, list[str]]:
    return parsed(Path(f"/proc/{pid}/limits").read_text())


def parsed(text: str) -> dict[str, list[str]]:
    """Soft and hard limits by the kernel's names (proc_pid_limits(5))."""
    return {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()[1:]}


@pytest.mark.parametrize("userns", ["false", "true"])
def test_parameters_of_the_kernel(statefile: Statefile, client: Client, userns: str) -> None:
    """The container's own change, and the host's do not; nor can the container change them itself."""
    names = {
        "net.core.somaxconn": "77",
        "kernel.msgmax": "9000",
        "fs.mqueue.msg_max": "12",
        "kernel.sem": "1\t2\t3\t4",
    }
    paths = [f"/proc/sys/{name.replace('.', '/')}" for name in names]
    before = [Path(path).read_text() for path in paths]
    asked = "{" + ", ".join(f"{name}: '{value.replace(chr(9), ' ')}'" for name, value in names.items()) + "}"
    statefile.up(f"sysctls: {asked}\nuserns: {userns}\ncommand: sleep 1000")
    out = client.run("web", "cat", *paths)[1].decode()
    assert out.splitlines() == list(names.values())
    assert [Path(path).read_text() for path in paths] == before
    code, _, errors = client.run("web", "sh", "-c", f"echo 1 >{paths[0]}")
    assert code and b"Read-only file system" in errors


def test_parameters_that_cannot_be(statefile: Statefile) -> None:
    for name, told in (
        ("kernel.core_pattern", "web.yml:4:24: 'kernel.core_pattern' cannot be set for a container alone"),
        ("net.nothing", "web.yml:4:16: this kernel has no parameter net.nothing for a container"),
        (
            "net.ipv4.ip_forward",
            "web.yml:4:24: the parameter net.ipv4.ip_forward cannot be 'x': Invalid argument",
        ),
    ):
        assert told in statefile.up(f"command: sleep 1000\nsysctls:\n  {name}: x", check=False), name


@pytest.mark.parametrize("score", [-500, 300])
def test_a_score(statefile: Statefile, client: Client, score: int) -> None:
    """It is the least that a container can choose, where that can be set."""
    if not PRIVILEGED:
        score = abs(score)
        told = statefile.up("oom_score_adj: -1000\ncommand: sleep 1000", check=False)
        assert "web.yml:2:16: oom_score_adj cannot be -1000: Permission denied" in told
    statefile.up(f"oom_score_adj: {score}\ncommand: sleep 1000")
    script = f"cat /proc/1/oom_score_adj /proc/self/oom_score_adj; echo {score - 1} >/proc/self/oom_score_adj"
    code, out, errors = client.run("web", "sh", "-c", script)
    assert out == f"{score}\n{score}\n".encode()
    assert not PRIVILEGED or (code and b"ermission denied" in errors)


@pytest.mark.parametrize(("userns", "user"), [("false", "root"), ("false", "nobody"), ("true", "nobody")])
def test_a_reaper(statefile: Statefile, client: Client, userns: str, user: str) -> None:
    """It is the first process, has nothing of the host, takes orphans and ends as the command does."""
    script = "(sleep 0.01 & exec true); " + LOYAL.format("TERM")
    statefile.up(f'init: true\nuser: {user}\nuserns: {userns}\ncommand: [sh, -c, "{script}"]')
    ready(client)
    container = client.get("web")
    assert Path(f"/proc/{container.status.pid}/cmdline").read_bytes().startswith(b"init\0--\0sh\0-c\0")
    assert sorted(os.listdir(f"/proc/{container.status.pid}/fd"), key=int)[:3] == ["0", "1", "2"]
    for fd in os.listdir(f"/proc/{container.status.pid}/fd"):
        link = os.readlink(f"/proc/{container.status.pid}/fd/{fd}")
        assert link.startswith(("pipe:", "anon_inode:")), "it has nothing of the host"
    while b"Z" in client.run("web", "ps", "-o", "stat")[1]:  # bounded by the calls' time-outs
        continue
    statefile.instance.cli("stop", "web")
    assert client.logs("web", follow=True) == b"ready\ngot TERM\n"
    assert client.get("web").status.exit.code == 7


def test_what_a_reaper_cannot_execute_never_began(statefile: Statefile) -> None:
    told = statefile.up("init: true\ncommand: nope", check=False)
    assert "web.yml:3:10: command 'nope' was not found in the image" in told
    told = statefile.up("init: true\ncommand: /etc/passwd", check=False)
    assert "web.yml:3:10: command '/etc/passwd' cannot be executed: Permission denied" in told


def test_a_reaper_cannot_be_written_to(statefile: Statefile, client: Client) -> None:
    """It is the host's file (CVE-2019-5736); root of the container may open what its first process runs."""
    statefile.up("init: true\ncommand: sleep 1000")
    before = os.stat("/usr/bin/catatonit")
    assert client.run("web", "cmp", "/proc/1/exe", "/proc/1/exe")[0] == 0
    for attack in ("chmod 777 /proc/1/exe", "chown 1 /proc/1/exe", "touch /proc/1/exe"):
        code, _, errors = client.run("web", *attack.split())
        assert code and b"Read-only file system" in errors
    after = os.stat("/usr/bin/catatonit")
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_ctime_ns,
    )


def ready(client: Client) -> None:
    """Returns when the container said so."""
    while b"ready" not in client.logs("web"):
        continue


@pytest.mark.parametrize(
    ("key", "trap", "kind"),
    [
        ("stop_signal: SIGUSR1", "USR1", "alpine"),
        ("stop_signal: 12", "USR2", "alpine"),
        ("stop_signal: rtmin+5", "RTMIN+5", "alpine"),
        ("", "TERM", "alpine"),
        ("stop_signal: HUP", "HUP", "special"),
        ("", "RTMIN+3", "special"),
    ],
)
def test_a_signal_to_stop(statefile: Statefile, client: Client, key: str, trap: str, kind: str) -> None:
    """The Statefile's, else the image's, else SIGTERM."""
    number = signal.SIGRTMIN + int(trap[-1]) if trap.startswith("RT") else signal.Signals[f"SIG{trap}"]
    script = LOYAL.format(int(number))
    statefile.up(f'{key}\nentrypoint: []\ncommand: [sh, -c, "{script}"]', kind)
    ready(client)
    statefile.instance.cli("stop", "web")
    assert client.logs("web", follow=True) == f"ready\ngot {int(number)}\n".encode()
    assert client.get("web").status.exit.code == 7


def test_time_to_stop(statefile: Statefile, client: Client) -> None:
    """That of the Statefile counts when it is stopped, replaced and removed, unless who asks says another: with none
    there is no signal but SIGKILL."""
    folder = statefile.path.parent / "out"
    script = "trap 'echo got >/out/file; exit 7' TERM; echo ready; while :; do read x; done"
    text = (
        f'stop_grace: 0\nmounts: [{{source: out, target: /out, create: true}}]\ncommand: [sh, -c, "{script}"]'
    )
    for how, asked in (
        (("stop", "web"), False),
        (("stop", "-t", "60", "web"), True),
        (("+", str(statefile.path)), False),
        (("rm", "web"), False),
        (("rm", "-t", "60", "web"), True),
    ):
        statefile.up(text)
        ready(client)
        if "+" in how:
            statefile.path.write_text(statefile.path.read_text() + "env: [A=b]\n")
        statefile.instance.cli(*how)
        assert (folder / "file").exists() == asked, how
        (folder / "file").unlink(missing_ok=True)
