"""How far pulls are, as people and programs see it, against a node in memory."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.v1 import image_pb2 as v1
from tinyo_ctl.progress import INTERVAL, Item, Part, Progress, amounts

from tests.support.fake_node import FakeNode
from tests.support.screen import Screen

TINYO = str(Path(sys.executable).with_name("tinyo"))
PATIENCE = 60
ALPINE = "docker.io/library/alpine:latest"


@pytest.fixture
def environment(node: FakeNode) -> dict[str, str]:
    return {**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody", "TERM": "xterm-256color"}


def layer(
    number: int, received: int, state: v1.LayerState.ValueType, **facts: int | bool
) -> v1.LayerProgress:
    """Of a megabyte."""
    complete = state in (v1.LAYER_STATE_DONE, v1.LAYER_STATE_EXISTS)
    digest = f"sha256:{number:064x}"[:7] + f"{number:012}" + "0" * 52
    return v1.LayerProgress(
        digest=digest,
        total_bytes=1_000_000,
        received_bytes=received,
        state=state,
        complete=complete,
        **facts,  # type: ignore[arg-type]
    )


def waiting(number: int) -> v1.LayerProgress:
    return layer(number, 0, v1.LAYER_STATE_WAITING)


def coming(number: int, received: int = 400_000, **facts: int | bool) -> v1.LayerProgress:
    return layer(number, received, v1.LAYER_STATE_DOWNLOADING, **facts)


def done(number: int) -> v1.LayerProgress:
    return layer(number, 1_000_000, v1.LAYER_STATE_DONE)


def exists(number: int) -> v1.LayerProgress:
    return layer(number, 0, v1.LAYER_STATE_EXISTS)


def pulls(
    node: FakeNode, *before: list[v1.LayerProgress], after: list[v1.LayerProgress], reference: str = "alpine"
) -> threading.Event:
    """Lets a pull come so far, and to its end as soon as the event is set."""
    goes_on = threading.Event()
    name = f"docker.io/library/{reference}:latest"

    def steps() -> Iterator[v1.PullProgress]:
        for layers in before:
            yield v1.PullProgress(reference=name, layers=layers)
        assert goes_on.wait(PATIENCE)
        yield v1.PullProgress(reference=name, layers=after)

    node.pulls[reference] = steps()
    return goes_on


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [TINYO, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_plain_lines_where_there_is_no_terminal(node: FakeNode, environment: dict[str, str]) -> None:
    """When it begins, each layer once, what it came to."""
    before = [exists(1), coming(2, resumed_bytes=300_000), coming(3, shared=True), waiting(4)]
    later = [exists(1), done(2), coming(3, 900_000, shared=True), coming(4)]
    pulls(node, [], before, before, later, after=[exists(1), done(2), done(3), done(4)]).set()
    shown = run(environment, "image", "pull", "alpine")
    assert (shown.returncode, shown.stderr) == (0, "")
    *lines, last = shown.stdout.splitlines()
    assert lines == [
        f"{ALPINE}  pulling 4 layers, 4.0 MB",
        f"{ALPINE}  000000000001  exists already  1.0 MB",
        f"{ALPINE}  000000000002  done  1.0 MB",
        f"{ALPINE}  000000000003  done  1.0 MB",
        f"{ALPINE}  000000000004  done  1.0 MB",
    ]
    assert last.startswith("✓ alpine  sha256:00  5 B  (3.0 MB in ") and last.endswith("B/s)")


def test_an_apply_says_what_a_pull_came_to(
    node: FakeNode, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "web.yml").write_text("container: alpine\n")
    pulls(node, [coming(1)], after=[done(1)]).set()
    lines = run(environment, "+", str(tmp_path / "web.yml")).stdout.splitlines()
    assert lines[0] == "web  pulling alpine" and lines[2].startswith("✓ web  running")
    assert lines[1].startswith(f"✓ {ALPINE}  pulled  1.0 MB in ")


def test_several_images_each_by_itself(node: FakeNode, environment: dict[str, str]) -> None:
    """In the order in which they were asked for; one that fails does not keep the others."""

    def fails() -> Iterator[v1.PullProgress]:
        yield v1.PullProgress(reference="x", layers=[coming(1)])
        raise RuntimeError

    pulls(node, [coming(1)], after=[done(1)]).set()
    node.pulls["broken"] = fails()
    shown = run(environment, "image", "pull", "broken", "alpine", "debian", "alpine")
    assert shown.returncode == 1
    assert shown.stderr.startswith("✗ broken  ")
    said = [line.split("  ")[0] for line in shown.stdout.splitlines() if line.startswith("✓")]
    assert said == ["✓ alpine", "✓ debian"]


def test_objects_for_programs(node: FakeNode, environment: dict[str, str]) -> None:
    before = [exists(1), coming(2, unpacked_bytes=7, resumed_bytes=3, shared=True)]
    pulls(node, before, before, after=[exists(1), done(2)]).set()
    shown = run(environment, "image", "pull", "-o", "json", "alpine", "\x1bdebian")
    assert shown.stdout.isascii() and "\x1b" not in shown.stdout
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [one for one in events if one["image"] == "alpine"] == [
        {
            "event": "layer",
            "image": "alpine",
            "digest": exists(1).digest,
            "state": "exists",
            "shared": False,
            "total_bytes": 1_000_000,
            "received_bytes": 0,
            "resumed_bytes": 0,
            "unpacked_bytes": None,
        },
        {
            "event": "layer",
            "image": "alpine",
            "digest": coming(2).digest,
            "state": "downloading",
            "shared": True,
            "total_bytes": 1_000_000,
            "received_bytes": 400_000,
            "resumed_bytes": 3,
            "unpacked_bytes": 7,
        },
        {
            "event": "layer",
            "image": "alpine",
            "digest": done(2).digest,
            "state": "done",
            "shared": False,
            "total_bytes": 1_000_000,
            "received_bytes": 1_000_000,
            "resumed_bytes": 0,
            "unpacked_bytes": None,
        },
        {
            "event": "image",
            "image": "alpine",
            "digest": "sha256:00",
            "references": ["alpine"],
            "platform": "",
            "size_bytes": 5,
        },
    ]
    assert [one["event"] for one in events if one["image"] == "\x1bdebian"] == ["image"]
    node.refuse(5, "IMAGE_NOT_FOUND", "there is none")
    shown = run(environment, "image", "pull", "-o", "json", "alpine")
    error = {"event": "error", "image": "alpine", "reason": "IMAGE_NOT_FOUND", "message": "there is none"}
    assert (shown.returncode, json.loads(shown.stdout)) == (1, error)


def test_a_reader_that_goes_away_ends_it(node: FakeNode, environment: dict[str, str]) -> None:
    pulls(node, *([coming(1, count)] for count in range(1, 1000)), after=[done(1)]).set()
    command = f"{TINYO} image pull -o json alpine | head -1"
    shown = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert json.loads(shown.stdout)["event"] == "layer" and shown.stderr == ""


def test_bars_come_and_go(node: FakeNode, environment: dict[str, str]) -> None:
    goes_on = pulls(
        node,
        [exists(1), coming(2, 900_000, unpacked_bytes=1_300_000), coming(3, 0, shared=True), waiting(4)],
        after=[exists(1), done(2), done(3), done(4)],
    )
    screen = Screen(columns=100, lines=30)
    process = screen.run([TINYO, "image", "pull", "alpine"], environment)
    screen.until(lambda: "unpacked" in screen.text)
    assert [
        " ".join(line.replace("━", "").replace("╸", "").replace("╺", "").split())
        for line in screen.text.splitlines()
    ] == [
        ALPINE,
        "total 1.9/4.0 MB 47 % downloading",
        "000000000001 1.0/1.0 MB exists already",
        "000000000002 0.9/1.0 MB downloading, 1.3 MB unpacked",
        "000000000003 0.0/1.0 MB downloading, shared",
        "000000000004 0.0/1.0 MB waiting",
    ]
    assert "\x1b[" in screen.sent and screen.widest <= 100
    goes_on.set()
    assert screen.end(process) == 0
    assert screen.text.startswith("✓ alpine  sha256:00  5 B  (3.0 MB in ") and "\n" not in screen.text


@pytest.mark.parametrize(
    ("columns", "lines", "count"),
    [(200, 50, 40), (80, 24, 127), (80, 24, 1), (60, 10, 40), (40, 8, 127), (20, 4, 40), (10, 2, 4)],
)
def test_bars_fit_the_terminal(
    node: FakeNode, environment: dict[str, str], columns: int, lines: int, count: int
) -> None:
    """However many layers, and images, there are, and whatever size it gets meanwhile."""
    layers = [coming(number) if number < 3 else waiting(number) for number in range(count)]
    going = [
        pulls(node, layers, after=[*map(done, range(count))], reference=reference)
        for reference in ("alpine", "debian")
    ]
    screen = Screen(columns, lines)
    process = screen.run([TINYO, "image", "pull", "alpine", "debian"], environment)
    screen.until(lambda: screen.text.count("docker") == 2 or "… and" in screen.text)
    assert screen.widest <= columns and len(screen.rows) <= lines - 1
    if count > 3 and lines > 20:
        assert screen.text.count("  others  ") == 2 and f"  {count - 3} waiting" in screen.text
    screen.resize(70, 12)
    screen.sent = ""
    screen.until(lambda: screen.sent.count("\x1b[J") > 1)
    assert screen.widest <= max(columns, 70) and len(screen.rows) <= 11
    for one in going:
        one.set()
    assert screen.end(process) == 0
    assert [line.split("  ")[0] for line in screen.text.splitlines()] == ["✓ alpine", "✓ debian"]


def test_what_is_said_meanwhile_stands_above_the_bars(
    node: FakeNode, environment: dict[str, str], tmp_path: Path
) -> None:
    """One container comes up, and fails, while the image of another is pulled; and only its errors go elsewhere."""
    for name, image in (("one", "fails"), ("two", "exits:0"), ("three", "alpine")):
        (tmp_path / f"{name}.yml").write_text(f"container: {image}\n")
    goes_on = pulls(node, [coming(1)], after=[done(1)])
    early = pulls(node, [coming(2)], after=[done(2)], reference="exits:0")
    screen = Screen(columns=100, lines=30)
    files = [str(tmp_path / f"{name}.yml") for name in ("two", "one", "three")]
    process = screen.run([TINYO, "+", *files], environment)
    screen.until(lambda: screen.text.count("total") == 2)
    early.set()
    screen.until(lambda: "three  pulling alpine" in screen.text)
    screen.until(lambda: screen.text.count("total") == 1 and screen.text.endswith("downloading"))
    lines = screen.text.splitlines()
    assert [line.partition("  ")[0] for line in lines[:4]] == [
        "two",
        "✓ docker.io/library/exits:0:latest",
        "✓ two",
        "one",
    ]
    assert lines[3] == "one  pulling fails"  # and no more of what stood there before
    assert "port 80 is held by" in screen.text and lines[-2:][0] == ALPINE
    goes_on.set()
    assert screen.end(process) == 1
    assert "total" not in screen.text
    assert screen.text.splitlines()[-1].startswith("✓ three  running")


def test_ctrl_c_leaves_no_bars(node: FakeNode, environment: dict[str, str]) -> None:
    pulls(node, [coming(1), coming(2)], after=[])
    screen = Screen()
    process = screen.run([TINYO, "image", "pull", "alpine"], environment)
    screen.until(lambda: "total" in screen.text)
    process.send_signal(signal.SIGINT)
    assert screen.end(process) == 130
    assert screen.text == "interrupted: layers that are complete are kept, and the next pull takes them"


def test_a_terminal_that_knows_ascii_alone(node: FakeNode, environment: dict[str, str]) -> None:
    pulls(node, [coming(1), coming(2)], after=[])
    screen = Screen()
    process = screen.run([TINYO, "image", "pull", "alpine"], {**environment, "PYTHONIOENCODING": "ascii"})
    screen.until(lambda: "total" in screen.text)
    assert screen.sent.isascii() and "\\" not in screen.text and "-----" in screen.text
    process.send_signal(signal.SIGINT)
    assert screen.end(process) == 130


def test_no_colours_and_a_terminal_that_can_do_nothing(node: FakeNode, environment: dict[str, str]) -> None:
    goes_on = pulls(node, [coming(1), coming(2)], after=[done(1), done(2)])
    screen = Screen()
    process = screen.run([TINYO, "image", "pull", "alpine"], {**environment, "NO_COLOR": "1"})
    screen.until(lambda: "total" in screen.text)
    goes_on.set()
    assert screen.end(process) == 0
    assert "\x1b[J" in screen.sent and not re.search(r"\x1b\[[\d;]*m", screen.sent)
    pulls(node, [coming(1)], after=[done(1)]).set()
    screen = Screen()
    process = screen.run([TINYO, "image", "pull", "alpine"], {**environment, "TERM": "dumb", "NO_COLOR": "1"})
    assert screen.end(process) == 0
    assert screen.text.splitlines()[0] == f"{ALPINE}  pulling 1 layer, 1.0 MB" and "\x1b" not in screen.sent


def test_a_pull_that_takes_no_time_needs_no_bars(node: FakeNode, environment: dict[str, str]) -> None:
    """Nor what draws them: loading it would be most of what people wait for."""
    script = (
        "import sys; from tinyo_ctl.cli import main; sys.stdout.isatty = lambda: True\n"
        "sys.argv[1:] = ['image', 'pull', 'alpine']; main()\n"
        "print(sorted({'rich', 'tinyo_ctl.bars', 'tinyo_ctl.foot'} & set(sys.modules)))"
    )
    pulls(node, [coming(1)], after=[done(1)]).set()
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "COVERAGE_PROCESS_CONFIG": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert shown.stdout.endswith("[]\n"), shown.stdout + shown.stderr


def test_rate_and_time_left() -> None:
    item = Item("x")
    assert item.outlook() == "asking the registry"
    item.update([Part("a", total=1000), Part("b", "downloading", 600, 2000, 600)])
    assert item.outlook() == "downloading"  # nothing came yet
    item.update([Part("a", total=1000), Part("b", "downloading", 1600, 2000, 600)])
    time.sleep(INTERVAL)
    rate, left = item.outlook().split("  ")
    assert rate.endswith("B/s") and left.endswith(" s left")
    assert 0 < item.rate() <= 1000 / INTERVAL
    item.update([Part("a", "unpacking", 1000, 1000), Part("b", "done", 2000, 2000, 600, ended=True)])
    assert item.outlook() == "unpacking" and not item.ended
    item.update([Part("a", "done", 1000, 1000, ended=True), Part("b", "done", 2000, 2000, 600, ended=True)])
    assert item.ended and item.facts().startswith("2.4 kB in ")


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (0, 0, "0 B"),
        (7, 0, "7 B"),
        (7, 9, "7/9 B"),
        (400, 1000, "0.4/1.0 kB"),
        (10**6, 2 * 10**9, "0.0/2.0 GB"),
    ],
)
def test_amounts_have_one_unit(done: int, total: int, shown: str) -> None:
    assert amounts(done, total) == shown


def test_other_things_than_pulls_are_shown_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pushing") as progress:
        progress.update("app:1", [Part("a", "uploading", 1, 10), Part("b", "mounted", 5, 5, 5, ended=True)])
        progress.update(
            "app:1", [Part("a", "done", 10, 10, ended=True), Part("b", "mounted", 5, 5, 5, ended=True)]
        )
        assert progress.news("app:1").startswith("10 B in ") and progress.news("app:1") == ""
    assert capsys.readouterr().out == (
        "app:1  pushing 2 layers, 15 B\napp:1  b  mounted  5 B\napp:1  a  done  10 B\n"
    )
