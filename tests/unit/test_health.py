"""What checks make of a container, and what of an image's configuration is one."""

from typing import Any, cast

import pytest
from tinyo.v1 import health_pb2 as v1
from tinyo_runtime.health import connections, own, verdict
from tinyo_runtime.images import ImageStore

STARTING, HEALTHY, UNHEALTHY = (
    v1.HEALTH_STATE_STARTING,
    v1.HEALTH_STATE_HEALTHY,
    v1.HEALTH_STATE_UNHEALTHY,
)


@pytest.mark.parametrize(
    ("results", "state", "failures"),
    [
        ("", STARTING, 0),
        ("+", HEALTHY, 0),
        ("--", STARTING, 2),
        ("---", UNHEALTHY, 3),
        ("--+--", HEALTHY, 2),
        ("+---", UNHEALTHY, 3),
        ("-----", UNHEALTHY, 5),
        ("---+", HEALTHY, 0),
        ("~~~~", STARTING, 0),
        ("~~~---", UNHEALTHY, 3),
        ("~+~~~", UNHEALTHY, 3),
    ],
)
def test_a_row_of_failures_makes_it_unhealthy(results: str, state: int, failures: int) -> None:
    """+ is a check that passed, - one that failed, ~ one that failed in the start period."""
    check = verdict.complete(v1.Health(start_period_ms=60_000))
    status = v1.HealthStatus(state=STARTING)
    for result in results:
        verdict.judge(status, v1.HealthResult(passed=result == "+"), check, 59.9 if result == "~" else 60.0)
    assert (status.state, status.failures) == (state, failures)
    assert status.was_healthy == ("+" in results)
    assert len(status.results) == min(len(results), verdict.KEPT)


def test_it_waits_less_before_it_has_passed_in_the_start_period() -> None:
    check = verdict.complete(v1.Health(start_period_ms=60_000, start_interval_ms=1000))
    for state, age, seconds in ((STARTING, 0, 1), (STARTING, 60, 30), (HEALTHY, 0, 30)):
        assert verdict.pause(v1.HealthStatus(state=state), check, age) == seconds


def test_what_is_told_at_once_and_what_is_not() -> None:
    status = v1.HealthStatus(state=HEALTHY)
    told = verdict.Told(status, 100)
    assert not told.is_news(status, 1000)
    status.failures = 1
    assert not told.is_news(status, 109)
    assert told.is_news(status, 110)
    status.state = UNHEALTHY
    assert told.is_news(status, 100)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b" a\n", "a"),
        (b"\xff", "\ufffd"),
        (b"a" * 5000, "a" * 4096),
        ("ä".encode() * 3000, "ä" * 2048),
        (b"\xff" * 4096, "\ufffd" * 1365),
    ],
)
def test_a_text_is_never_longer_than_what_is_kept(data: bytes, text: str) -> None:
    assert verdict.text(data) == text


class Image:
    """An image with this configuration of its process."""

    def __init__(self, process: Any) -> None:
        self.process = process

    def documents(self, digest: str) -> tuple[Any, Any]:
        return {}, {"config": self.process}


def of_image(process: Any) -> v1.Health | None:
    """Its check; another image each time."""
    return own.read(cast(ImageStore, Image(process)), "")


def test_the_check_of_an_image() -> None:
    said = {
        "Test": ["CMD-SHELL", "curl -f http://localhost"],
        "Interval": 2_000_000_000,
        "Timeout": 3_000_000_000,
        "StartPeriod": 4_000_000_000,
        "StartInterval": 1,
        "Retries": 5,
    }
    assert of_image({"Healthcheck": said}) == v1.Health(
        exec=v1.ExecCheck(command=["/bin/sh", "-c", "curl -f http://localhost"]),
        interval_ms=2000,
        timeout_ms=3000,
        start_period_ms=4000,
        start_interval_ms=1000,
        retries=5,
    )
    shell = of_image({"Shell": ["/bin/bash", "-c"], "Healthcheck": {"Test": ["CMD-SHELL", "a"]}})
    assert shell and [*shell.exec.command] == ["/bin/bash", "-c", "a"]
    program = of_image({"Healthcheck": {"Test": ["CMD", "a", "b"]}})
    assert program and [*program.exec.command] == ["a", "b"]
    for odd in (-1, 1.5, "1", 1 << 80, None):
        times = of_image({"Healthcheck": {"Test": ["CMD", "a"], "Interval": odd, "Retries": odd}})
        assert times and times.interval_ms <= 86_400_000 and times.retries <= 1000


@pytest.mark.parametrize(
    "process",
    [
        None,
        [],
        {},
        {"Healthcheck": None},
        {"Healthcheck": "CMD a"},
        {"Healthcheck": {}},
        *(
            {"Healthcheck": {"Test": test}}
            for test in (
                [],
                ["NONE"],
                ["CMD"],
                ["CMD", ""],
                ["CMD", "a", 1],
                ["CMD", "a\0"],
                ["CMD", "\ud800"],
                ["CMD-SHELL", "a", "b"],
                ["EXEC", "a"],
                "CMD a",
                ["CMD", "a" * 70_000],
            )
        ),
    ],
)
def test_what_is_no_check_of_an_image(process: Any) -> None:
    assert of_image(process) is None


def test_a_request_as_it_is_sent() -> None:
    check = v1.HttpCheck(path="/a?b", port=8080, headers={"X-Own": "1", "Accept": "text/html"})
    assert connections.request("10.77.0.1", check) == (
        b"GET /a?b HTTP/1.1\r\nhost: 10.77.0.1:8080\r\nuser-agent: tinyo-health\r\naccept: text/html\r\n"
        b"x-own: 1\r\nconnection: close\r\n\r\n"
    )
    check = v1.HttpCheck(path="/", port=443, tls=True, headers={"Host": "example.com"})
    assert b"\r\nhost: example.com\r\n" in connections.request("10.77.0.1", check)
