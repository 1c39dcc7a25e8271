"""How signals and ports are written, and what `tinyo top` makes of numbers."""

import signal

import pytest
from tinyo.v1.container_pb2 import PHASE_RUNNING, Container, ContainerStatus
from tinyo.v1.top_pb2 import ContainerProcess
from tinyo_ctl import top
from tinyo_ctl.completion import NAMED, everything
from tinyo_ctl.failures import UsageError
from tinyo_ctl.render import phase
from tinyo_ctl.verbs import asked, signal_name, signal_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        ("hup", 1),
        ("1", 1),
        ("64", 64),
        ("RTMIN", 34),
        ("SIGRTMIN+1", 35),
        ("rtmin+30", 64),
        ("RTMAX", 64),
        ("RTMAX-30", 34),
        ("CLD", 17),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


WRONG = [
    "",
    "0",
    "65",
    "-1",
    "SIG9",
    "9x",
    "SIGSIGTERM",
    "RTMIN+31",
    "RTMAX-31",
    "RTMIN-1",
    "_DFL",
    "SIG_IGN",
    "٩",
]


@pytest.mark.parametrize("text", [*WRONG, "\x1b[2J", "TERM\n", "BLOCK"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        signal_number(text)
    assert str(raised.value).isprintable() and "is no signal" in str(raised.value)


def test_every_signal_has_a_name_that_is_read_back() -> None:
    for number in range(1, 65):
        if number in (32, 33):  # those of the C library have none
            assert signal_name(number) == f"signal {number}"
        else:
            assert signal_number(signal_name(number)) == number
    assert signal_name(signal.SIGUSR1) == "SIGUSR1"


def test_ports() -> None:
    assert asked("80") == asked("80/tcp") == (80, "tcp")
    assert asked("53/udp") == (53, "udp")
    for text in ("", "0", "65536", "x", "80/sctp", "8080:80", "80/", "-1"):
        with pytest.raises(UsageError, match="is no port"):
            asked(text)


def test_rows_of_processes() -> None:
    one = ContainerProcess(
        pid=1, host_pid=70, uid=12, state="S", cpu_ms=250, rss_bytes=2_000_000, age_ms=5000
    )
    assert top.row(one) == ("1", "70", "12", "S", "0.25 s", "2.0 MB", "5 s", "[]")
    one.command.extend(["sh", "-c", "a b"])
    one.user = "bob"
    assert top.row(one)[2] == "bob" and top.row(one)[-1] == "sh -c 'a b'"
    assert top.facts(one)["rss_bytes"] == 2_000_000 and top.facts(one)["command"] == ["sh", "-c", "a b"]
    assert [top.spent(ms) for ms in (0, 59_990, 65_000, 3_599_999, 93_780_000)] == [
        "0.00 s",
        "59.99 s",
        "1:05 min",
        "59:59 min",
        "26:03 h",
    ]


def test_paused_is_shown_as_long_as_it_runs() -> None:
    assert phase(Container(status=ContainerStatus(phase=PHASE_RUNNING, paused=True))) == "paused"


def test_the_completed_commands_are_there() -> None:
    assert {*NAMED} <= {*everything()}
    assert {"kill", "wait", "pause", "unpause", "restart", "rename", "top", "port"} <= {*NAMED}
