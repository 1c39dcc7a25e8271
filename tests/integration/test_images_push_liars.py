"""Registries that cut off, forget, send elsewhere, lie and limit while an image is brought to them."""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import ImageStore, cargo, destination, patience, prune, uploads
from tinyo_runtime.images.push import Pushed

from tests.support.images import Built, digest, file, image, layer
from tests.support.registry import free_port, served
from tests.support.uploads import Lie, Shelf, Taker, taking

PIECE = 100_000
#: Seconds until a test fails instead of hanging.
PATIENCE = 60
SECRET = "s3cret-word"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(patience, "DELAYS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(uploads, "PIECE", PIECE)
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))


@pytest.fixture
def built() -> Built:
    return image([layer(file("f", os.urandom(300_000)))])


@pytest.fixture
def big(built: Built) -> str:
    """The digest of its layer."""
    return max(built.blobs, key=lambda key: len(built.blobs[key]))


@pytest.fixture
def store(tmp_path: Path, built: Built) -> Path:
    """A store with the image, by the name "app"."""
    root = tmp_path / "s"
    asyncio.run(ImageStore(root).close())
    for key, blob in built.blobs.items():
        (root / "images/blobs" / key.replace(":", "/")).write_bytes(blob)
    path = root / "images/index.json"
    entry = built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": "app"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifests": [entry]}))
    return root


async def use(
    root: Path,
    host: str,
    then: Callable[[asyncio.Task[Pushed]], Awaitable[object]] = lambda push: asyncio.sleep(0),
) -> Pushed:
    images = ImageStore(root)
    try:
        push = asyncio.create_task(images.push("app", f"{host}/x:1"))
        await then(push)
        return await push
    finally:
        await images.close()
        assert images.wanted == []


def bring(root: Path, shelf: Shelf, lie: Lie = lambda request: False) -> Pushed:
    with served(taking(shelf, lie)) as host:
        return asyncio.run(use(root, host))


def refused(root: Path, shelf: Shelf, lie: Lie, reason: str) -> TinyoError:
    with pytest.raises(TinyoError) as caught:
        bring(root, shelf, lie)
    error = caught.value
    assert error.reason == reason, error
    assert error.message.isprintable() and len(error.message) < 900
    assert not shelf.manifests, "a name was given"
    return error


def whole(shelf: Shelf, built: Built) -> bool:
    """Whether the registry has the image now, under its name, and no upload is open."""
    manifest = built.descriptor["digest"]
    wanted = {key: blob for key, blob in built.blobs.items() if key != manifest}
    name = {"x/1": (built.descriptor["mediaType"], built.blobs[manifest])}
    return (shelf.blobs, shelf.manifests, shelf.uploads) == (wanted, name, {})


def is_layer(request: Taker) -> bool:
    """A request that carries bytes of the layer."""
    length = int(request.headers.get("Content-Length", 0))
    return request.command in ("PATCH", "PUT") and "/uploads/" in request.path and length > PIECE // 2


def test_an_honest_one(store: Path, built: Built, big: str) -> None:
    shelf = Shelf()
    assert bring(store, shelf).digest == built.descriptor["digest"]
    assert whole(shelf, built)
    state = f"state=a%2Fb+0&digest={big.replace(':', '%3A')}"
    assert [line for line in shelf.asked if state in line and line.startswith("PUT")]
    assert "PATCH" not in shelf.methods()


def test_cut_off_and_resumed(store: Path, built: Built) -> None:
    """The registry got 120 kB; the rest comes in pieces from there, and nothing twice."""
    shelf, cuts = Shelf(), iter([True])

    def lie(request: Taker) -> bool:
        if cut := is_layer(request) and next(cuts, False):
            shelf.uploads[request.number] += request.body(120_000)
        return cut

    bring(store, shelf, lie)
    assert whole(shelf, built)
    size = max(map(len, built.blobs.values()))
    ranges = [line.split()[2] for line in shelf.asked if line.startswith("PATCH")]
    starts = range(120_000, size, PIECE)
    assert ranges == [f"{start}-{min(start + PIECE, size) - 1}" for start in starts]


def test_cut_off_again_and_again(store: Path, built: Built) -> None:
    """Each request gets a little further, which is enough as long as that is more than nothing."""
    shelf, cuts = Shelf(), iter([10_000, 20_000, 30_000])

    def lie(request: Taker) -> bool:
        if is_layer(request) and (count := next(cuts, 0)):
            shelf.uploads[request.number] += request.body(count)
            return True
        return False

    bring(store, shelf, lie)
    assert whole(shelf, built) and shelf.opened == 2


def test_cut_off_before_anything_arrived(store: Path, built: Built) -> None:
    """The registry says "0-0", as for one byte."""
    shelf, cuts = Shelf(), iter([True])

    def lie(request: Taker) -> bool:
        if cut := is_layer(request) and next(cuts, False):
            request.body(1000)
        return cut

    bring(store, shelf, lie)
    assert whole(shelf, built) and shelf.opened == 3


def test_always_cut_off(store: Path) -> None:
    def lie(request: Taker) -> bool:
        if is_layer(request):
            request.body(1000)
        return is_layer(request)

    shelf = Shelf()
    error = refused(store, shelf, lie, "REGISTRY_UNREACHABLE")
    assert "cannot be reached" in error.message
    assert shelf.uploads == {}


def test_progress_gives_new_chances(store: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PROGRESS", 20_000)
    monkeypatch.setattr(patience, "DELAYS", (0.01,))
    shelf, cuts = Shelf(), iter(range(8))

    def lie(request: Taker) -> bool:
        if cut := is_layer(request) and next(cuts, None) is not None:
            shelf.uploads[request.number] += request.body(30_000)
        return bool(cut)

    bring(store, shelf, lie)
    assert whole(shelf, built) and next(cuts, None) is None


def test_an_upload_that_is_forgotten_begins_anew(store: Path, built: Built) -> None:
    shelf, cuts = Shelf(), iter([True])

    def lie(request: Taker) -> bool:
        if cut := is_layer(request) and next(cuts, False):
            request.body(120_000)
            del shelf.uploads[request.number]
        return cut

    bring(store, shelf, lie)
    assert whole(shelf, built) and shelf.opened == 3


def test_only_the_answer_was_lost(store: Path, built: Built) -> None:
    shelf, cuts = Shelf(), iter([True])

    def lie(request: Taker) -> bool:
        if cut := is_layer(request) and next(cuts, False):
            data = request.body()
            del shelf.uploads[request.number]
            shelf.blobs[digest(data)] = data
            request.close_connection = True
        return cut

    bring(store, shelf, lie)
    assert whole(shelf, built) and shelf.opened == 2


@pytest.mark.parametrize(
    ("least", "pieces"), [("", 4), ("160000", 2), ("9" * 18, 1), ("-5", 4), ("x" * 99, 4)]
)
def test_a_limit_of_one_request(store: Path, built: Built, least: str, pieces: int) -> None:
    """Too large for one request: it goes in pieces, no smaller than the registry wants them."""
    shelf = Shelf()

    def lie(request: Taker) -> bool:
        if request.command == "PUT" and is_layer(request):
            request.body()
            request.answer(413)
            return True
        if request.command == "POST" and least:
            shelf.opened += 1
            shelf.uploads[str(shelf.opened)] = b""
            request.answer(202, Location=request.place(str(shelf.opened)), OCI_Chunk_Min_Length=least)
            return True
        return False

    bring(store, shelf, lie)
    assert whole(shelf, built) and shelf.methods("/uploads/").count("PATCH") == pieces
    assert shelf.opened == 3  # what was sent in vain does not become a part of it


def test_nothing_is_small_enough(store: Path) -> None:
    def lie(request: Taker) -> bool:
        if is_layer(request):
            request.body()
            request.answer(413, b"<html>413 Request Entity Too Large</html>")
        return is_layer(request)

    shelf = Shelf()
    error = refused(store, shelf, lie, "REGISTRY_REJECTED")
    assert "larger than what it, or a proxy before it, takes" in error.message and shelf.uploads == {}


def test_pieces_of_which_less_arrives(store: Path, built: Built) -> None:
    """A registry takes 40 kB of each piece, and says so."""
    shelf = Shelf()

    def lie(request: Taker) -> bool:
        if request.command == "PUT" and is_layer(request):
            request.body()
            request.answer(413)
        elif is_layer(request):
            shelf.uploads[request.number] += request.body()[:40_000]
            request.status(202)
        else:
            return False
        return True

    bring(store, shelf, lie)
    assert whole(shelf, built)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ("", ""),
        ("5-1", ""),
        ("0-", ""),
        ("0-" + "9" * 99, ""),
        ("0-999999999", "of which 100000 were sent"),
        ("0-0", "it does not go beyond byte 1 of"),
        ("bytes=0-99999", "it does not go beyond byte 100000 of"),
    ],
)
def test_a_registry_that_does_not_know_what_it_has_got(
    store: Path, built: Built, got: str, said: str
) -> None:
    """Whatever it says, and says again: an image is whole, or it is an error; and it ends."""
    shelf = Shelf()

    def lie(request: Taker) -> bool:
        if request.command == "PUT" and is_layer(request):
            request.body()
            request.answer(413)
        elif request.command in ("PATCH", "GET") and "/uploads/" in request.path:
            shelf.uploads[request.number] += request.body()
            request.answer(202, Location=request.place(request.number), Range=got)
        else:
            return False
        return True

    if said:
        with pytest.raises(TinyoError, match=said):
            bring(store, shelf, lie)
        assert not shelf.manifests
    else:
        bring(store, shelf, lie)
        assert whole(shelf, built)
    assert len(shelf.asked) < 40


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble(store: Path, built: Built, status: int) -> None:
    shelf, trouble = Shelf(), iter([True] * 3)

    def lie(request: Taker) -> bool:
        if lying := next(trouble, False):
            request.body()
            request.answer(status, Retry_After="0")
        return lying

    bring(store, shelf, lie)
    assert whole(shelf, built)

    def always(request: Taker) -> bool:
        if request.command == "HEAD":  # whose answers say nothing
            return False
        request.body()
        request.answer(status, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow \\u001b[2Jdown"}]}')
        return True

    error = refused(store, Shelf(), always, "REGISTRY_UNREACHABLE")
    assert rf"status {status} (TOOMANYREQUESTS: slow \x1b[2Jdown)" in error.message


@pytest.mark.parametrize(
    ("method", "status", "body", "reason", "said"),
    [
        ("POST", 403, '{"errors": [{"code": "DENIED", "message": "quota exceeded"}]}', "REGISTRY_DENIED", "(DENIED: quota exceeded)"),
        ("POST", 404, '{"errors": [{"code": "NAME_UNKNOWN"}]}', "REGISTRY_REJECTED", "it has no repository x (NAME_UNKNOWN): create it"),
        ("POST", 404, "", "REGISTRY_REJECTED", "it has no repository x: create it there first"),
        ("POST", 405, "", "REGISTRY_REJECTED", "it can only be read from"),
        ("POST", 507, "", "REGISTRY_REJECTED", "no space left"),
        ("POST", 412, "[" * 70_000, "REGISTRY_REJECTED", "status 412"),
        ("POST", 400, '{"errors": [{"code": "' + "X" * 9000 + '"}]}', "REGISTRY_REJECTED", "XXX…)"),
        ("POST", 400, '{"errors": {}}', "REGISTRY_REJECTED", "status 400"),
        ("POST", 201, "", "REGISTRY_REJECTED", "status 201"),
        ("POST", 303, "", "REGISTRY_REJECTED", "status 303"),
        ("PUT", 404, '{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}', "REGISTRY_REJECTED", "status 404 (MANIFEST_BLOB_UNKNOWN)"),
        ("PUT", 413, "", "REGISTRY_REJECTED", "larger than"),
    ],
)  # fmt: skip
def test_one_clear_refusal(store: Path, method: str, status: int, body: str, reason: str, said: str) -> None:
    def lie(request: Taker) -> bool:
        if lying := request.command == method and (method == "POST" or "/manifests/" in request.path):
            request.body()
            request.answer(status, body.encode())
        return lying

    shelf = Shelf()
    error = refused(store, shelf, lie, reason)
    assert said in error.message
    assert len([line for line in shelf.asked if line.startswith(method) and "/manifests/" in line]) <= 1


@pytest.mark.parametrize(
    "location",
    ["", "file:///etc/passwd", "http://[", "//", "gopher://x/", "http://" + "x" * 70_000, "a b\x01"],
)
def test_addresses_that_are_none(store: Path, location: str) -> None:
    def lie(request: Taker) -> bool:
        if lying := request.command == "POST":
            request.answer(202, Location=location)
        return lying

    with pytest.raises(TinyoError) as caught:
        bring(store, Shelf(), lie)
    assert caught.value.reason in ("REGISTRY_UNREACHABLE", "REGISTRY_REJECTED")


@pytest.mark.parametrize("way", ["location", "redirect"])
def test_elsewhere_nobody_learns_who_we_are(store: Path, built: Built, way: str) -> None:
    """Bytes go where the registry says, by Location or by redirect; what it wanted to see stays with it."""
    shelf, elsewhere = Shelf(), Shelf()

    with served(taking(elsewhere)) as other:

        def lie(request: Taker) -> bool:
            shelf.blobs |= elsewhere.blobs
            if request.path.startswith("/token"):
                request.answer(200, json.dumps({"token": SECRET}).encode())
            elif request.headers.get("Authorization") != f"Bearer {SECRET}":
                request.body()
                realm = f"http://{request.headers['Host']}/token"
                request.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"')
            elif request.command == "POST" and way == "location":
                elsewhere.opened += 1
                elsewhere.uploads[str(elsewhere.opened)] = b""
                request.answer(202, Location=f"http://{other}/v2/x/blobs/uploads/{elsewhere.opened}")
            elif way == "redirect" and "/uploads/" in request.path:
                request.body()
                request.answer(307, Location=f"http://{other}{request.path}")
            else:
                return False
            return True

        bring(store, shelf, lie)
    assert shelf.manifests and set(elsewhere.blobs) == set(built.blobs) - {built.descriptor["digest"]}
    assert elsewhere.shown and not any(elsewhere.shown)
    assert f"Bearer {SECRET}" in shelf.shown


def test_who_we_are_sent_to_may_not_ask_who_we_are(store: Path) -> None:
    elsewhere = Shelf()

    def asks(request: Taker) -> bool:
        request.body()
        request.answer(401, WWW_Authenticate=f'Bearer realm="http://{request.headers["Host"]}/token"')
        return True

    with served(taking(elsewhere, asks)) as other:

        def lie(request: Taker) -> bool:
            if lying := request.command == "POST":
                request.answer(202, Location=f"http://{other}/upload")
            return lying

        refused(store, Shelf(), lie, "REGISTRY_DENIED")
    assert not any("/token" in line for line in elsewhere.asked)


@pytest.mark.parametrize("scheme", ['Basic realm="x"', "Bearer", "", "token"])
def test_who_is_never_content(store: Path, scheme: str) -> None:
    """401 again and again, whatever is shown; it ends after a few requests."""
    shelf = Shelf()

    def lie(request: Taker) -> bool:
        request.body()
        realm = f"http://{request.headers['Host']}/token"
        if request.path.startswith("/token"):
            request.answer(200, b'{"token": "new"}')
        else:
            request.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"' if scheme == "token" else scheme)
        return True

    error = refused(store, shelf, lie, "REGISTRY_DENIED")
    assert "does not let us push" in error.message and len(shelf.asked) < 20


def test_a_token_that_is_good_for_three_requests(store: Path, built: Built) -> None:
    shelf, given, left = Shelf(), list[str](), [0]

    def lie(request: Taker) -> bool:
        if request.path.startswith("/token"):
            left[0], token = 3, f"token-{len(given)}"
            given.append(token)
            request.answer(200, json.dumps({"token": token}).encode())
        elif not left[0] or request.headers.get("Authorization") != f"Bearer {given[-1]}":
            request.body()
            realm = f"http://{request.headers['Host']}/token"
            request.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"')
        else:
            left[0] -= 1
            return False
        return True

    bring(store, shelf, lie)
    assert whole(shelf, built) and len(given) == 3


def test_endless_redirects(store: Path) -> None:
    def lie(request: Taker) -> bool:
        request.body()
        request.answer(307, Location=request.path)
        return True

    shelf = Shelf()
    assert "sends us on more than 5 times" in refused(store, shelf, lie, "REGISTRY_UNREACHABLE").message
    assert len(shelf.asked) <= 12


def test_a_mount_that_is_denied_is_an_upload(store: Path, built: Built) -> None:
    """A token service that gives nothing for a repository that we may not read, and a registry that refuses to mount."""
    path = store / "images/index.json"
    shelf, scopes = Shelf(), list[str]()

    def lie(request: Taker) -> bool:
        if request.path.startswith("/token"):
            scopes.append(request.path)
            request.answer(403 if "secret" in request.path else 200, b'{"token": "good"}')
        elif request.headers.get("Authorization") != "Bearer good":
            request.body()
            realm = f"http://{request.headers['Host']}/token"
            request.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"')
        elif "mount" in request.query:
            request.answer(403)
        else:
            return False
        return True

    with served(taking(shelf, lie)) as host:
        document = json.loads(path.read_text())
        other = document["manifests"][0] | {
            "annotations": {"org.opencontainers.image.ref.name": f"{host}/secret:1"}
        }
        path.write_text(json.dumps(document | {"manifests": [*document["manifests"], other]}))
        asyncio.run(use(store, host))
    assert whole(shelf, built)
    assert ["secret" in scope for scope in scopes] == [True, False]


@pytest.mark.parametrize("of", ["blobs", "manifests"])
def test_another_digest_is_answered(store: Path, of: str) -> None:
    wrong = f"sha256:{'0' * 64}"

    def lie(request: Taker) -> bool:
        if lying := request.command == "PUT" and f"/{of}/" in request.path:
            request.body()
            request.answer(201, Docker_Content_Digest=wrong)
        return lying

    error = refused(store, Shelf(), lie, "IMAGE_CORRUPT")
    assert f"keeps {wrong} instead of sha256:" in error.message and error.metadata["actual"] == wrong


def test_a_digest_of_another_kind_is_compared(store: Path, built: Built) -> None:
    data = built.blobs[built.descriptor["digest"]]
    answer = f"sha512:{hashlib.sha512(data).hexdigest()}"

    def lie(request: Taker) -> bool:
        if lying := request.command == "PUT" and "/manifests/" in request.path:
            request.body()
            request.answer(201, Docker_Content_Digest=answer)
        return lying

    bring(store, Shelf(), lie)
    answer = f"sha512:{'0' * 128}"
    with pytest.raises(TinyoError, match="instead of sha512:"):
        bring(store, Shelf(), lie)


def test_endless_answers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a registry says besides, not more than a little is read."""
    monkeypatch.setattr(destination, "ANSWER", 1.0)

    def lie(request: Taker) -> bool:
        if lying := request.command == "POST":
            request.close_connection = True
            request.send_response(400)
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(b"x" * 65_536)
        return lying

    assert "status 400" in refused(store, Shelf(), lie, "REGISTRY_REJECTED").message


def test_answers_that_drip(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte, and no other; headers that do not end are httpx's to time."""
    monkeypatch.setattr(destination, "ANSWER", 0.05)
    given_up = threading.Event()

    def lie(request: Taker) -> bool:
        if lying := request.command == "POST":
            request.send_response(202)
            request.send_header("Content-Length", "5")
            request.end_headers()
            request.wfile.write(b"x")
            given_up.wait(PATIENCE)
        return lying

    with served(taking(Shelf(), lie)) as host, pytest.raises(TinyoError) as caught:
        try:
            asyncio.run(use(store, host))
        finally:
            given_up.set()
    assert caught.value.reason == "REGISTRY_UNREACHABLE"


def test_what_is_on_its_way_is_not_cleared_away(store: Path, built: Built, big: str) -> None:
    """Neither by removing the image, nor by a prune of everything."""
    shelf, reached, goes_on = Shelf(), asyncio.Event(), threading.Event()
    loop: list[asyncio.AbstractEventLoop] = []
    blobs = store / "images/blobs/sha256"

    def lie(request: Taker) -> bool:
        if request.command == "PUT" and "/uploads/" in request.path and not goes_on.is_set():
            loop[0].call_soon_threadsafe(reached.set)
            goes_on.wait(PATIENCE)
        return False

    async def run() -> None:
        loop.append(asyncio.get_running_loop())
        images = ImageStore(store)
        push = asyncio.create_task(images.push("app", f"{host}/x:1"))
        await reached.wait()
        images.remove("app")
        await prune.prune(images, prune.InUse, all=True, dry_run=False)
        assert {f"sha256:{path.name}" for path in blobs.iterdir()} == set(built.blobs)
        goes_on.set()
        await push
        for path in blobs.iterdir():
            os.utime(path, (0, 0))
        await prune.prune(images, prune.InUse, all=True, dry_run=False)
        assert not [*blobs.iterdir()]
        await images.close()

    with served(taking(shelf, lie)) as host:
        asyncio.run(run())
    assert whole(shelf, built)


def test_two_at_the_same_time(store: Path, built: Built) -> None:
    shelf = Shelf()

    async def run() -> None:
        images = ImageStore(store)
        await asyncio.gather(*(images.push("app", f"{host}/x:1") for _ in range(3)))
        await images.close()

    with served(taking(shelf)) as host:
        asyncio.run(run())
    assert whole(shelf, built)


CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2}


@pytest.mark.parametrize(
    ("document", "reason", "said"),
    [
        (b"[" * 100_000, "IMAGE_CORRUPT", "it is not JSON"),
        (b"[]", "IMAGE_CORRUPT", "it is not a JSON object"),
        (b"{}", "IMAGE_CORRUPT", "'layers' is missing"),
        ({"config": CONFIG | {"digest": "sha256:../../../etc/passwd"}, "layers": []}, "IMAGE_CORRUPT", "digest"),
        ({"config": CONFIG | {"size": -1}, "layers": []}, "IMAGE_CORRUPT", "size -1"),
        ({"config": CONFIG | {"size": 3}, "layers": []}, "IMAGE_CORRUPT", "has 2 bytes instead of 3"),
        ({"config": CONFIG, "layers": [CONFIG] * 501}, "IMAGE_CORRUPT", "501 layers are more than"),
        ({"config": CONFIG, "layers": [], "mediaType": "a/b\r\nX: y"}, "IMAGE_CORRUPT", "media type that is none"),
        ({"config": CONFIG, "layers": [], "manifests": [{}]}, "IMAGE_CORRUPT", "'digest' is missing"),
        ({"manifests": [7]}, "IMAGE_CORRUPT", "'digest' is missing"),
        ({"manifests": [{"digest": "../x"}]}, "IMAGE_CORRUPT", "'../x' is not a digest"),
        ({"manifests": [CONFIG]}, "IMAGE_CORRUPT", "'layers' is missing"),
        (
            {"config": CONFIG, "layers": [CONFIG | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]},
            "IMAGE_UNSUPPORTED",
            "may not be given to others",
        ),
        (
            {"config": CONFIG, "layers": [CONFIG | {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}]},
            "IMAGE_UNSUPPORTED",
            "may not be given to others",
        ),
        (b" " * (4 << 20) + b"{}", "IMAGE_CORRUPT", "is larger than"),
    ],
)  # fmt: skip
def test_layouts_of_others_may_be_hostile(
    store: Path, document: bytes | dict[str, object], reason: str, said: str
) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    shelf = Shelf()
    renamed(store, data)
    (store / "images/blobs" / CONFIG["digest"].replace(":", "/")).write_bytes(b"{}")  # type: ignore[attr-defined]
    assert said in refused(store, shelf, lambda request: False, reason).message
    assert not any(line.startswith(("POST", "PUT")) for line in shelf.asked)


def test_too_much_for_one_push(store: Path, monkeypatch: pytest.MonkeyPatch, built: Built) -> None:
    nested = built.descriptor
    for _ in range(5):
        data = json.dumps({"manifests": [nested]}).encode()
        (store / "images/blobs" / digest(data).replace(":", "/")).write_bytes(data)
        nested = {"digest": digest(data)}
    renamed(store, data)
    bring(store, shelf := Shelf())
    assert len(shelf.manifests) == 6 and "x/1" in shelf.manifests
    for limit in ("MAX_DOCUMENTS", "MAX_BYTES", "MAX_BLOBS"):
        with monkeypatch.context() as patch:
            patch.setattr(cargo, limit, 1)
            error = refused(store, Shelf(), lambda request: False, "IMAGE_CORRUPT")
        assert "it has more than" in error.message


def renamed(store: Path, data: bytes) -> None:
    """Gives "app" to another document."""
    (store / "images/blobs" / digest(data).replace(":", "/")).write_bytes(data)
    path = store / "images/index.json"
    index = json.loads(path.read_text())
    index["manifests"][0] |= {"digest": digest(data), "size": len(data)}
    path.write_text(json.dumps(index))


def test_nobody_there(store: Path) -> None:
    with pytest.raises(TinyoError) as caught:
        asyncio.run(use(store, f"127.0.0.1:{free_port()}"))
    assert caught.value.reason == "REGISTRY_UNREACHABLE"


def test_cancelled_it_takes_back_what_it_began(store: Path) -> None:
    shelf = Shelf()
    reached = asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    def lie(request: Taker) -> bool:
        if waits := is_layer(request):
            loop[0].call_soon_threadsafe(reached.set)
            request.body(PIECE)
            request.rfile.read()
        return waits

    async def then(push: asyncio.Task[Pushed]) -> None:
        loop.append(asyncio.get_running_loop())
        await reached.wait()
        push.cancel()

    with served(taking(shelf, lie)) as host, pytest.raises(asyncio.CancelledError):
        asyncio.run(use(store, host, then=then))
    assert "DELETE" in shelf.methods() and shelf.uploads == {} and not shelf.manifests
