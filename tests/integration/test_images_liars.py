"""Registries that hang up, lie, redirect and limit: retried, resumed, or refused, and nothing is kept."""

import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, child, pace, patience
from tinyo_runtime.images.guard import Guard
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.sharing import PARALLEL
from tinyo_runtime.images.store import UNPACK

from tests.support.images import GZIP, INDEX, MANIFEST, Built, digest, file, hard_link, image, index, layer
from tests.support.liar import Lie, liar, send
from tests.support.registry import served


def pull(root: Path, reference: str) -> Image:
    async def run() -> Image:
        store = ImageStore(root)
        try:
            return await store.pull(reference)
        finally:
            await store.close()

    return asyncio.run(run())


def failure(root: Path, built: Built, lie: Lie = lambda request, body: False) -> TinyoError:
    with served(liar(built, lie)) as host, pytest.raises(TinyoError) as caught:
        pull(root, f"{host}/x:1")
    for folder in ("pulling", "layers", "images/blobs/sha256"):
        assert os.listdir(root / folder) == []
    assert json.loads((root / "images/index.json").read_text())["manifests"] == []
    return caught.value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "DELAYS", (0.01, 0.01, 0.01))


@pytest.fixture
def built() -> Built:
    return image([layer(file("f", os.urandom(300_000)))])


def is_layer(request: BaseHTTPRequestHandler, body: bytes) -> bool:
    return len(body) > 100_000


def test_wrong_layer(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            send(request, body[:-1] + b"x")
        return is_layer(request, body)

    error = failure(tmp_path, built, lie)
    assert error.reason == "IMAGE_CORRUPT" and error.metadata["expected"] in built.blobs


def test_longer_layer(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            send(request, body + b"x")
        return is_layer(request, body)

    assert "larger than" in failure(tmp_path, built, lie).message


def test_wrong_config(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if lying := body.startswith(b'{"architecture"'):
            send(request, body.replace(b"amd64", b"amd46"))
        return lying

    assert failure(tmp_path, built, lie).reason == "IMAGE_CORRUPT"


def test_wrong_manifest(tmp_path: Path, built: Built) -> None:
    with served(liar(built)) as host, pytest.raises(TinyoError) as caught:
        pull(tmp_path, f"{host}/x@sha256:{'0' * 64}")
    assert caught.value.metadata["expected"] == f"sha256:{'0' * 64}"


def test_wrong_diff_id(tmp_path: Path) -> None:
    data = layer(file("f", b"x"))
    built = image([data])
    config = next(blob for blob in built.blobs.values() if blob.startswith(b'{"architecture"'))
    lying = config.replace(digest(data).encode(), b"sha256:" + b"0" * 64)
    manifest = built.blobs.pop(built.descriptor["digest"]).replace(
        digest(config).encode(), digest(lying).encode()
    )
    built.blobs |= {digest(lying): lying, digest(manifest): manifest}
    built.descriptor["digest"] = digest(manifest)
    assert failure(tmp_path, built).metadata["expected"] == f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"", "IMAGE_CORRUPT"),
        (b"[]", "IMAGE_CORRUPT"),
        (b"[" * 100_000, "IMAGE_CORRUPT"),
        (b'{"layers": {}, "config": {}}', "IMAGE_CORRUPT"),
        (
            b'{"layers": [], "config": {"mediaType": "x", "digest": "sha256:../../x", "size": 1}}',
            "IMAGE_CORRUPT",
        ),
        (b'{"layers": [{}], "config": null}', "IMAGE_CORRUPT"),
        (
            b'{"layers": [], "config": {"mediaType": "\\u001b[31m", "digest": "sha256:'
            + b"0" * 64
            + b'", "size": 1}}',
            "IMAGE_UNSUPPORTED",
        ),
        (b" " * (5 << 20), "REGISTRY_UNREACHABLE"),
    ],
)
def test_malformed_manifest(tmp_path: Path, manifest: bytes, reason: str) -> None:
    error = failure(tmp_path, Built({"digest": "m"}, {"m": manifest}))
    assert error.reason == reason and error.message.isprintable()


def test_hostile_layer(tmp_path: Path) -> None:
    error = failure(tmp_path, image([layer(hard_link("\x1b[31mred", "../../../../etc/passwd"))]))
    assert error.reason == "IMAGE_CORRUPT" and error.message.isprintable()


def test_layer_that_is_no_archive(tmp_path: Path) -> None:
    assert failure(tmp_path, image([b"x" * 4096])).reason == "IMAGE_CORRUPT"
    assert failure(tmp_path, image([layer()], media_type="text/x-layer")).reason == "IMAGE_UNSUPPORTED"
    assert failure(tmp_path, image([layer()], media_type=GZIP[:-5] + "+zstd")).reason == "IMAGE_CORRUPT"


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_off_and_resumed(tmp_path: Path, built: Built, ranges: bool) -> None:
    """Each answer ends after 100 kB; the rest is asked for, whether or not the registry knows ranges."""
    asked: list[str] = []

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if not is_layer(request, body):
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if ranges:
            send(request, body[start : start + 100_000], 206 if start else 200, len(body) - start)
        else:
            send(request, body[: start + 100_000], 200, len(body))
        request.close_connection = True
        return True

    with served(liar(built, lie, asked)) as host:
        assert pull(tmp_path, f"{host}/x:1").digest == built.descriptor["digest"]
    assert [line.split()[1] for line in asked if "Range" in line or "bytes=" in line] == [
        f"bytes={start}-" for start in (100_000, 200_000, 300_000)
    ]


def test_always_cut_off(tmp_path: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three more attempts, not all of them after the same time."""
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(
        patience, "asyncio", SimpleNamespace(sleep=slept)
    )  # of nobody else: others would never rest
    monkeypatch.setattr(patience, "DELAYS", (1.0, 10.0, 100.0))
    monkeypatch.setattr(patience, "random", random.Random(1))

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            send(request, b"", length=len(body))
            request.close_connection = True
        return is_layer(request, body)

    error = failure(tmp_path, built, lie)
    assert error.reason == "REGISTRY_UNREACHABLE" and "cut off" in error.message
    assert [round(wait) for wait in waits] != [1, 10, 100] and len(waits) == 3
    assert all(least / 2 <= wait <= least * 3 / 2 for least, wait in zip((1, 10, 100), waits, strict=True))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble(tmp_path: Path, built: Built, status: int) -> None:
    trouble = iter([True, True, True])

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if lying := next(trouble, False):
            send(request, b"", status, Retry_After="0")
        return lying

    with served(liar(built, lie)) as host:
        assert pull(tmp_path / "a", f"{host}/x:1").layers

    def always(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        send(request, b"", status)
        return True

    assert str(status) in failure(tmp_path / "b", built, always).message


def test_basic_authentication_is_denied(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        send(request, b"", 401, WWW_Authenticate='Basic realm="x"')
        return True

    assert failure(tmp_path, built, lie).reason == "REGISTRY_DENIED"


def test_tokens_stay_with_their_registry(tmp_path: Path, built: Built) -> None:
    """Blobs are redirected to another origin, which must not see the token."""
    elsewhere: list[str] = []
    asked: list[str] = []
    with served(liar(built, asked=elsewhere)) as other:

        def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
            if request.path.startswith("/token"):
                send(request, b'{"token": "secret"}')
            elif request.headers.get("Authorization") != "Bearer secret":
                realm = f"http://{request.headers['Host']}/token?account=anyone"
                send(request, b"", 401, WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
            elif "/blobs/" in request.path:
                send(request, b"", 307, Location=f"http://{other}{request.path}")
            else:
                return False
            return True

        with served(liar(built, lie, asked)) as host:
            assert pull(tmp_path, f"{host}/x:1").layers
    tokens = [line for line in asked if line.startswith("/token")]
    assert tokens == ["/token?account=anyone&scope=repository%3Ax%3Apull&service=s"]
    assert len(elsewhere) == 2 and not any("secret" in line for line in elsewhere)


def test_no_plain_http_after_https() -> None:
    """A registry that is spoken to with TLS cannot send us elsewhere without."""

    guard = Guard(Reference.parse("registry.test/x"), httpx.URL("https://registry.test/v2/x/"))
    with pytest.raises(TinyoError, match="without TLS"):
        asyncio.run(guard.before(httpx.Request("GET", "http://127.0.0.1/v2/")))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("localhost:5000", "http"),
        ("127.8.9.1", "http"),
        ("[::1]:5000", "http"),
        ("localhost.evil.test", "https"),
        ("127.0.0.1.evil.test", "https"),
        ("10.0.0.1:5000", "https"),
        ("named.test:5000", "http"),
        ("docker.io", "https"),
    ],
)
def test_scheme(tmp_path: Path, name: str, scheme: str) -> None:
    async def run() -> None:
        store = ImageStore(tmp_path, insecure=frozenset({"named.test:5000"}))
        assert store.client(Reference.parse(f"{name}/x")).base_url.scheme == scheme
        await store.close()

    asyncio.run(run())


def test_endless_redirects(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        send(request, b"", 307, Location=request.path)
        return True

    assert failure(tmp_path, built, lie).reason == "REGISTRY_UNREACHABLE"


# --- documents


def test_a_manifest_that_is_not_what_its_registry_promises(tmp_path: Path, built: Built) -> None:
    """By tag, where nobody else knows its digest (OCI distribution, Docker-Content-Digest)."""

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if lying := "/manifests/" in request.path:
            send(request, body + b" ", Docker_Content_Digest=built.descriptor["digest"])
        return lying

    error = failure(tmp_path, built, lie)
    assert (error.reason, error.metadata["expected"]) == ("IMAGE_CORRUPT", built.descriptor["digest"])


@pytest.mark.parametrize("kind", ["header", "document", "both"])
def test_a_document_that_is_called_something_else(tmp_path: Path, kind: str) -> None:
    """Or that could be either, for two who read it differently (CVE-2021-41190)."""
    inner = image([layer(file("f", b"x"))])
    manifest = json.loads(inner.blobs[inner.descriptor["digest"]])
    if kind == "document":
        manifest["mediaType"] = INDEX
    elif kind == "both":
        manifest = {"schemaVersion": 2, "manifests": [inner.descriptor], **manifest, "mediaType": INDEX}
    body = json.dumps(manifest).encode()

    def lie(request: BaseHTTPRequestHandler, _: bytes) -> bool:
        if lying := "/manifests/" in request.path:
            send(request, body, Content_Type=INDEX if kind != "document" else MANIFEST)
        return lying

    error = failure(tmp_path, inner, lie)
    assert error.reason == "IMAGE_CORRUPT"
    assert ("at the same time" if kind == "both" else "is said to be") in error.message


@pytest.mark.parametrize("size", [-1, 1])
def test_a_manifest_of_another_size(tmp_path: Path, built: Built, size: int) -> None:
    """Than the index says."""
    built.descriptor["size"] += size
    error = failure(tmp_path, index([built]))
    assert (error.reason, "larger than" in error.message) in (
        ("IMAGE_CORRUPT", True),
        ("REGISTRY_UNREACHABLE", False),
    )


def test_thousands_of_layers(tmp_path: Path) -> None:
    empty = layer()
    error = failure(tmp_path, image([empty] * 5000, media_type=GZIP.removesuffix("+gzip")))
    assert "5000 layers are more than 500" in error.message


@pytest.mark.parametrize("change", [[], ["sha256:" + "0" * 64] * 2, ["sha256:x"], "sha256:", [None], None])
def test_a_configuration_that_disagrees_with_its_layers(tmp_path: Path, change: object) -> None:
    built = image([layer(file("f", b"x"))])
    manifest = json.loads(built.blobs.pop(built.descriptor["digest"]))
    config = json.loads(built.blobs.pop(manifest["config"]["digest"]))
    config["rootfs"]["diff_ids"] = change
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": digest(data), "size": len(data)}
    body = json.dumps(manifest).encode()
    built.blobs |= {digest(data): data, digest(body): body}
    built.descriptor["digest"] = digest(body)
    assert failure(tmp_path, built).reason == "IMAGE_CORRUPT"


# --- bodies


@pytest.mark.parametrize("packed", [True, False])
def test_content_encoding(tmp_path: Path, built: Built, packed: bool) -> None:
    """What is compressed on the way is not what was promised; that it is said to be so changes nothing of it."""

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        send(request, gzip.compress(body) if packed else body, Content_Encoding="gzip")
        return True

    if packed:
        assert failure(tmp_path, built, lie).reason == "IMAGE_CORRUPT"
    else:
        with served(liar(built, lie)) as host:
            assert pull(tmp_path, f"{host}/x:1").layers


@pytest.mark.parametrize("once", [True, False])
def test_a_layer_that_ends_early(tmp_path: Path, built: Built, once: bool) -> None:
    """And is said to be no longer: the rest is asked for."""
    early = iter([True] if once else [True] * 99)

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        lying = is_layer(request, body) and next(early, False)
        if lying:
            send(request, body[:1000])
        return lying

    if once:
        with served(liar(built, lie)) as host:
            assert pull(tmp_path, f"{host}/x:1").layers
    else:
        assert "cut off after 1000 bytes" in failure(tmp_path, built, lie).message


@pytest.mark.parametrize("part", ["bytes 0-/*", "bytes 99-299999/300000"])
def test_another_part_than_was_asked_for(tmp_path: Path, built: Built, part: str) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            send(request, body[start : start + 100_000], 206, Content_Range=part if start else "bytes 0-")
        return is_layer(request, body)

    assert "another part than it was asked for" in failure(tmp_path, built, lie).message


def endless(request: BaseHTTPRequestHandler, pieces: Iterable[bytes], pause: Callable[[], object]) -> None:
    """A body in pieces, of which there may be no end; it ends when nobody reads it any more."""
    request.send_response(200)
    request.send_header("Content-Type", MANIFEST)
    request.end_headers()
    request.close_connection = True
    with contextlib.suppress(OSError):
        for piece in pieces:
            request.wfile.write(piece)
            pause()


@pytest.mark.parametrize("what", ["/manifests/", "config", "layer", "/token", "401"])
def test_an_endless_body(tmp_path: Path, built: Built, what: str) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        kind = "config" if body.startswith(b'{"architecture"') else "layer" if is_layer(request, body) else ""
        if what == "401":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="x"')
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(bytes(1 << 16))
        if lying := what in (request.path.partition("?")[0], kind) or what in request.path:
            endless(request, repeat(bytes(1 << 16)), lambda: None)
        elif what == "/token":
            realm = f"http://{request.headers['Host']}/token"
            send(request, b"", 401, WWW_Authenticate=f'Bearer realm="{realm}"')
            return True
        return lying

    assert failure(tmp_path, built, lie).reason in ("IMAGE_CORRUPT", "REGISTRY_UNREACHABLE")


@pytest.mark.parametrize("what", ["headers", "/manifests/", "layer", "/token"])
def test_a_slow_drip(tmp_path: Path, built: Built, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte comes before anybody would call it silence."""
    monkeypatch.setattr(pace, "WINDOW", 0.2)
    ended = threading.Event()

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if what == "headers":
            request.close_connection = True
            with contextlib.suppress(OSError):
                request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.01):
                    request.wfile.write(b"x")
            return True
        if lying := what in request.path or (what == "layer" and is_layer(request, body)):
            endless(request, (bytes([byte]) for byte in body or repeat(32)), lambda: ended.wait(0.01))
        elif what == "/token":
            realm = f"http://{request.headers['Host']}/token"
            send(request, b"", 401, WWW_Authenticate=f'Bearer realm="{realm}"')
            return True
        return lying

    try:
        assert failure(tmp_path, built, lie).reason == "REGISTRY_UNREACHABLE"
    finally:
        ended.set()


def test_slow_is_not_a_drip(tmp_path: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends enough in each window may need many of them."""
    monkeypatch.setattr(pace, "WINDOW", 1.0)
    monkeypatch.setattr(pace, "LEAST", 10_000)

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            for start in range(0, len(body), 30_000):
                request.wfile.write(body[start : start + 30_000])
                time.sleep(0.15)
        return is_layer(request, body)

    with served(liar(built, lie)) as host:
        assert pull(tmp_path, f"{host}/x:1").layers


# --- headers, redirects, challenges


@pytest.mark.parametrize("many", [True, False])
def test_huge_headers(tmp_path: Path, built: Built, many: bool) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        with contextlib.suppress(OSError):
            request.send_response(200)
            for number in range(5000 if many else 1):
                request.send_header(f"X{number}", "x" * (1000 if many else 5_000_000))
            request.end_headers()
        return True

    assert failure(tmp_path, built, lie).reason == "REGISTRY_UNREACHABLE"


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://[",
        "//",
        "javascript:1",
        "http://0.0.0.0:1/" + "x" * 9000,
    ],
)
def test_redirects_to_where_nobody_goes(tmp_path: Path, built: Built, location: str) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        send(request, b"", 307, Location=location)
        return True

    error = failure(tmp_path, built, lie)
    assert error.reason in ("REGISTRY_UNREACHABLE", "IMAGE_NOT_FOUND") and "root:" not in error.message


def test_denied_for_ever(tmp_path: Path, built: Built) -> None:
    """Tokens are given, and none is good enough: asked for once more, and no more."""
    asked: list[str] = []

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if request.path.startswith("/token"):
            send(request, b'{"token": "t"}')
        else:
            realm = f"http://{request.headers['Host']}/token"
            send(request, b"", 401, WWW_Authenticate=f'Bearer realm="{realm}",error="invalid_token"')
        return True

    with served(liar(built, lie, asked)) as host, pytest.raises(TinyoError) as caught:
        pull(tmp_path, f"{host}/x:1")
    assert caught.value.reason == "REGISTRY_DENIED" and len(asked) == 3


def test_tokens_that_end(tmp_path: Path) -> None:
    """In the middle of a layer, which goes on where it was; layers that are refused together ask once."""
    built = image([layer(file(f"f{number}", os.urandom(200_000))) for number in range(4)])
    asked: list[str] = []
    given: list[str] = []
    uses: Counter[str] = Counter()
    lock = threading.Lock()

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        with lock:
            if request.path.startswith("/token"):
                given.append(f"t{len(given)}")
                send(request, json.dumps({"token": given[-1], "expires_in": 60}).encode())
                return True
            shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
            uses[shown] += 1
            if not shown or shown != given[-1] or uses[shown] > 5:
                realm = f"http://{request.headers['Host']}/token"
                send(
                    request,
                    b"",
                    401,
                    WWW_Authenticate=f'Basic realm="no", Bearer realm="{realm}",service="s"',
                )
                return True
        if not is_layer(request, body):
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        part = body[start : start + 70_000]
        send(request, part, 206 if start else 200, len(body) - start)
        request.close_connection = True
        return True

    with served(liar(built, lie, asked)) as host:
        assert len(pull(tmp_path, f"{host}/x:1").layers) == 4
    assert 3 <= len(given) <= 5 and len([line for line in asked if line.startswith("/token")]) == len(given)


def test_four_layers_four_connections(tmp_path: Path) -> None:
    """And no more, however much is asked for over them."""
    built = image([layer(file(f"f{number}", os.urandom(5_000))) for number in range(20)])
    clients = set[object]()

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        request.protocol_version = "HTTP/1.1"
        clients.add(request.client_address)
        return False

    handler = liar(built, lie)
    handler.protocol_version = "HTTP/1.1"
    with served(handler) as host:
        assert len(pull(tmp_path, f"{host}/x:1").layers) == 20
    assert len(clients) <= PARALLEL


@pytest.mark.parametrize("form", ["seconds", "date", "date by another clock"])
def test_when_to_ask_again(tmp_path: Path, built: Built, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry says; by its own clock. Longer than anybody waits is an error at once."""
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    # Nobody else's waiting, such as that of who tells how far a pull is.
    monkeypatch.setattr(patience, "asyncio", SimpleNamespace(sleep=slept))
    now = time.time() - (86400 if form == "date by another clock" else 0)

    def after(seconds: int) -> dict[str, str]:
        text = str(seconds) if form == "seconds" else formatdate(now + seconds, usegmt=True)
        return {"Retry_After": text, "Date": formatdate(now, usegmt=True)}

    trouble = iter([5])

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if seconds := next(trouble, None):
            _answer(request, 429, after(seconds))
        return bool(seconds)

    with served(liar(built, lie)) as host:
        assert pull(tmp_path / "a", f"{host}/x:1").layers
    assert [wait for wait in waits if wait >= 1] == [5]

    def always(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        _answer(request, 429, after(3600))
        return True

    error = failure(tmp_path / "b", built, always)
    assert "status 429, and wants to be asked again in 3600 seconds" in error.message


def _answer(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    """Without a Date of its own."""
    request.send_response_only(status)
    for key, value in {**headers, "Content-Length": "0"}.items():
        request.send_header(key.replace("_", "-"), value)
    request.end_headers()


def unpackers() -> list[int]:
    """Processes that unpack: children of one that was started by us."""
    return [grandchild for child in children(os.getpid()) for grandchild in children(child)]


def children(pid: int) -> list[int]:
    """Those that unpack, or from which such are forked; whatever else an earlier test left to us is not meant."""
    found = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [child for child in found if UNPACK[-1] in Path(f"/proc/{child}/cmdline").read_text().split("\0")]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "ended by signal 9 (SIGKILL), as happens when memory runs out"),
        (signal.SIGXCPU, "too much processor time"),
        (signal.SIGSEGV, "ended by signal 11 (SIGSEGV)"),
        (signal.SIGSTOP, "did nothing for"),
    ],
)
def test_an_unpacker_that_dies_or_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, told: str
) -> None:
    """One clear error, nothing left, and the next pull works."""
    monkeypatch.setattr(child, "PATIENCE", 0.3)
    big = image([layer(file("f", os.urandom(20_000_000)))])
    struck = []

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        """Sends the first half, harms who unpacks it, and goes on."""
        if not is_layer(request, body):
            return False
        send(request, body[:10_000_000], length=len(body))
        for pid in unpackers():
            os.kill(pid, number)
            struck.append(pid)
        request.wfile.write(body[10_000_000:])
        return True

    error = failure(tmp_path, big, lie)
    assert struck and error.reason == "INTERNAL" and told in error.message
    assert not unpackers()
    with served(liar(big)) as host:
        assert pull(tmp_path, f"{host}/x:1").layers


def test_an_unpacker_without_room(tmp_path: Path) -> None:
    """A file that is larger than anybody may have."""
    header = {"GNU.sparse.map": "0,0", "GNU.sparse.size": f"{3 << 40}"}
    error = failure(tmp_path, image([layer(file("f", b"", pax_headers=header))]))
    assert error.reason == "IMAGE_CORRUPT" and "too large" in error.message
