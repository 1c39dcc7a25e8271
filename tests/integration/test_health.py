"""Checks that connect, against servers that do as they like. We stand for the container: it is our network namespace."""

import asyncio
import os
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from tinyo.v1.health_pb2 import Health, HealthResult
from tinyo_runtime.containers import Container, Containers
from tinyo_runtime.health import watch
from tinyo_runtime.spawnclient import Process

T = TypeVar("T")
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Serving:
    """A container that has our network."""

    class state:
        address = ""


@asynccontextmanager
async def served(server: Server, **more: Any) -> AsyncIterator[int]:
    """The port on which this is served, for each connection anew."""
    waiting = set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            waiting.add(task)
        try:
            await server(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it is what a server sees of a check that has had enough, or its end
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, **more)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def checked(check: dict[str, Any]) -> HealthResult:
    """What comes of a check of ourselves."""
    process = Process("", os.getpid(), os.pidfd_open(os.getpid()), -1, -1, -1)
    try:
        container = cast(Container, Serving())
        return await watch.checked(
            cast(Containers, None), container, process, Health(**{"timeout_ms": 5000, **check})
        )
    finally:
        os.close(process.pidfd)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def asked(server: Server, check: dict[str, Any] | None = None, **http: Any) -> HealthResult:
    """What comes of a request to such a server."""
    async with served(server) as port:
        return await checked({"http": {"path": "/", "port": port, **http}, **(check or {})})


def says(text: bytes, *, then: float = 0) -> Server:
    """It reads a request, answers, and may wait before it closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        await asyncio.sleep(then)

    return serve


def floods(text: bytes, chunk: bytes) -> Server:
    """It never stops."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        while True:
            writer.write(chunk)
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("server", "passed", "code", "output"),
    [
        (says(b"HTTP/1.1 200 OK\r\n\r\nfine"), True, 200, "HTTP/1.1 200 OK"),
        (says(b"HTTP/1.0 204 \r\n\r\n", then=60), True, 204, "HTTP/1.0 204"),
        (says(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"), True, 302, "HTTP/1.1 302 Found"),
        (says(b"HTTP/1.1 503 No\r\n\r\n\x1b[2Jsick"), False, 503, "HTTP/1.1 503 No\n\x1b[2Jsick"),
        (says(b"HTTP/1.1 503 No\r\n\r\nwaits", then=60), False, 503, "HTTP/1.1 503 No\nwaits"),
        (says(b"HTTP/1.1 OK\r\n\r\n"), False, None, "the server did not answer in HTTP: HTTP/1.1 OK"),
        (says(b"HTTP/1.1 +20 OK\r\n\r\n"), False, None, "the server did not answer in HTTP: HTTP/1.1 +20 OK"),
        (says(b"SSH-2.0-x\r\n"), False, None, "the server did not answer in HTTP"),
        (says(b""), False, None, "the server did not answer in HTTP"),
        (floods(b"", b"x" * 65536), False, None, "the server did not answer in HTTP"),
        (floods(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 9999), False, None, "the server did not answer in HTTP"),
    ],
)  # fmt: skip
def test_answers(server: Server, passed: bool, code: int | None, output: str) -> None:
    result = run(asked(server))
    assert (result.passed, result.output) == (passed, output)
    assert (result.code if result.HasField("code") else None) == code


def test_only_as_much_is_read_as_is_kept() -> None:
    """Of a server that sends without end."""

    async def measured() -> tuple[HealthResult, int]:
        tracemalloc.start()
        try:
            result = await asked(floods(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536))
            return result, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    result, peak = run(measured())
    assert (result.passed, result.code, len(result.output)) == (False, 500, 4096)
    assert peak < 4 << 20


def test_a_server_that_does_not_answer_or_answers_slowly_has_its_time_and_no_more() -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.01)

    for server in (says(b"", then=60), drips):
        result = run(asked(server, {"timeout_ms": 300}))
        assert (result.passed, result.output) == (False, "not done in 300 ms")


def test_statuses_and_headers_are_those_of_the_check() -> None:
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\n\r\n")

    for statuses, passed in (([401], True), ([200], False), ([], False)):
        assert run(asked(serve, statuses=statuses, headers={"x-own": "1"})).passed == passed
    assert all(b"\r\nx-own: 1\r\n" in one for one in seen)


def test_tls_is_spoken_with_any_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-subj", "/CN=nobody", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def both() -> tuple[HealthResult, HealthResult]:
        server = says(b"HTTP/1.1 200 OK\r\n\r\n")
        async with served(server, ssl=context) as port, served(server) as plain:
            http = {"path": "/", "tls": True}
            return await checked({"http": {**http, "port": port}}), await checked(
                {"http": {**http, "port": plain}, "timeout_ms": 1000}
            )

    with_tls, without = run(both())
    assert (with_tls.passed, with_tls.code) == (True, 200)
    assert not without.passed and not without.HasField("code")


def test_nothing_stays_open(caplog: pytest.LogCaptureFixture) -> None:
    """Of checks that passed, failed, and were not done; nor does anything fail that nobody waits for."""

    async def many() -> None:
        servers = (
            floods(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536),
            says(b"", then=60),
            says(b"HTTP/1.1 200 OK\r\n\r\n"),
        )
        for server in servers:
            async with served(server) as port:
                for number in (port, 1):
                    http = {"path": "/", "port": number}
                    for check in ({"http": http}, {"http": {**http, "tls": True}}, {"tcp": {"port": number}}):
                        await checked({**check, "timeout_ms": 100})

    before = sorted(os.listdir("/proc/self/fd"))
    run(many())
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
