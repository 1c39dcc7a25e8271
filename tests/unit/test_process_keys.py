"""The keys of a container's process: what can be written, what it means, and what a node takes."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.network_pb2 import NETWORK_KIND_CONTAINER, NETWORK_KIND_HOST, NETWORK_KIND_NONE
from tinyo.v1.process_pb2 import Entrypoint
from tinyo_ctl.mistakes import StatefileError
from tinyo_ctl.statefile import load
from tinyo_node import checks, replacing
from tinyo_node.cluster import State
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.image import ImageConfig
from tinyo_runtime.options import arguments
from tinyo_runtime.stopping import catches, signal_number


def spec(folder: Path, text: str) -> ContainerSpec:
    """What a Statefile with these lines asks for."""
    (folder / "web.yml").write_text(f"container: a\n{text}\n")
    return load(str(folder / "web.yml")).containers[0]


def mistakes(folder: Path, text: str) -> str:
    """What is told about a Statefile with these lines."""
    with pytest.raises(StatefileError) as caught:
        spec(folder, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("entrypoint: sh -c 'a b'", "entrypoint", Entrypoint(words=["sh", "-c", "a b"])),
        ("entrypoint: [sh, -c, no]", "entrypoint", Entrypoint(words=["sh", "-c", "no"])),
        ("entrypoint: []", "entrypoint", Entrypoint()),
        ("entrypoint: ''", "entrypoint", Entrypoint()),
        ("args: [a, b c]", "args", ["a", "b c"]),
        ("args: a 'b c'", "args", ["a", "b c"]),
        ("hostname: web.example.com", "hostname", "web.example.com"),
        ("groups: 10", "groups", ["10"]),
        ("groups: [audio, 10]", "groups", ["audio", "10"]),
        ("init: true", "init", True),
        ("init: false", "init", False),
        ("stop_signal: SIGRTMIN+3", "stop_signal", "SIGRTMIN+3"),
        ("stop_signal: 15", "stop_signal", "15"),
        ("stop_grace: 10s", "stop_grace_ms", 10_000),
        ("stop_grace: 90", "stop_grace_ms", 90_000),
        ("stop_grace: 1m30.5s", "stop_grace_ms", 90_500),
        ("stop_grace: 1h1ms", "stop_grace_ms", 3_600_001),
        ("stop_grace: 0", "stop_grace_ms", 0),
        ("oom_score_adj: -500", "oom_score_adj", -500),
        ("sysctls: {net.core.somaxconn: 1024}", "sysctls", {"net.core.somaxconn": "1024"}),
        ("sysctls: ['kernel.sem=250 32000 32 128']", "sysctls", {"kernel.sem": "250 32000 32 128"}),
    ],
)
def test_what_can_be_written(tmp_path: Path, text: str, field: str, value: Any) -> None:
    made = spec(tmp_path, text)
    assert getattr(made, field) == value
    if field in ("entrypoint", "stop_grace_ms"):
        assert made.HasField(field)  # type: ignore[arg-type]
    assert not dict(checks.check(made))


@pytest.mark.parametrize(
    "text", ["nofile: 1024", "nofile: {soft: 1024, hard: 1024}", "nofile: '1024:1024'", "[nofile=1024]"]
)
def test_limits_as_docker_and_compose_write_them(tmp_path: Path, text: str) -> None:
    made = spec(tmp_path, f"ulimits: {text if text.startswith('[') else f'{{{text}}}'}")
    assert (made.ulimits["nofile"].soft, made.ulimits["nofile"].hard) == (1024, 1024)
    both = spec(tmp_path, "ulimits: {memlock: unlimited, core: '0:-1'}").ulimits
    assert [(both[name].soft, both[name].hard) for name in ("memlock", "core")] == [(-1, -1), (0, -1)]


def test_an_entrypoint_without_a_value_is_the_images(tmp_path: Path) -> None:
    assert not spec(tmp_path, "entrypoint:").HasField("entrypoint")
    one_empty_word = spec(tmp_path, "entrypoint: ['']")
    checks.fill(one_empty_word)
    assert one_empty_word.entrypoint == Entrypoint() and one_empty_word.HasField("entrypoint")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "entrypoint: sh -c 'a",
            "web.yml:2:13: the command cannot be split into words: no closing quotation",
        ),
        ("entrypoint: {a: b}", "web.yml:2:13: one value is expected here"),
        ("stop_grace: soon", "web.yml:2:13: 'soon' is no time: write it as in 10s, 1m30s or 500ms"),
        ("stop_grace: -1", "web.yml:2:13: '-1' is no time"),
        ("stop_grace: ''", "web.yml:2:13: '' is no time"),
        ("ulimits: {nofile: many}", "web.yml:2:19: 'many' is no limit: write a number, or unlimited"),
        ("ulimits: {nofile: {soft: 1}}", "web.yml:2:19: 'hard' is missing here"),
        ("ulimits: nofile", "web.yml:2:10: lines with 'key: value' are expected here"),
        ("oom_score_adj: high", "web.yml:2:16: 'high' is no number from -1000 to 1000"),
        ("init: yes", "web.yml:2:7: 'yes' is neither true nor false"),
        ("entry_point: a", "unknown key 'entry_point': did you mean 'entrypoint'?"),
    ],
)
def test_what_cannot_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    assert told in mistakes(tmp_path, text)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("entrypoint[0]", {"entrypoint": {"words": ["a\0"]}}),
        ("args[1]", {"args": ["a", "x" * 200_000]}),
        *(
            ("hostname", {"hostname": name})
            for name in ("-a", "a-", "a_b", "a..b", "a" * 64, "a.", "ä", "a b", "a\n")
        ),
        *(("groups[0]", {"groups": [name]}) for name in ("", "-1", "a:b", "4294967295", "a,b", "a\n")),
        *(
            ("stop_signal", {"stop_signal": name})
            for name in ("0", "65", "SIGNOPE", "SIGRTMIN+31", "SIGRTMIN-1", "SIG_DFL", "SIG", "-9")
        ),
        ("stop_grace_ms", {"stop_grace_ms": 86_400_001}),
        ("ulimits[files]", {"ulimits": {"files": {"soft": 1, "hard": 1}}}),
        ("ulimits[core]", {"ulimits": {"core": {"soft": 2, "hard": 1}}}),
        ("ulimits[core]", {"ulimits": {"core": {"soft": -1, "hard": 1}}}),
        ("ulimits[core]", {"ulimits": {"core": {"soft": -2, "hard": -1}}}),
        ("ulimits[nofile]", {"ulimits": {"nofile": {"soft": 3, "hard": 100}}}),
        ("oom_score_adj", {"oom_score_adj": -1001}),
        ("oom_score_adj", {"oom_score_adj": 1001}),
        *(
            (f"sysctls[{name}]", {"sysctls": {name: "1"}})
            for name in (
                *(
                    "kernel.core_pattern",
                    "kernel.shm_next_id",
                    "vm.overcommit_memory",
                    "fs.file-max",
                    "net",
                    "net.",
                ),
                *("net..core", "net/ipv4/ip_forward", "net.ipv4/../../kernel/core_pattern", "net.core.a/b"),
                *("kernel.msgmax.x", "fs.mqueue.", "fs.mqueue.../x", "KERNEL.MSGMAX", "net.a\n", " net.a"),
            )
        ),
        *(("sysctls[net.a]", {"sysctls": {"net.a": value}}) for value in ("", "1\n", "x" * 1025, "\0")),
    ],
)
def test_a_node_refuses(field: str, wrong: dict[str, Any]) -> None:
    assert field in dict(checks.check(ContainerSpec(name="web", **wrong)))


def test_a_network_that_is_anothers_keeps_its_parameters() -> None:
    made = ContainerSpec(name="web", sysctls={"net.ipv4.ip_forward": "1", "kernel.msgmax": "1"})
    for kind, other in ((NETWORK_KIND_HOST, ""), (NETWORK_KIND_CONTAINER, "db"), (NETWORK_KIND_NONE, "")):
        made.network.kind, made.network.container = kind, other
        wrong = {field for field, _ in checks.check(made)}
        assert wrong == (set() if kind == NETWORK_KIND_NONE else {"sysctls[net.ipv4.ip_forward]"})


def test_what_is_there_and_empty_differs_from_what_is_not() -> None:
    from tinyo.node.v1 import node_pb2 as pb
    from tinyo.v1.container_pb2 import Container

    unset = ContainerSpec(name="web")
    for empty in (
        ContainerSpec(name="web", entrypoint=Entrypoint()),
        ContainerSpec(name="web", stop_grace_ms=0),
    ):
        for before, after in ((unset, empty), (empty, unset)):
            state = State.__new__(State)
            state.containers = {("default", "web"): Container(cluster="default", spec=before)}
            change = pb.Change()
            assert not replacing.kept(state, Container(cluster="default", spec=after), change)
            assert len(change.fields) == 1


IMAGE = ImageConfig(entrypoint=("entry",), cmd=("cmd",))


@pytest.mark.parametrize(
    ("asked", "argv"),
    [
        ({}, "entry cmd"),
        ({"command": ["c"]}, "entry c"),
        ({"args": ["a"]}, "entry a"),
        ({"command": ["c"], "args": ["a"]}, "entry c a"),
        ({"entrypoint": {"words": ["e"]}}, "e"),
        ({"entrypoint": {"words": ["e"]}, "command": ["c"], "args": ["a"]}, "e c a"),
        ({"entrypoint": {"words": ["e"]}, "args": ["a"]}, "e a"),
        ({"entrypoint": {}, "command": ["c"]}, "c"),
        ({"entrypoint": {}, "args": ["a"]}, "a"),
    ],
)
def test_what_is_executed(asked: dict[str, Any], argv: str) -> None:
    assert arguments.of(ContainerSpec(**asked), IMAGE) == argv.split()


def test_nothing_to_execute_is_told() -> None:
    for spec, image in ((ContainerSpec(entrypoint=Entrypoint()), IMAGE), (ContainerSpec(), ImageConfig())):
        with pytest.raises(TinyoError, match="there is no command") as caught:
            arguments.of(spec, image)
        assert caught.value.reason == "COMMAND_NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("SIGTERM", 15), ("TERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN", 34), ("SIGRTMIN+3", 37)),
        *(("RTMAX-1", 63), ("", 15), ("SIGNOPE", 15), ("0", 15), ("99", 15), ("SIG_BLOCK", 15), ("HUP", 1)),
    ],
)
def test_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


WAITING = {
    "signal.sigwait({signal.SIGTERM})": True,  # as tini and dumb-init
    "os.read(0, 1)": False,
    "signal.signal(signal.SIGTERM, print); os.read(0, 1)": True,
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); os.read(0, 1)": True,  # as catatonit
}


@pytest.mark.parametrize("how", WAITING)
def test_who_gets_a_signal_as_the_first_process(how: str) -> None:
    program = f"import os, signal; os.write(1, b'.'); {how}"
    with subprocess.Popen(
        [sys.executable, "-ISc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.read(1)
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "S":  # it waits
            continue
        assert catches(process.pid, signal.SIGTERM) == WAITING[how]
        process.kill()
    assert not catches(process.pid, signal.SIGTERM), "nor does one that has ended"


FILE = b"\xef\xbb\xbf# a comment\r\nA=1\r\n\n  B= two 'quoted' # not a comment \nFROM_OUTSIDE\nNOT_THERE\nC=\nD=a=b\n   #\n"


def test_a_file_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "outside")
    monkeypatch.delenv("NOT_THERE", raising=False)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/app.env").write_bytes(FILE)
    made = spec(tmp_path, "env_file: sub/app.env").env
    expected = {
        "A": "1",
        "B": " two 'quoted' # not a comment ",
        "FROM_OUTSIDE": "outside",
        "C": "",
        "D": "a=b",
    }
    assert dict(made) == expected
    (tmp_path / "more.env").write_text("A=2\nE=3\n")
    written = "env_file: [sub/app.env, more.env]\nenv: [D=here]"
    assert dict(spec(tmp_path, written).env) == expected | {"A": "2", "E": "3", "D": "here"}
    assert spec(tmp_path, f"env_file: {tmp_path}/more.env").env["E"] == "3"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"A=1\n=secret\n", "app.env:2: a name is missing before '='"),
        (b"A=1\nmy secret\n", "app.env:2: a name has no spaces in it: write NAME=value"),
        (b"A =secret\n", "app.env:1: a name has no spaces in it: write NAME=value"),
        (b"A=\xff\n", "app.env:1: this is not UTF-8"),
        (b"A=secret\0\n", "app.env:1: there is a NUL in it"),
        (b"#" * ((1 << 20) + 1), "app.env: the file is larger than 1 MiB"),
        (None, "app.env: No such file or directory"),
    ],
)
def test_what_is_wrong_with_one(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "app.env").write_bytes(content)
    message = mistakes(tmp_path, "env_file: [app.env]")
    assert f"web.yml:2:12: {told}" in message
    assert "secret" not in message
