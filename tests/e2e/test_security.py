"""What a Statefile says of capabilities and system calls is what the kernel holds, for a container and for each further
process in it."""

import json
from pathlib import Path

import pytest
from tinyo_runtime.options import apparmor

from tests.support.client import Client
from tests.support.instance import Instance

#: Who changes an owner needs CAP_CHOWN; who lists links of /proc/1 looks at what the container itself has.
ATTEMPT = "busybox chown 5 /etc/group 2>&1; busybox mkdir /new 2>&1; grep -hE '^(CapBnd|NoNewPrivs|Seccomp):' /proc/1/status"
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}],
}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_container_and_what_is_run_in_it(
    instance: Instance, client: Client, image: str, tmp_path: Path, restarted: bool
) -> None:
    (tmp_path / "web.json").write_text(json.dumps(PROFILE))
    (tmp_path / "web.yml").write_text(
        f"container: {image}\n"
        f'command: [sh, -c, "{ATTEMPT}; exec sleep 1000"]\n'
        "security:\n"
        "  capabilities: {add: NET_RAW, drop: [CAP_CHOWN, setfcap]}\n"
        "  seccomp: web.json\n"
        "  no_new_privileges: false\n"
    )
    instance.cli("+", str(tmp_path / "web.yml"))
    if restarted:
        for service in ("tinyo-node", "tinyo-runtime"):
            instance.kill(service)
            instance.start(service)
    expected = [
        "chown: /etc/group: Operation not permitted",
        "mkdir: can't create directory '/new': Read-only file system",
        f"CapBnd:\t{0x800405FB ^ 1 ^ 1 << 31 | 1 << 13:016x}",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
    ]
    done = instance.cli("exec", "web", "--", "sh", "-c", ATTEMPT)
    assert done.stdout.splitlines() == expected
    if not restarted:
        done = instance.cli("+", str(tmp_path / "web.yml"))
        assert "up to date" in done.stdout, done.stdout
        (tmp_path / "web.json").write_text(json.dumps(PROFILE | {"syscalls": []}))
        instance.cli("+", str(tmp_path / "web.yml"))
        done = instance.cli("exec", "web", "--", "sh", "-c", ATTEMPT)
        assert "File exists" in done.stdout, "it was made when the container started"


@pytest.mark.parametrize("traces", [False, True])
def test_a_profile_may_refuse_new_processes(
    instance: Instance, client: Client, image: str, tmp_path: Path, traces: bool
) -> None:
    """A program that is run in the container is a clone; where it could be traced, the filter is there before it is."""
    refused = {"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}
    (tmp_path / "one.json").write_text(json.dumps(PROFILE | {"syscalls": [refused]}))
    (tmp_path / "one.yml").write_text(
        f"container: {image}\ncommand: [sleep, '1000']\nsecurity:\n  seccomp: one.json\n"
        f"  capabilities: {{add: [{'SYS_PTRACE' if traces else ''}]}}\n"
    )
    instance.cli("+", str(tmp_path / "one.yml"))
    done = instance.cli("exec", "one", "--", "sh", "-c", "echo here; true | true", check=False)
    if traces:
        why = "has CAP_SYS_PTRACE, and its seccomp profile refuses clone(2): Operation not permitted"
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"tinyo: container 'one' {why}; nothing more can be run in it\n",
        )
    else:
        assert done.stdout == "here\n" and "can't fork: Operation not permitted" in done.stderr
    instance.cli("-", "one")


def test_where_no_process_has_room_none_is_run(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    (tmp_path / "full.yml").write_text(f"container: {image}\ncommand: [sleep, '1000']\npids: 1\n")
    instance.cli("+", str(tmp_path / "full.yml"))
    done = instance.cli("exec", "full", "--", "true", check=False)
    why = "container 'full' has as many processes as it may have (`pids`, `ulimits`); nothing more can be run in it"
    assert (done.returncode, done.stderr) == (1, f"tinyo: {why}\n")
    instance.cli("-", "full")


def test_wrong_input_changes_nothing(instance: Instance, client: Client, image: str, tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text(f"container: {image}\nsecurity:\n  seccomp: web.json\n")
    (tmp_path / "web.json").write_text(json.dumps(PROFILE))
    instance.cli("+", str(file))
    before = client.get("web")
    (tmp_path / "web.json").write_text(json.dumps(PROFILE | {"defaultAction": "SCMP_ACT_NOTIFY"}))
    done = instance.cli("+", str(file), check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f"{file}:3:12: profile web.json: defaultAction: SCMP_ACT_NOTIFY needs a program beside the container, "
        "which there is not"
    )
    assert client.get("web") == before


@pytest.mark.skipif(apparmor.there(), reason="this kernel has AppArmor")
def test_a_profile_of_apparmor_is_asked_for_where_there_is_none(
    instance: Instance, client: Client, image: str, tmp_path: Path
) -> None:
    file = tmp_path / "web.yml"
    file.write_text(f"container: {image}\nsecurity:\n  apparmor: mine\n")
    done = instance.cli("+", str(file), check=False)
    assert done.returncode == 1
    assert (
        f"{file}:3:13: the AppArmor profile mine cannot be used: this kernel has no AppArmor" in done.stderr
    )
    file.write_text(f"container: {image}\nsecurity:\n  apparmor: default\n")
    instance.cli("+", str(file))
