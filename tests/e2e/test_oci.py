"""`tinyo-oci` on the real kernel: bundles of our own and of umoci, and podman with it as its runtime."""

import array
import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import OCI, Bundle
from tests.support.podman import Podman, made_for_a_test


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def exit_code(pid: int) -> int:
    """Of a process that fell to us, as to any subreaper."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_life_of_a_container(bundle: Bundle, tmp_path: Path) -> None:
    """create, start, exec, kill and delete; its process is ours when `create` has returned, and so is its exit code."""
    bundle.shell("echo begun; exec sleep 1000")
    pid = bundle.create("a", tmp_path / "out")
    state = bundle.state("a")
    assert state["ociVersion"] == "1.2.0"
    assert (state["id"], state["status"], state["pid"]) == ("a", "created", pid)
    assert state["bundle"] == str(bundle.folder)
    assert (tmp_path / "out").read_text() == ""
    assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()
    refused = bundle.oci("delete", "a")
    assert refused.returncode == 1
    assert "cannot be deleted: it is created" in refused.stderr
    assert bundle.oci("start", "a").returncode == 0
    assert bundle.state("a")["status"] == "running"
    again = bundle.oci("start", "a")
    assert (again.returncode, "it is running, and not created" in again.stderr) == (1, True)
    done = bundle.oci("exec", "a", "sh", "-c", "echo in $$; id -u; exit 3")
    assert (done.returncode, done.stdout.splitlines()[1]) == (3, "0")
    assert json.loads(bundle.oci("ps", "-f", "json", "a").stdout) == [pid]
    assert str(pid) in bundle.oci("list").stdout
    assert bundle.oci("kill", "a", "KILL").returncode == 0
    assert exit_code(pid) == -signal.SIGKILL
    assert bundle.state("a")["status"] == "stopped"
    gone = bundle.oci("kill", "a", "TERM")
    assert (gone.returncode, "it is stopped" in gone.stderr) == (1, True)
    assert bundle.oci("delete", "a").returncode == 0
    assert bundle.nothing_left()
    assert (tmp_path / "out").read_text() == "begun\n"
    assert "does not exist" in bundle.oci("state", "a").stderr
    assert bundle.oci("delete", "a").returncode == 1
    assert bundle.oci("delete", "--force", "a").returncode == 0


def test_run_has_the_exit_code_of_its_program(bundle: Bundle) -> None:
    for script, code in (("exit 7", 7), ("kill -9 $$; kill -9 1", 0), ("exec /bin/true", 0)):
        bundle.shell(script)
        assert bundle.oci("run", "a").returncode == code
    assert bundle.nothing_left()


def test_a_created_container_can_be_taken_away_with_force(bundle: Bundle) -> None:
    bundle.shell("sleep 1000")
    pid = bundle.create("a")
    assert bundle.oci("delete", "--force", "a").returncode == 0
    assert exit_code(pid) == -signal.SIGKILL
    assert bundle.nothing_left()


def test_what_keeps_a_container_in(bundle: Bundle) -> None:
    out = bundle.run(
        "grep -E 'Cap|NoNew|Seccomp:|Groups' /proc/self/status; ls /proc/self/fd; hostname; cat /proc/mounts"
    )
    status = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
    assert status["CapPrm"] == status["CapEff"] == status["CapBnd"] == "00000000800405fb"
    assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "\n0\n1\n2\n3\ntinyo\n" in out, "no descriptor but 0, 1, 2 (and 3, which ls itself has)"
    assert str(bundle.folder) not in out
    root = next(line for line in out.splitlines() if " / " in line)
    assert "ro,nodev" in root
    masked = bundle.run(
        "cat /proc/keys /proc/timer_list; ls /sys/firmware; echo 1 2>&1 >/proc/sys/kernel/core_pattern; true"
    )
    assert masked.strip() == "sh: can't create /proc/sys/kernel/core_pattern: Read-only file system"


def test_user_limits_and_environment(bundle: Bundle) -> None:
    process = {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [7, 8], "umask": 0o27},
        "env": ["PATH=/bin", "A=b=c"],
        "cwd": "/made/for/it",
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "oomScoreAdj": 500,
        "capabilities": {
            "bounding": ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"], "effective": ["CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_NET_BIND_SERVICE"], "inheritable": ["CAP_NET_BIND_SERVICE"],
            "ambient": ["CAP_NET_BIND_SERVICE"],
        },
    }  # fmt: skip
    script = "id; umask; env; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; grep Cap /proc/self/status; "
    out = bundle.run(script + "echo again > /dev/stdout; pwd", process=process, root={"readonly": False})
    lines = out.splitlines()
    assert lines[0] == "uid=1000(bob) gid=1000 groups=7,8"
    assert lines[1] == "0027"
    assert {"A=b=c", "HOME=/home/bob"} <= set(lines)
    assert [line for line in lines if line.isdecimal()][1:] == ["64", "128", "0", "500"]
    assert "CapEff:\t0000000000000400" in lines
    assert "CapAmb:\t0000000000000400" in lines
    assert "CapBnd:\t0000000000000401" in lines
    assert lines[-2:] == ["again", "/made/for/it"]


def test_mounts(bundle: Bundle, tmp_path: Path) -> None:
    """Targets are found inside the root, whatever links say; read-only is so all the way down."""
    outside, source = tmp_path / "outside", tmp_path / "source"
    for folder in (outside, source):
        folder.mkdir()
    (source / "file").write_text("shared")
    (bundle.folder / "rootfs/link").symlink_to(outside)
    (bundle.folder / f"rootfs{outside}").mkdir(parents=True)
    (bundle.folder / "rootfs/data").mkdir()
    (bundle.folder / "rootfs/data/own").write_text("of the image")
    bind = {"type": "bind", "source": str(source)}
    more = [
        {"destination": "/link/a", **bind, "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/one", "source": str(source / "file"), "options": ["bind"]},
        {
            "destination": "/data",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["tmpcopyup", "size=1m", "noexec"],
        },
    ]
    bundle.change(mounts=[*bundle.config["mounts"], *more])
    out = bundle.run(
        "cat /link/a/file /one /data/own; touch /link/a/x 2>&1; touch /data/y && grep -E ' (/data|/one) ' /proc/mounts",
        root={"readonly": False},
    )
    assert out.startswith("sharedsharedof the image")
    assert "/link/a/x: Read-only file system" in out
    assert "/data tmpfs rw,noexec,relatime,size=1024k" in out
    assert os.listdir(outside) == []
    assert sorted(os.listdir(source)) == ["file"]


def test_limits_are_in_force(bundle: Bundle) -> None:
    resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512},
        "pids": {"limit": 30},
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        ],
    }
    bundle.shell("sleep 1000", linux={"resources": resources, "cgroupsPath": "/tinyo-oci/limits"})
    pid = bundle.create("a")
    paths = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    assert any(path.endswith("/tinyo-oci/limits") for _, _, path in paths)
    # On v2 the folder is that of all controllers.
    found = [
        *Path("/sys/fs/cgroup").glob("tinyo-oci/limits/*"),
        *Path("/sys/fs/cgroup").glob("*/tinyo-oci/limits/*"),
    ]
    names = ("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us", "devices.list")
    values = {path.name: path.read_text().strip() for path in found if path.name in names}
    assert values.get("memory.max", values.get("memory.limit_in_bytes")) == str(64 << 20)
    assert values["pids.max"] == "30"
    assert values.get("cpu.max", values.get("cpu.cfs_quota_us")) in ("50000 100000", "50000")
    assert "c 10:229 rw" in values.get("devices.list", "c 10:229 rw").splitlines()
    bundle.oci("delete", "--force", "a")
    exit_code(pid)


def test_a_cgroup_that_somebody_has_stays_theirs(bundle: Bundle) -> None:
    bundle.shell("sleep 1000", linux={"cgroupsPath": "/tinyo-oci/shared"})
    pid = bundle.create("a")
    done = bundle.oci("create", "b")
    assert (done.returncode, "has processes already" in done.stderr) == (1, True)
    assert bundle.oci("list", "-q").stdout == "a\n"
    assert bundle.oci("start", "a").returncode == 0
    assert bundle.state("a")["status"] == "running"
    bundle.oci("delete", "--force", "a")
    exit_code(pid)


def hook(bundle: Bundle, name: str, code: int = 0) -> dict[str, Any]:
    """Writes its name and its input into a file of the host."""
    script = f"echo {name} $(cat) >> {bundle.folder}/said; exit {code}"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}


def test_hooks_run_in_their_order_with_the_state(bundle: Bundle) -> None:
    names = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {name: [hook(bundle, name)] for name in names}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/said"], "env": ["PATH=/bin"]}
    bundle.shell("cat /tmp/said", hooks=hooks | {"startContainer": [inside]}, annotations={"a": "b"})
    bundle.change(root={"readonly": False})
    done = bundle.oci("run", "a")
    assert done.returncode == 0, done.stderr
    said = [line.split(" ", 1) for line in (bundle.folder / "said").read_text().splitlines()]
    assert [name for name, _ in said] == [*names]
    states = {name: json.loads(text) for name, text in said}
    assert {state["id"] for state in states.values()} == {"a"}
    told = [states[name]["status"] for name in names]
    assert told.pop(3) in ("running", "stopped"), "poststart: its program may have ended meanwhile"
    assert told == ["creating", "creating", "created", "stopped"]
    assert states["createRuntime"]["pid"] > 1
    assert states["poststop"]["annotations"] == {"a": "b"}
    assert "pid" not in states["poststop"]
    assert json.loads(done.stdout)["status"] == "created", "startContainer, in the container"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_fails_ends_it(bundle: Bundle, kind: str) -> None:
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    bundle.shell("echo never", hooks={kind: [failing]})
    done = bundle.oci("run", "a")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"a hook failed: {kind} hook /bin/sh: exit code 3" in done.stderr
    assert bundle.nothing_left()


def test_a_create_that_was_killed_can_be_taken_away(bundle: Bundle) -> None:
    """Neither its spawner nor its process outlives it, and the id is free again."""
    fifo = bundle.folder / "fifo"
    os.mkfifo(fifo)
    bundle.shell("true", hooks={"createRuntime": [{"path": "/bin/cat", "args": ["cat", str(fifo)]}]})
    command = [str(OCI), "--root", str(bundle.root), "create", "a"]
    with subprocess.Popen(command, cwd=bundle.folder, stdout=subprocess.DEVNULL) as creating, fifo.open("w"):
        creating.kill()  # the hook has come to read
    for _ in range(1000):
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("somebody lives on")
    assert bundle.state("a")["status"] == "stopped"
    assert bundle.oci("delete", "--force", "a").returncode == 0
    assert bundle.nothing_left()


def test_a_hook_has_its_time(bundle: Bundle) -> None:
    slow = {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}
    bundle.shell("true", hooks={"createRuntime": [slow]})
    assert "createRuntime hook /bin/sleep (1 s): Connection timed out" in bundle.oci("run", "a").stderr
    assert bundle.nothing_left()


def received(listener: socket.socket) -> int:
    """The descriptor that comes over a console socket."""
    sock, _ = listener.accept()
    with sock:
        _, beside, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(beside[0][2])
    return fds[0]


def test_the_console_socket_gets_the_terminal(bundle: Bundle, tmp_path: Path) -> None:
    bundle.shell(
        "tty; stty size; read line; echo got $line; test -c /dev/console && echo console",
        process={"terminal": True},
    )
    bundle.change(process={"consoleSize": {"height": 33, "width": 99}})
    assert "must be true with --console-socket" in bundle.oci("create", "a").stderr
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen(1)
        pid_file = tmp_path / "pid"
        arguments = ("--console-socket", str(tmp_path / "console"), "--pid-file", str(pid_file))
        done = bundle.oci("create", *arguments, "a", stderr=subprocess.DEVNULL)
        assert done.returncode == 0
        master = received(listener)
        bundle.oci("start", "a")
        os.write(master, b"typed\n")
        assert exit_code(int(pid_file.read_text())) == 0
        out = os.read(master, 65536)
        os.close(master)
    assert b"/dev/pts/0\r\n33 99\r\n" in out
    assert b"got typed\r\n" in out
    assert b"console\r\n" in out
    bundle.oci("delete", "a")


def test_run_relays_the_terminal_itself(bundle: Bundle) -> None:
    bundle.shell("read line; echo got $line; exit 5", process={"terminal": True})
    done = bundle.oci("run", "a", input="typed\n", stdin=None)
    assert (done.returncode, "got typed" in done.stdout) == (5, True)


def test_what_is_typed_on_a_terminal_reaches_the_program(bundle: Bundle) -> None:
    """Also what was typed before it began; and our own terminal is as before."""
    bundle.change(process={"terminal": True})
    pid, master = pty.fork()
    if pid == 0:
        command = [str(OCI), "--root", str(bundle.root), "run", "--bundle", str(bundle.folder), "a"]
        os.execv(OCI, command)
    before = termios.tcgetattr(master)
    os.write(master, b"stty size; hostname; exit 9\n")
    out = b""
    while b"tinyo\r\n" not in out:
        out += os.read(master, 4096)
    with pytest.raises(OSError, match="Input/output error"):
        while True:
            assert os.read(master, 4096)
    assert termios.tcgetattr(master) == before
    os.close(master)
    assert exit_code(pid) == 9
    assert bundle.nothing_left()


def test_descriptors_are_kept_where_asked(bundle: Bundle) -> None:
    bundle.shell("cat <&3; cat <&4; ls /proc/self/fd")
    with open(bundle.folder / "three", "w+") as three, open(bundle.folder / "four", "w+") as four:
        for file in (three, four):
            file.write(f"{Path(file.name).name} ")
            file.seek(0)

        def place() -> None:
            high = [os.dup(three.fileno()), os.dup(four.fileno())]
            os.dup2(high[0], 30)
            os.dup2(high[1], 31)
            os.dup2(30, 3)
            os.dup2(31, 4)

        done = bundle.oci("run", "--preserve-fds", "2", "a", preexec_fn=place, close_fds=False)
    assert done.stdout.split() == ["three", "four", "0", "1", "2", "3", "4", "5"], done.stderr
    assert "descriptor 3 is not open" in bundle.oci("run", "--preserve-fds", "1", "a").stderr


def test_namespaces_of_others(bundle: Bundle) -> None:
    """As the containers of a pod have those of the first."""
    bundle.shell("sleep 1000")
    pid = bundle.create("first")
    paths = [
        {"type": kind, "path": f"/proc/{pid}/ns/{name}"}
        for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"))
    ]
    kinds = "net ipc uts pid"
    bundle.change(hostname="", linux={"namespaces": [{"type": "mount"}, *paths]})
    out = bundle.run(f"hostname; for kind in {kinds}; do readlink /proc/self/ns/$kind; done; echo $$")
    expected = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds.split()]
    assert out.splitlines()[:-1] == ["tinyo", *expected]
    assert out.splitlines()[-1] != "1"
    bundle.oci("delete", "--force", "first")
    exit_code(pid)


def test_exec_with_a_file_and_detached(bundle: Bundle, tmp_path: Path) -> None:
    bundle.shell("sleep 1000")
    pid = bundle.create("a")
    bundle.oci("start", "a")
    process = bundle.config["process"] | {
        "args": ["sh", "-c", "echo $X; exit 9"],
        "env": ["PATH=/bin", "X=y"],
        "cwd": "/tmp",
    }
    (tmp_path / "process").write_text(json.dumps(process))
    arguments = ("--process", str(tmp_path / "process"), "--detach", "--pid-file", str(tmp_path / "pid"))
    with open(tmp_path / "out", "w") as out:
        assert bundle.oci("exec", *arguments, "a", stdout=out, stderr=out).returncode == 0
    assert exit_code(int((tmp_path / "pid").read_text())) == 9
    assert (tmp_path / "out").read_text() == "y\n"
    status = bundle.oci("exec", "a", "grep", "-E", "CapBnd|NoNew|Seccomp:", "/proc/self/status").stdout
    assert status.split() == ["CapBnd:", "00000000800405fb", "NoNewPrivs:", "1", "Seccomp:", "2"]
    missing = bundle.oci("exec", "a", "nope")
    assert (missing.returncode, "executable file not found in $PATH" in missing.stderr) == (1, True)
    assert bundle.oci("kill", "--all", "a", "KILL").returncode == 0
    exit_code(pid)
    stopped = bundle.oci("exec", "a", "true")
    assert (stopped.returncode, "is stopped" in stopped.stderr) == (1, True)
    bundle.oci("delete", "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ociVersion": "2.0.0"}, "ociVersion is '2.0.0'"),
        ({"process": {"args": []}}, "config.json: process.args must name a program"),
        ({"process": {"args": ["nope"]}}, "'nope': executable file not found"),
        ({"process": {"args": "sh"}}, "process.args must be a list, and is 'sh'"),
        ({"process": {"cwd": "relative"}}, "process.cwd must be an absolute path"),
        ({"process": {"user": {"uid": -1}}}, "process.user.uid must be from 0"),
        ({"process": {"capabilities": {"bounding": ["CAP_NOPE"]}}}, "capabilities.bounding has 'CAP_NOPE'"),
        ({"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}, "rlimits[0].type is 'RLIMIT_X'"),
        ({"process": {"selinuxLabel": "x"}}, "process.selinuxLabel is not supported"),
        ({"process": {"scheduler": {"policy": "SCHED_IDLE"}}}, "process.scheduler is not supported"),
        ({"root": {"path": "nowhere"}}, "root.path is"),
        ({"mounts": [{"destination": "/x", "type": "nfs", "source": "x"}]}, "mounts[0].type is 'nfs'"),
        ({"mounts": [{"destination": "/x", "type": "bind", "source": "/nowhere"}]}, "No such file or directory"),
        ({"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["idmap"]}]}, "has 'idmap'"),
        ({"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["nope=1"]}]}, "a mount failed: tmpfs: nope=1"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "must have one of type mount"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}]}}, "namespaces[1].type is 'time'"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "ipc", "path": "/nowhere"}]}, "hostname": ""}, "cannot be opened"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}]}}, "uidMappings needs a namespace of type user"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "linux.intelRdt is not supported"),
        ({"linux": {"cgroupsPath": "system.slice:x:y"}}, "which is for systemd"),
        ({"linux": {"sysctl": {"kernel.core_pattern": "|/x"}}}, "sysctl.kernel.core_pattern is the whole machine's"),
        ({"linux": {"resources": {"rdma": {"x": {}}}}}, "resources.rdma is not supported"),
        ({"linux": {"resources": {"memory": {"limit": "1g"}}}}, "memory.limit must be a whole number, and is '1g'"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOPE"}}}, "defaultAction is 'SCMP_ACT_NOPE'"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}}}, "listenerPath is not supported"),
        ({"hooks": {"prestop": [{"path": "/bin/true"}]}}, "hooks.prestop is no hook"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_by_name(bundle: Bundle, changes: dict[str, Any], message: str) -> None:
    bundle.change(**changes)
    log = bundle.folder / "log"
    done = bundle.oci("--log", str(log), "--log-format", "json", "create", "a")
    assert done.returncode == 1
    assert message in done.stderr
    assert message in json.loads(log.read_text())["msg"]
    assert bundle.nothing_left()


def test_wrong_command_lines(bundle: Bundle) -> None:
    for arguments, message in (
        (["--systemd-cgroup", "list"], "use --cgroup-manager cgroupfs"),
        (["create", "--no-pivot", "a"], "--no-pivot is not supported"),
        (["create", "../a"], "cannot be a container's id"),
        (["kill", "nobody", "TERM"], "container nobody does not exist"),
        (["kill", "nobody", "NOPE"], "'NOPE' is no signal"),
        (["exec", "nobody"], "needs a program"),
        (["create", "--bundle", "/nowhere", "a"], "/nowhere/config.json cannot be read"),
    ):
        done = bundle.oci(*arguments)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert bundle.nothing_left()


def test_sysctls_of_its_own_namespaces(bundle: Bundle) -> None:
    out = bundle.run(
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni",
        linux={"sysctl": {"net.ipv4.ip_default_ttl": "77", "kernel.shmmni": "1234"}},
    )
    assert out.split() == ["77", "1234"]


def test_a_profile_of_the_bundle(bundle: Bundle) -> None:
    """Docker's format: one call is refused with the error that was asked for, others with another."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 1, "value": 15, "op": "SCMP_CMP_EQ"}]},
        ],
    }  # fmt: skip
    for no_new_privileges in (True, False):
        bundle.change(process={"noNewPrivileges": no_new_privileges}, root={"readonly": False})
        out = bundle.run(
            "busybox mkdir /x 2>&1; kill -15 $$ 2>&1; kill -0 $$ && echo ok", linux={"seccomp": profile}
        )
        assert "'/x': No space left on device" in out
        assert "Operation not permitted" in out
        assert out.endswith("ok\n")


def test_features(bundle: Bundle) -> None:
    said = json.loads(bundle.oci("features").stdout)
    assert (said["ociVersionMin"], said["ociVersionMax"]) == ("1.0.0", "1.2.0")
    assert "createRuntime" in said["hooks"]
    assert {"rro", "rprivate", "bind"} <= set(said["mountOptions"])
    assert said["linux"]["cgroup"]["v2"] is True
    assert said["linux"]["seccomp"]["enabled"] is True


def test_two_at_once_are_two(bundle: Bundle) -> None:
    """And one of a name that is taken is refused."""
    bundle.shell("sleep 1000")
    pids: dict[str, int] = {}
    threads = [threading.Thread(target=lambda id=id: pids.update({id: bundle.create(id)})) for id in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "exists already" in bundle.oci("create", "a").stderr
    assert sorted(bundle.oci("list", "-q").stdout.split()) == ["a", "b", "c"]
    for id, pid in pids.items():
        bundle.oci("delete", "--force", id)
        exit_code(pid)


def test_a_bundle_that_umoci_unpacked(bundle: Bundle, tmp_path: Path) -> None:
    """Its config.json is used as it is, with what an image says."""
    image, made = f"{tmp_path}/layout:one", tmp_path / "unpacked"
    rootfs = bundle.folder / "rootfs"
    commands: list[list[str | Path]] = [
        ["umoci", "init", "--layout", tmp_path / "layout"],
        ["umoci", "new", "--image", image],
        ["umoci", "insert", "--image", image, rootfs, "/"],
        ["umoci", "config", "--image", image, "--config.cmd=sh", "--config.cmd=-c", "--config.cmd=id; echo $A; exit 4",
         "--config.env=A=b", "--config.env=PATH=/bin", "--config.user=1000:1000", "--config.workingdir=/tmp"],
        ["umoci", "unpack", "--image", image, made],
    ]  # fmt: skip
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    done = bundle.oci("run", "--bundle", str(made), "a", stdin=subprocess.DEVNULL)
    assert done.returncode == 4, done.stderr
    assert done.stdout.splitlines() == ["uid=1000(bob) gid=1000", "b"]


@pytest.fixture
def podman(bundle: Bundle) -> Iterator[Podman]:
    with made_for_a_test(bundle) as made:
        yield made


def test_podman_runs_containers_with_it(podman: Podman) -> None:
    done = podman("run", "--rm", *podman.limits, "busybox", "sh", "-c", "id -u; echo err >&2; exit 5")
    assert (done.returncode, done.stdout) == (5, "0\n"), done.stderr
    assert "err\n" in done.stderr
    missing = podman("run", "--rm", *podman.limits, "busybox", "nope")
    assert (missing.returncode, "executable file not found" in missing.stderr) == (127, True)
    script = "trap 'exit 3' TERM; echo out; while true; do sleep 0.01; done"
    started = podman("run", "-d", "--name", "a", *podman.limits, "busybox", "sh", "-c", script)
    assert started.returncode == 0, started.stderr
    inside = podman("exec", "--env", "X=y", "--user", "5:6", "a", "sh", "-c", "id; echo $X; exit 4")
    assert inside.returncode == 4
    assert re.fullmatch(r"uid=5 gid=6( groups=6)?\ny\n", inside.stdout)
    assert podman.typed("exec", "-it", "a", "sh", "-c", "tty; exit 6") == (6, "/dev/pts/0")
    podman("stop", "--time", "20", "a")
    assert podman("logs", "a").stdout == "out\n"
    assert podman("inspect", "--format", "{{.State.ExitCode}}", "a").stdout == "3\n"
    assert podman("start", "a").returncode == 0, "again"
    assert podman("rm", "--force", "--time", "0", "a").returncode == 0


def test_podman_makes_pods_with_it(podman: Podman) -> None:
    infra = ("--infra-image", "busybox", "--infra-command", "/bin/sleep 1000")
    made = podman("pod", "create", "--name", "pod", "--network", "none", *infra)
    assert made.returncode == 0, made.stderr
    shown = []
    for kind in ("net", "ipc", "net"):
        run = ("run", "--rm", "--pod", "pod", *podman.limits[2:], "busybox")
        done = podman(*run, "readlink", f"/proc/self/ns/{kind}")
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown[0] == shown[2]
    assert shown[0].strip() not in ("", os.readlink("/proc/self/ns/net"))
    assert podman("pod", "rm", "--force", "--time", "0", "pod").returncode == 0
