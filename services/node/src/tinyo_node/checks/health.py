"""How a container is checked while it runs."""

import re
from collections.abc import Iterator

from tinyo.v1.container_pb2 import PROTOCOL_UDP, ContainerSpec
from tinyo.v1.health_pb2 import HttpCheck

#: Milliseconds; failures in a row.
INTERVAL = TIMEOUT = 30_000
START_INTERVAL = 5_000
RETRIES = 3
#: What is possible, in milliseconds.
PERIODS = {"interval_ms": 100, "timeout_ms": 10, "start_period_ms": 0, "start_interval_ms": 100}
LONGEST = 24 * 3_600_000
MOST_RETRIES, MOST_HEADERS, MOST_BYTES = 1000, 100, 64 << 10
#: Names of headers (RFC 9110, 5.1); what their values, and paths, have: no control characters.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]{0,8192}")
PATH = re.compile(r"/[\x21-\x7e]{0,8191}")
#: They would say something else about the request than it is.
OWN = {"connection", "content-length", "transfer-encoding", "upgrade", "expect"}


def fill(spec: ContainerSpec) -> None:
    """The image's check is used where nothing is said; else everything is."""
    health = spec.health
    if not health.ByteSize():
        spec.ClearField("health")
        return
    if health.WhichOneof("check") in (None, "none"):
        return
    health.interval_ms = health.interval_ms or INTERVAL
    health.timeout_ms = health.timeout_ms or TIMEOUT
    health.retries = health.retries or RETRIES
    least = PERIODS["start_interval_ms"]
    health.start_interval_ms = health.start_interval_ms or max(least, min(START_INTERVAL, health.interval_ms))
    if health.HasField("http"):
        health.http.path = health.http.path or "/"
        published = [port.container_port for port in spec.ports if port.protocol != PROTOCOL_UDP]
        otherwise = 443 if health.http.tls else 80
        health.http.port = health.http.port or next(iter(published), otherwise)


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    if not spec.HasField("health"):
        return
    health = spec.health
    way = health.WhichOneof("check")
    if way is None or (way == "none" and not health.none):
        yield "health", "a check is missing: say exec, http or tcp, or none"
    for field, least in PERIODS.items():
        if (time := getattr(health, field)) and not least <= time <= LONGEST:
            yield f"health.{field}", f"{time} ms are not between {least} ms and a day"
    if health.retries > MOST_RETRIES:
        yield "health.retries", f"at most {MOST_RETRIES} failures can be waited for"
    match way:
        case "exec":
            words = health.exec.command
            if not words or not words[0]:
                yield "health.exec.command", "a program is needed"
            if any("\0" in word for word in words) or sum(map(len, words)) > MOST_BYTES:
                yield "health.exec.command", "the program is too long, or has a NUL in it"
        case "http":
            yield from http(health.http)
        case "tcp":
            if not 1 <= health.tcp.port <= 65535:
                yield "health.tcp", f"port {health.tcp.port} is not between 1 and 65535"


def http(check: HttpCheck) -> Iterator[tuple[str, str]]:
    """What is wrong with a request."""
    if not PATH.fullmatch(check.path):
        yield (
            "health.http.path",
            f"{check.path!r} is no path: it begins with '/', and other characters are %XX in it",
        )
    if not 1 <= check.port <= 65535:
        yield "health.http.port", f"port {check.port} is not between 1 and 65535"
    if len(check.headers) > MOST_HEADERS:
        yield "health.http.headers", f"at most {MOST_HEADERS} headers are possible"
    for name, value in check.headers.items():
        if not TOKEN.fullmatch(name) or name.lower() in OWN:
            yield "health.http.headers", f"{name!r} is no name of a header that can be said"
        if not VALUE.fullmatch(value):
            yield f"health.http.headers[{name}]", f"{value!r} is no value of a header"
    for index, status in enumerate(check.statuses):
        if not 100 <= status <= 599:
            yield f"health.http.statuses[{index}]", f"status {status} is not between 100 and 599"
