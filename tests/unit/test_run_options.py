"""What options of `tinyo run` ask for: the same as the keys of a Statefile."""

from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo_ctl import keys, options, running
from tinyo_ctl.arguments import parse
from tinyo_ctl.commands import COMMANDS
from tinyo_ctl.failures import UsageError
from tinyo_ctl.statefile import load

#: Keys that `tinyo run` has no option for: words that follow its image; limits of single disks.
WITHOUT = {"args", "io"}
#: Those with options of their own in the table of commands.
OTHERS = {"tty", "stdin", "env_file"}


def asked(*arguments: str) -> ContainerSpec:
    """What a command line asks for."""
    _, found = parse(COMMANDS, ["run", *arguments, "a"], "")
    return running.specified(found)


@pytest.mark.parametrize(
    ("arguments", "statefile"),
    [
        (("--entrypoint", "sh -c"), "entrypoint: [sh -c]"),
        (("--entrypoint", "x", "--entrypoint=y"), "entrypoint: y"),
        (("--entrypoint", ""), "entrypoint: ['']"),
        (("--init", "--read-only", "--hostname", "h.example.com"), "{init: true, read_only: true, hostname: h.example.com}"),
        (("--group-add", "audio", "--group-add", "10"), "groups: [audio, 10]"),
        (("--stop-signal", "INT", "--stop-timeout", "0"), "{stop_signal: INT, stop_grace: 0}"),
        (("--ulimit", "nofile=1024:2048", "--ulimit", "core=0"), "ulimits: {nofile: '1024:2048', core: 0}"),
        (("--sysctl", "net.core.somaxconn=7"), "sysctls: {net.core.somaxconn: 7}"),
        (("--oom-score-adj", "-5"), "oom_score_adj: -5"),
        (("--restart", "on-failure:5"), "restart: on-failure:5"),
        (("--tmpfs", "/run", "--tmpfs", "/tmp:size=1m,mode=755"), "tmpfs: [/run, '/tmp:size=1m,mode=755']"),
        (("--shm-size", "1g"), "shm_size: 1g"),
        (("--device", "/dev/fuse:rw", "--device", "/dev/kvm"), "devices: ['/dev/fuse:rw', /dev/kvm]"),
        (("--device", "nvidia.com/gpu=all"), "cdi: nvidia.com/gpu=all"),
        (("--network", "container:db"), "network: container:db"),
        (("--net=host",), "network: host"),
        (("--add-host", "a:1.2.3.4", "--add-host", "b=::1"), "extra_hosts: ['a:1.2.3.4', 'b=::1']"),
        (
            ("--dns", "1.1.1.1", "--dns=9.9.9.9", "--dns-search", "x.org", "--dns-opt", "ndots:2"),
            "dns: {servers: [1.1.1.1, 9.9.9.9], search: x.org, options: 'ndots:2'}",
        ),
        (
            ("--cap-add", "NET_ADMIN", "--cap-drop", "all", "--cap-add=cap_chown"),
            "security: {capabilities: {add: [NET_ADMIN, CHOWN], drop: ALL}}",
        ),
        (
            ("--cap-drop=ALL", "--security-opt", "seccomp=unconfined", "--security-opt=apparmor=mine"),
            "security: {capabilities: {drop: ALL}, seccomp: unconfined, apparmor: mine}",
        ),
        (("--security-opt", "no-new-privileges"), "security: {no_new_privileges: true}"),
        (("--security-opt", "no-new-privileges:false"), "security: {no_new_privileges: false}"),
        (("--userns", "true"), "userns: true"),
        (("--userns", "host"), "userns: false"),
        (
            ("-m", "512m", "--memory-swap=-1", "--memory-reservation", "1m", "--cpus", "1.5"),
            "{memory: 512m, memory_swap: -1, memory_reservation: 1m, cpus: 1.5}",
        ),
        (
            ("--cpu-weight", "7", "--cpuset-cpus", "0-1", "--pids-limit", "9", "--io-weight", "8"),
            "{cpu_weight: 7, cpuset: 0-1, pids: 9, io_weight: 8}",
        ),
        (
            (
                *("--health-cmd", "wget -q localhost", "--health-interval", "5s", "--health-timeout", "1s"),
                *("--health-retries", "2", "--health-start-period", "1m", "--health-start-interval", "1s"),
            ),
            "health: {exec: wget -q localhost, interval: 5s, timeout: 1s, retries: 2, start_period: 1m,"
            " start_interval: 1s}",
        ),
        (("--no-healthcheck",), "health: none"),
        (("--log-opt", "max-size=1m", "--log-opt", "max-file=2"), "log: {max_size: 1m, max_files: 2}"),
        (("-p", "8000-8001:80-81/udp", "-p", "9000"), "port: ['8000-8001:80-81/udp', 9000]"),
    ],
)  # fmt: skip
def test_an_option_is_its_key(arguments: tuple[str, ...], statefile: str, tmp_path: Path) -> None:
    """Whatever a value means, it means in both."""
    path = tmp_path / "web.yml"
    body = statefile[1:-1].replace(", ", "\n") if statefile.startswith("{") else statefile
    path.write_text(f"container: a\nstdin: closed\n{body}\n")
    expected = load(str(path)).containers[0]
    found = asked("--name", "web", *arguments)
    assert found == expected


def test_variables_of_files_come_before_those_that_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "m")
    (tmp_path / "one").write_text("A=1\nB=1\nC=1\nMINE\n")
    (tmp_path / "two").write_text("B=2\nC=2\n")
    found = asked("-e", "C=3", "--env-file", "one", "--env-file", str(tmp_path / "two"))
    assert found.env == {"A": "1", "B": "2", "C": "3", "MINE": "m"}


def test_a_profile_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.json").write_text("{}")
    seccomp = asked("--security-opt", "seccomp=web.json").security.seccomp
    assert (seccomp.file, seccomp.profile) == ("web.json", "{}")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--memory", "lots"), "--memory: 'lots' is no size"),
        (("--net", "bridge"), "--network: 'bridge' is no network"),
        (("--cap-add", "NET_ADMN"), "--cap-add: unknown capability 'NET_ADMN'"),
        (("--ulimit", "nofile"), "--ulimit: 'nofile': write NAME=value"),
        (("--security-opt", "label=disable"), "--security-opt: 'label' is not known"),
        (("--security-opt", "seccomp="), "--security-opt: write default, unconfined"),
        (("--log-opt", "tag=x"), "--log-opt: 'tag' is not known: there are max-size, max-file"),
        (("--userns", "maybe"), "--userns: 'maybe' is neither true nor false"),
        (("--tmpfs", "/run:noexec"), "--tmpfs: 'noexec' is no option of a tmpfs"),
        (("--env-file", "/nowhere"), "--env-file: /nowhere: No such file or directory"),
        (("-p", "1-3:1-2"), "-p: '1-3:1-2' leads 3 to 2"),
        (("--rm", "--restart", "always"), "--rm and --restart do not go together"),
    ],
)
def test_what_is_wrong_names_its_option(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(*arguments)
    assert str(caught.value).startswith(why)


def test_what_docker_alone_has_is_said_in_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage does not hide it."""
    with pytest.raises(SystemExit) as caught:
        asked("--label", "a=b")
    usage, error = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert usage == "usage: tinyo run [OPTION ...] IMAGE [COMMAND ...]"
    assert error == "tinyo run: error: unrecognized arguments: --label"


def test_every_key_has_an_option() -> None:
    """A new key of Statefiles is one of `tinyo run` as well."""
    written = {option.key.split(".")[0] for option in options.OPTIONS} | {"devices", "cdi"}
    assert set(keys.KEYS) - written - OTHERS == WITHOUT
