"""`tinyo logs` as people use it, with real services."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.log_pb2 import LogLimits

from tests.support.client import Client
from tests.support.instance import PROGRAMS, Instance


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def shell(name: str, image: str, script: str, **fields: object) -> v1.ContainerSpec:
    return v1.ContainerSpec(name=name, image=image, command=["sh", "-c", script], **fields)  # type: ignore[arg-type]


def ended(client: Client, *specs: v1.ContainerSpec) -> None:
    client.apply(*specs)
    for one in specs:
        client.until(one.name, ev.EVENT_REASON_EXITED)


def test_logs_of_one_and_of_several(client: Client, instance: Instance, image: str) -> None:
    ended(client, shell("a", image, "echo one; echo bad >&2; printf end"))
    ended(client, shell("long", image, "echo two; printf '\\377\\n' >&2"))
    alone = instance.cli("logs", "a")
    assert (alone.stdout, alone.stderr) == ("one\nend", "bad\n")
    both = [str(PROGRAMS / "tinyo"), "logs", "a", "long"]
    done = subprocess.run(both, env=instance.environment, capture_output=True)
    assert sorted(done.stdout.splitlines()) == [b"a    | end", b"a    | one", b"long | two"]
    assert sorted(done.stderr.splitlines()) == [b"a    | bad", b"long | \xff"]
    timed = instance.cli("logs", "-t", "a").stdout.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|end)", line) for line in timed)
    objects = [
        json.loads(line) for line in instance.cli("logs", "-o", "json", "a", "long").stdout.splitlines()
    ]
    assert {(one["container"], one["stream"], one.get("text"), one.get("base64")) for one in objects} == {
        ("a", "stdout", "one", None), ("a", "stderr", "bad", None), ("a", "stdout", "end", None),
        ("long", "stdout", "two", None), ("long", "stderr", None, "/w=="),
    }  # fmt: skip
    assert [one.get("partial") for one in objects if one.get("text") == "end"] == [True]
    assert instance.cli("logs", "--since", "1h", "a").stdout == "one\nend"
    assert instance.cli("logs", "--until", "1h", "a").stdout == ""
    assert (
        instance.cli("logs", "--since", "2001-01-01T00:00:00Z", "--until", "5000000000", "a").stdout
        == "one\nend"
    )
    wrong = instance.cli("logs", "--since", "soon", "a", check=False)
    assert wrong.returncode == 2 and "'soon' is no time" in wrong.stderr


def test_several_are_followed_until_all_have_ended(client: Client, instance: Instance, image: str) -> None:
    client.up(shell("a", image, "read x; echo $x"), shell("b", image, "read x; echo $x; exec sleep 1000"))
    command = [str(PROGRAMS / "tinyo"), "logs", "-f", "a", "b"]
    with subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        client.run("b", "sh", "-c", "echo hello >/proc/1/fd/1")
        assert following.stdout.readline() == "b | hello\n"
        client.run("a", "sh", "-c", "echo there >/proc/1/fd/1")
        assert following.stdout.readline() == "a | there\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130


def test_a_log_is_rotated_as_its_statefile_says(client: Client, instance: Instance, image: str) -> None:
    script = (
        "i=0; while [ $i -lt 4000 ]; do echo $i 0123456789012345678901234567890123456789; i=$((i+1)); done"
    )
    ended(client, shell("full", image, script, log=LogLimits(max_size_bytes=64 << 10, max_files=2)))
    folder = instance.state / "containers" / client.get("full").id
    assert sorted(path.name for path in folder.glob("log*")) == ["log", "log.1"]
    lines = client.logs("full").splitlines()
    # The beginning of the first line may have gone with a file before.
    numbers = [int(line.split()[0]) for line in lines[1:]]
    assert numbers == list(range(numbers[0], 4000)) and numbers[0] > 0


def test_a_runtime_that_is_killed_loses_nothing_of_a_log(image: str) -> None:
    with Instance() as instance, Client(instance.socket("tinyo-node")) as client:
        client.up(shell("a", image, "printf half; read x; exec sleep 1000"))
        client.run("a", "sh", "-c", "printf ' a line' >/proc/1/fd/1")
        instance.kill("tinyo-runtime")
        instance.start("tinyo-runtime")
        client.run("a", "sh", "-c", "echo ' and its end' >/proc/1/fd/1")
        client.node.Stop(pb.StopRequest(names=["a"], grace_ms=0))
        assert client.logs("a") == b"half a line and its end\n"
