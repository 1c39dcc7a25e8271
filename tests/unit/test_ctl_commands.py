"""The table of commands, and those that need more of it than test_ctl_cli.py looks at."""

import importlib
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.image_pb2 import LAYER_COMPRESSION_GZIP, LAYER_COMPRESSION_ZSTD, CommitOptions
from tinyo_ctl.changes import find
from tinyo_ctl.commands import COMMANDS

from tests.support.fake_node import FakeNode

TINYO = str(Path(sys.executable).with_name("tinyo"))
PATIENCE = 60
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tinyo(node: FakeNode, tmp_path: Path) -> Run:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TINYO, *arguments],
            env={**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.names[0])
def test_every_command_is_there_and_has_an_example(command: object) -> None:
    assert command in COMMANDS
    one = COMMANDS[COMMANDS.index(command)]
    module, _, function = one.run.partition(":")
    assert callable(getattr(importlib.import_module(f"tinyo_ctl.{module}"), function))
    for line in one.examples.splitlines():
        assert any(f"tinyo {name}" in line for name in one.names)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.names[0])
def test_every_command_explains_itself(command: object, tinyo: Run) -> None:
    one = COMMANDS[COMMANDS.index(command)]
    done = tinyo(*one.names[0].split(), "--help")
    assert done.returncode == 0
    assert one.help in done.stdout and one.examples in done.stdout


def test_listing_needs_neither_yaml_nor_rich(node: FakeNode) -> None:
    script = (
        "import sys; from tinyo_ctl.cli import main; sys.argv[1:] = ['ls']; main()\n"
        "print(sorted({'yaml', 'rich', 'difflib', 'json', 'importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TINYO_HOST": node.address, "COVERAGE_PROCESS_CONFIG": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_wide_list_says_more(tinyo: Run, node: FakeNode) -> None:
    node.containers["web"] = v1.Container(
        id="0123456789abcdef", origin="/srv/\x1bweb.yml", spec=v1.ContainerSpec(name="web", image="alpine")
    )
    heading, line = tinyo("ls", "-o", "wide").stdout.splitlines()
    assert heading.split()[-4:] == ["ID", "PID", "ADDRESS6", "STATEFILE"]
    assert line.split()[-2:] == ["0123456789abcdef", r"/srv/\x1bweb.yml"]


def test_the_host_can_stand_behind_the_command(tinyo: Run, node: FakeNode) -> None:
    done = tinyo("ls", "--host", node.address, TINYO_HOST="unix:/nowhere")
    assert done.returncode == 0
    assert tinyo("ls", "--host", "tcp:80").returncode == 2


def test_the_half_of_a_command_gets_the_other_half(tinyo: Run) -> None:
    assert tinyo("image").stderr == (
        "tinyo: 'image' needs one more word: image ls, image pull, image push, image rm, image inspect, "
        "image history, image tag, image import, image export, image prune, image du, image verify\n"
    )


def owned(name: str, origin: str, id: str) -> v1.Container:
    return v1.Container(id=id, origin=origin, spec=v1.ContainerSpec(name=name))


def test_what_is_to_be_removed_is_a_name_an_id_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("app.yml")
    present = [
        owned("web", f"{tmp_path}/app.yml", "aaaa111122223333"),
        owned("db", f"{tmp_path}/app.yml", "aaaa444455556666"),
        owned("aaaa1", "-", "bbbb111122223333"),
    ]

    def names(target: str) -> list[str]:
        return [one.spec.name for one in find(target, present)]

    assert names("web") == ["web"]
    assert names("app.yml") == names("./app.yml") == names("link") == ["web", "db"]
    assert names("-") == ["aaaa1"]
    assert names("aaaa1") == ["aaaa1"]  # a name comes first
    assert names("aaaa4444") == ["db"]


def test_nothing_is_removed_unless_every_target_is_known(tinyo: Run, node: FakeNode) -> None:
    node.containers["web"] = owned("web", "/web.yml", "aaaa")
    done = tinyo("-", "web", "wbe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tinyo: 'wbe' is neither a container nor a Statefile that brought one up: did you mean 'web'?\n"
    )
    assert "`tinyo ls -a -o wide` shows" in tinyo("-", "./no\x1b.yml").stderr
    assert not [one for one in node.requests if isinstance(one, pb.RemoveRequest)]


def test_a_beginning_of_several_ids_is_no_id(tinyo: Run, node: FakeNode) -> None:
    for name, id in (("one", "abcd0000"), ("two", "abcd1111")):
        node.containers[name] = owned(name, "/x.yml", id)
    done = tinyo("-", "abcd")
    assert done.returncode == 1
    assert "one, two" in done.stderr
    assert list(node.containers) == ["one", "two"]


@pytest.mark.parametrize("words", ["image sl", "nope"])
def test_unknown_commands_name_others(tinyo: Run, words: str) -> None:
    done = tinyo(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "image ls" in done.stderr


def complete(shell: str, *words: str, path: Path) -> list[str]:
    """What a shell offers for a line of words."""
    script = subprocess.run([TINYO, "completion", shell], capture_output=True, text=True, check=True).stdout
    line = " ".join(f"'{word}'" for word in words)
    asked = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _tinyo; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(
        [shell, "-c", asked],
        env={**os.environ, "TINYO_INSTANCE": "nobody", "PATH": f"{path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_commands(tmp_path: Path) -> None:
    assert complete("bash", "tinyo", "lo", path=tmp_path) == ["login", "logout", "logs"]
    assert complete("bash", "tinyo", "image", "", path=tmp_path) == [
        *("ls", "pull", "push", "rm", "inspect", "history", "tag"),
        *("import", "export", "prune", "du", "verify"),
    ]
    assert complete("bash", "tinyo", "services", "st", path=tmp_path) == ["start", "stop", "status"]
    assert complete("bash", "tinyo", "+", "", path=tmp_path) == []  # files, by bash itself
    assert complete("bash", "tinyo", "stop", "", path=tmp_path) == []  # no node, and none is started


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_understand_their_scripts(shell: str, tmp_path: Path) -> None:
    script = subprocess.run([TINYO, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert "services" in script and "image" in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([shell, "--no-execute", file], check=True)


def test_login_asks_a_terminal_and_shows_no_password(node: FakeNode, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [TINYO, "login", "r.test"],
        env={**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    sent = b""
    for question, answer in ((b"user: ", b"me\n"), (b"password: ", b"s3cret\n"), (b"logged in as me", b"")):
        while question not in sent:
            sent += os.read(master, 4096)
        os.write(master, answer)
    assert process.wait(PATIENCE) == 0
    os.close(master)
    assert b"s3cret" not in sent
    (request,) = node.requests
    assert request == pb.LoginRequest(registry="r.test", username="me", password="s3cret")


@pytest.mark.parametrize(
    ("options", "stdin", "why"),
    [
        ("", "", "nobody can be asked for a password here"),
        ("-u me", "x", "nobody can be asked"),
        ("--password-stdin", "x", "needs a user"),
        ("-u me --password-stdin", "\n", "the password is empty"),
        ("-u me --password-stdin", "x" * 20_000, "more than 16384 bytes"),
        ("-u me --password-stdin", "\udcff", "not UTF-8"),
    ],
)
def test_logins_without_what_they_need(node: FakeNode, options: str, stdin: str, why: str) -> None:
    done = subprocess.run(
        [TINYO, "login", *options.split(), "r.test"],
        env={**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody"},
        input=stdin.encode(errors="surrogateescape"),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert why in done.stderr.decode()
    assert not node.requests


def test_login_and_logout(tinyo: Run, node: FakeNode) -> None:
    assert tinyo("logout", "r.test").stdout == "✓ r.test  logged out\n"
    assert node.requests == [pb.LogoutRequest(registry="r.test")]


def test_commit_sends_what_was_said_and_tells_what_is_missing(tinyo: Run, node: FakeNode) -> None:
    done = tinyo("commit", "-a", "me", "-m", "why", "-c", "CMD x", "-c", "ENV A=1", "--compression", "zstd",
                 "--no-pause", "web", "team/web:2")  # fmt: skip
    assert done.stdout == "✓ x.test/team/web:2  sha256:00\n"
    assert done.stderr == "note: it\\x1b[2J is new\n"
    options = CommitOptions(
        author="me",
        message="why",
        changes=["CMD x", "ENV A=1"],
        no_pause=True,
        compression=LAYER_COMPRESSION_ZSTD,
    )
    sent = pb.CommitContainerRequest(name="web", reference="team/web:2", options=options)
    assert node.requests[-1] == sent
    tinyo("commit", "web", "app")
    options = CommitOptions(compression=LAYER_COMPRESSION_GZIP)
    assert node.requests[-1] == pb.CommitContainerRequest(name="web", reference="app", options=options)
    assert tinyo("commit", "web").returncode == 2
