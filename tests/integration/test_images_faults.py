"""Registries in trouble: cut off anywhere, and a tag that moves while its image is fetched; and what has a lease."""

import os
import random
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import ImageStore, patience
from tinyo_runtime.images.prune import InUse, prune

from tests.support.images import Built, file, image, layer, push
from tests.support.liar import liar, send
from tests.support.registry import served
from tests.support.stores import in_store, sound

MB = 1 << 20


def nothing_left(root: Path) -> None:
    assert os.listdir(root / "pulling") == os.listdir(root / "partial") == []


@pytest.mark.parametrize("seed", [os.environ.get("TINYO_SEED", "1"), "2", "3"])
def test_cut_off_anywhere(tmp_path: Path, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents and layers, in the headers or in the body; each answer but the last is cut."""
    monkeypatch.setattr(patience, "DELAYS", (0.0,) * 30)
    chance = random.Random(seed)
    built = image([layer(file(str(number), chance.randbytes(MB))) for number in range(3)])
    cuts = dict[str, int]()

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        cuts[request.path] = cuts.get(request.path, 0) + 1
        if cuts[request.path] > 5:
            send(request, body[start:], 206 if start else 200)
        else:
            end = chance.randint(start, len(body))
            if chance.random() < 0.2 and cuts[request.path] > 1:
                request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            else:
                send(request, body[start:end], 206 if start else 200, len(body) - start)
        request.close_connection = True
        return True

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(f"{host}/x:1")
        assert len(pulled.layers) == 3
        await sound(store)

    with served(liar(built, lie)) as host:
        in_store(tmp_path, use)
    assert max(cuts.values()) > 2
    nothing_left(tmp_path)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_tag_that_moves_meanwhile(tmp_path: Path, deleted: bool) -> None:
    """The image is the one that the tag named first, or nothing when that is deleted; never some of each."""
    old, new = (image([layer(file(name, name.encode()))], {"User": name}) for name in ("old", "new"))
    both = Built(old.descriptor, old.blobs | new.blobs)
    moved = False

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        nonlocal moved
        now = new if moved else old
        name = request.path.rpartition("/")[2]
        if request.path.endswith("/manifests/1"):
            send(request, now.blobs[now.descriptor["digest"]])
            moved = True
        elif deleted and name not in now.blobs:
            send(request, b"", 404)
        else:
            return False
        return True

    async def use(store: ImageStore) -> None:
        reference = f"{host}/x:1"
        if deleted:
            with pytest.raises(TinyoError) as caught:
                await store.pull(reference)
            assert caught.value.reason == "IMAGE_NOT_FOUND" and store.list() == []
        else:
            assert (await store.pull(reference)).config.user == "old"
        assert (await store.pull(reference, refresh=True)).config.user == "new"
        await sound(store)

    with served(liar(both, lie)) as host:
        in_store(tmp_path, use)
    nothing_left(tmp_path)


def test_what_has_a_lease_stays(host: str, tmp_path: Path) -> None:
    """With its reference, when the image has one; what only a removal takes keeps its bytes."""
    one = push(image([layer(file("one"))]), f"{host}/one:1")
    two = push(image([layer(file("two"))]), f"{host}/two:1")

    async def use(store: ImageStore) -> None:
        leased, other = await store.pull(one), await store.pull(two)
        before = {path for path in tmp_path.rglob("*") if path.parent.name in ("sha256", "layers")}
        with store.lease(leased.digest), store.lease(leased.digest):
            removed, _ = await prune(store, InUse, all=True, dry_run=False)
            assert [image.digest for image in removed] == [other.digest]
            assert store.list() == [leased]
            store.remove(one)
            assert (await prune(store, InUse, all=True, dry_run=False))[0] == []
            assert (
                len([path for path in before if path.exists()]) == 4
            )  # manifest, configuration, layer twice
        await prune(store, InUse, all=True, dry_run=False)
        assert [path for path in before if path.exists() and path.parent.name == "layers"] == []
        assert store.wanted == []

    in_store(tmp_path, use)
