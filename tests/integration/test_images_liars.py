"""Registries that hang up, lie, redirect and limit: retried, resumed, or refused, and nothing is kept."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, child, patience
from tinyo_runtime.images.guard import Guard
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.store import UNPACK

from tests.support.images import GZIP, MANIFEST, Built, digest, file, hard_link, image, layer
from tests.support.registry import served

#: Answers a request itself and returns True, or leaves it to the honest registry.
Lie = Callable[[BaseHTTPRequestHandler, bytes], bool]


def liar(
    built: Built, lie: Lie = lambda request, body: False, asked: list[str] | None = None
) -> type[BaseHTTPRequestHandler]:
    """A registry with one image, that may lie about it."""
    manifest = built.blobs[built.descriptor["digest"]]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            body = built.blobs.get(name, manifest if "/manifests/" in self.path else b"")
            if asked is not None:
                asked.append(
                    f"{self.path} {self.headers.get('Range', '')} {self.headers.get('Authorization', '')}".strip()
                )
            if not lie(self, body):
                send(self, body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str
) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.send_header("Content-Type", MANIFEST)
    for key, value in headers.items():
        request.send_header(key.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


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


def test_always_cut_off(tmp_path: Path, built: Built) -> None:
    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if is_layer(request, body):
            send(request, b"", length=len(body))
            request.close_connection = True
        return is_layer(request, body)

    error = failure(tmp_path, built, lie)
    assert error.reason == "REGISTRY_UNREACHABLE" and "cut off" in error.message


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
