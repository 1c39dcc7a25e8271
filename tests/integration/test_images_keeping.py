"""What is on the disk, kept in order: nothing that is needed goes, what is damaged is found and healed."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, audit, catalog, details, names, usage
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.names import REF_NAME
from tinyo_runtime.images.prune import GRACE, InUse, prune

from tests.support.images import (
    Built,
    busybox,
    busybox_image,
    digest,
    file,
    folder,
    hard_link,
    image,
    index,
    layer,
    push,
    skopeo,
    write_layout,
)
from tests.support.stores import in_store


async def pruned(
    store: ImageStore, *, all: bool = False, dry_run: bool = False, **used: set[str]
) -> list[Image]:
    return (await prune(store, lambda: InUse(**used), all=all, dry_run=dry_run))[0]


async def problems(store: ImageStore, *references: str, in_use: tuple[str, ...] = ()) -> list[str]:
    """All that verifying finds."""
    findings = [finding async for finding in audit.audit(store, references, in_use)]
    return [problem.message for finding in findings for problem in finding.problems]


def du(*paths: Path) -> int:
    """What GNU du says."""
    command = ["du", "--summarize", "--total", "--block-size=1", *map(str, paths)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(printed.splitlines()[-1].split()[0])


def contents(root: Path) -> set[Path]:
    return {*(root / "images/blobs/sha256").iterdir(), *(root / "layers").iterdir()}


def test_prune_takes_what_nobody_needs_and_nothing_else(host: str, tmp_path: Path) -> None:
    """Untagged images go, tagged ones stay; a layer that both have stays too."""
    moved = busybox_image(host, "moved", [layer(file("old", os.urandom(100_000)))])

    async def use(store: ImageStore) -> None:
        old = await store.pull(moved)
        before = contents(tmp_path)
        push(busybox([layer(file("new", b"new"))]), moved)
        new = await store.pull(moved, refresh=True)
        unpacked = tmp_path / "layers" / old.layers[0]
        expected = du(unpacked)
        assert [one.digest for one in await pruned(store, dry_run=True)] == [old.digest]
        assert contents(tmp_path) > before
        assert await pruned(store, here={old.digest}) == []
        assert await pruned(store, elsewhere={old.digest}) == []
        removed, freed = await prune(store, InUse, all=False, dry_run=False)
        assert [(one.digest, one.references) for one in removed] == [(old.digest, ())]
        assert freed > expected and not unpacked.exists()
        assert store.list() == [new]
        assert await problems(store) == []
        assert await prune(store, InUse, all=False, dry_run=False) == ([], 0)

    in_store(tmp_path, use)


def test_prune_all_spares_what_containers_use(host: str, tmp_path: Path) -> None:
    used, unused = busybox_image(host, "used"), busybox_image(host, "unused", User="1")
    named = busybox_image(host, "named", User="2")

    async def use(store: ImageStore) -> None:
        kept, gone, waited_for = [await store.pull(reference) for reference in (used, unused, named)]
        assert await pruned(store) == []
        # A container whose image was not resolved yet is known by its reference.
        assert await pruned(store, all=True, here={kept.digest}, elsewhere={named, "NO NAME"}) == [gone]
        assert store.list() == [waited_for, kept]
        assert len(await pruned(store, all=True)) == 2
        assert contents(tmp_path) == set()

    in_store(tmp_path, use)


def test_prune_meanwhile_does_not_hurt_a_pull(host: str, tmp_path: Path) -> None:
    extra = [layer(file(f"big{number}", os.urandom(4_000_000))) for number in range(5)]
    reference = busybox_image(host, "meanwhile", extra)

    async def use(store: ImageStore) -> None:
        pull = asyncio.create_task(store.pull(reference))
        rounds = 0
        while not pull.done():
            await pruned(store, all=not store.list())
            rounds += 1
        assert rounds > 2
        assert store.list() == [await pull]
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_what_another_tool_writes_just_now_stays(tmp_path: Path) -> None:
    """It names its blobs last; those that nobody named for long are left over."""

    async def use(store: ImageStore) -> None:
        blobs = tmp_path / "images/blobs/sha256"
        young, old = blobs / ("a" * 64), blobs / ("b" * 64)
        for blob in (young, old):
            blob.write_bytes(b"x" * 5000)
        os.utime(old, times=(time.time() - GRACE - 60,) * 2)
        (tmp_path / "layers" / ("c" * 32)).mkdir()  # only ours are there
        _, freed = await prune(store, InUse, all=False, dry_run=False)
        assert freed >= 5000
        assert contents(tmp_path) == {young}

    in_store(tmp_path, use)


def test_usage_is_what_du_says(host: str, tmp_path: Path) -> None:
    deep = [folder("/".join(["d" * 200] * depth)) for depth in range(1, 25)]
    linked = layer(file("one", os.urandom(200_000)), hard_link("two", "one"), *deep)
    first = busybox_image(host, "first", [linked])
    second = busybox_image(host, "second", [linked, layer(file("own", os.urandom(300_000)))])

    async def use(store: ImageStore) -> None:
        one, other = await store.pull(first), await store.pull(second)
        total = await usage.measure(store, InUse({one.digest}))
        blobs, layers = tmp_path / "images/blobs/sha256", tmp_path / "layers"
        assert total.blobs == du(*blobs.iterdir())
        assert total.layers == du(*layers.iterdir())
        assert [(one.held.image, one.in_use) for one in total.images] == [(one, True), (other, False)]
        a, b = total.images
        assert a.shared == b.shared > 200_000 and b.own > 600_000 > a.own > 0
        assert a.own + b.own + a.shared == total.blobs + total.layers
        assert (total.prunable, total.prunable_all) == (0, b.own)
        assert (await prune(store, lambda: InUse({one.digest}), all=True, dry_run=False))[1] == b.own

    in_store(tmp_path, use)


def flip(path: Path) -> None:
    """Another byte in the middle, the same size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink], ids=["flipped", "cut", "lost"])
@pytest.mark.parametrize("kind", ["manifest", "configuration", "layer"])
def test_damage_is_found_and_a_pull_heals_it(
    host: str, tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    reference = busybox_image(host, "damaged", [layer(file("big", os.urandom(6_000_000)))])

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        assert await problems(store, reference) == await problems(store) == []
        manifest, _ = store.documents(pulled.digest)
        named = {
            "manifest": pulled.digest,
            "configuration": manifest["config"]["digest"],
            "layer": manifest["layers"][-1]["digest"],
        }
        damage(store.blob(named[kind]))
        (found,) = await problems(store, reference)
        assert found.startswith(f"the {kind} {named[kind]} is ")
        assert await store.pull(reference, refresh=True) == pulled
        assert await problems(store) == []
        skopeo("copy", f"oci:{tmp_path}/images:{reference}", f"dir:{tmp_path}/copy")

    in_store(tmp_path, use)


def test_a_lost_folder_is_found_and_made_again_from_a_blob_that_is_intact(host: str, tmp_path: Path) -> None:
    reference = busybox_image(host, "folder", [layer(file("big", os.urandom(6_000_000)))])

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        manifest, configuration = store.documents(pulled.digest)
        shutil.rmtree(tmp_path / "layers" / pulled.layers[0])
        (found,) = await problems(store)
        assert found == f"the folder of layer {configuration['rootfs']['diff_ids'][-1]} is missing"
        flip(store.blob(manifest["layers"][-1]["digest"]))  # and nobody noticed before the pull
        assert await store.pull(reference) == pulled
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_while_it_is_not_known_what_an_image_needs_nothing_goes(host: str, tmp_path: Path) -> None:
    reference, other = busybox_image(host, "unknown"), busybox_image(host, "other", [layer(file("x", b"x"))])

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        await store.pull(other)
        manifest, _ = store.documents(pulled.digest)
        flip(store.blob(manifest["config"]["digest"]))
        for all in (False, True):
            with pytest.raises(TinyoError) as caught:
                await pruned(store, all=all, here={pulled.digest})
            assert caught.value.reason == "IMAGE_CORRUPT" and "tinyo image pull" in caught.value.message
        store.remove(other)
        assert (tmp_path / "layers" / pulled.layers[0]).is_dir()
        with pytest.raises(TinyoError, match="cannot be read"):
            await details.inspect(store, reference)
        assert (await usage.measure(store, InUse())).prunable == 0
        await store.pull(reference, refresh=True)
        await pruned(store)
        assert await problems(store, in_use=(pulled.digest,)) == []

    in_store(tmp_path, use)


@pytest.mark.parametrize("several", [False, True], ids=["manifest", "index"])
def test_an_image_that_skopeo_put_there(tmp_path: Path, several: bool) -> None:
    """It is listed, described, named and verified before anybody unpacked it; then a name is enough to use it."""
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    made = busybox()
    built = index([image([layer(file("arm", b""))], architecture="arm64"), made]) if several else made
    write_layout(built, tmp_path / "source")
    skopeo("copy", "--all", f"oci:{tmp_path}/source:image", f"oci:{tmp_path}/images:demo:1")
    digest = made.descriptor["digest"]

    async def use(store: ImageStore) -> None:
        (held,) = catalog.held(store)
        assert (held.image.digest, held.image.references, held.complete) == (digest, ("demo:1",), False)
        for reference in ("demo:1", digest, digest[:25], built.descriptor["digest"]):
            assert catalog.find(store, reference) == held
        _, configuration, (only,) = await details.inspect(store, "demo:1")
        assert json.loads(configuration)["config"]["Cmd"] == ["/bin/sh"]
        assert not only.HasField("unpacked_bytes") and only.size_bytes > 100_000
        assert await problems(store) == await problems(store, "demo:1") == []
        tagged, complete = details.tag(store, "demo:1", "localhost/demo")
        assert complete == "localhost/demo:latest"
        assert tagged.image.references == ("demo:1", complete)
        pulled = await store.pull("localhost/demo")
        assert pulled.digest == digest and catalog.held(store)[0].complete
        assert await problems(store) == []
        assert await pruned(store) == []
        skopeo("copy", f"oci:{tmp_path}/images:localhost/demo:latest", f"dir:{tmp_path}/copy")
        with pytest.raises(TinyoError, match="used by a container"):
            store.remove(digest, {digest})
        assert list(store.remove("demo:1", {digest})) == ["demo:1"]
        assert await problems(store) == [] != store.list()

    in_store(tmp_path, use)


def test_an_index_that_another_tool_is_writing_is_read_again(tmp_path: Path) -> None:
    """skopeo truncates the file and then writes it."""

    async def use(store: ImageStore) -> None:
        index = tmp_path / "images/index.json"
        content = index.read_bytes()
        index.write_bytes(b"")
        writing = threading.Timer(0.02, index.write_bytes, (content,))
        writing.start()
        assert names.entries(store) == []
        writing.join()
        index.write_bytes(content[:-3])
        with pytest.raises(Malformed):
            names.entries(store)
        index.write_bytes(content)

    in_store(tmp_path, use)


def test_skopeo_copies_while_we_prune(tmp_path: Path) -> None:
    """What it wrote before we cleared away is there when it names it."""
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    write_layout(busybox([layer(file("big", os.urandom(20_000_000)))]), tmp_path / "source")

    async def use(store: ImageStore) -> None:
        copy = asyncio.create_task(
            asyncio.to_thread(
                skopeo, "copy", f"oci:{tmp_path}/source:image", f"oci:{tmp_path}/images:localhost/meanwhile:1"
            )
        )
        while not copy.done():
            await pruned(store, all=True, elsewhere={"localhost/meanwhile:1"})
        await copy
        assert [one.image.references for one in catalog.held(store)] == [("localhost/meanwhile:1",)]
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_a_tag_is_completed_and_moves(host: str, tmp_path: Path) -> None:
    one, other = busybox_image(host, "one"), busybox_image(host, "two", User="1")

    async def use(store: ImageStore) -> None:
        first, second = await store.pull(one), await store.pull(other)
        details.tag(store, one, "team/app")
        assert store.list()[0].references == tuple(sorted([one, "docker.io/team/app:latest"]))
        details.tag(store, second.digest, "team/app")
        found = store.find("team/app")
        assert found and found.digest == second.digest
        assert store.get(first.digest).references == (one,)
        with pytest.raises(TinyoError, match="is not here"):
            details.tag(store, "nobody", "x")
        for wrong in ("UPPER", f"x@{first.digest}", ""):
            with pytest.raises(TinyoError) as caught:
                details.tag(store, one, wrong)
            assert caught.value.reason == "IMAGE_REFERENCE_INVALID"

    in_store(tmp_path, use)


def put(root: Path, *entries: object, blobs: tuple[bytes, ...] = ()) -> None:
    """Another tool's entries, whatever they are."""
    for blob in blobs:
        (root / "images/blobs" / digest(blob).replace(":", "/")).write_bytes(blob)
    index = {"schemaVersion": 2, "manifests": entries}
    (root / "images/index.json").write_text(json.dumps(index))


HOSTILE = [
    b"no JSON",
    b"[]",
    b'{"manifests": 5}',
    b'{"manifests": [5, {}, {"digest": "../../etc/passwd"}, {"digest": 7}]}',
    b'{"config": {"digest": "sha256:x"}, "layers": []}',
    b'{"layers": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:%s", "size": 1},'
    b' "layers": []}' % (b"0" * 64),
    b" " * (5 << 20),
]


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
def test_documents_that_are_none_hurt_nobody(tmp_path: Path, document: bytes) -> None:
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    entry = {
        "digest": digest(document),
        "size": len(document),
        "annotations": {REF_NAME: "x:1"},
    }
    put(tmp_path, entry, {"digest": "../../x"}, {"annotations": 3}, blobs=(document,))

    async def use(store: ImageStore) -> None:
        assert catalog.held(store) == []
        with pytest.raises(TinyoError) as caught:
            await details.inspect(store, "x:1")
        assert caught.value.reason == "IMAGE_CORRUPT"
        await problems(store)
        assert (await usage.measure(store, InUse())).images == []
        assert len(await pruned(store)) == 2
        assert list(store.remove("x:1")) == ["x:1"]
        assert contents(tmp_path) == set()

    in_store(tmp_path, use)


def test_sizes_that_no_disk_has(tmp_path: Path) -> None:
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    built: Built = busybox()
    manifest = json.loads(built.blobs[built.descriptor["digest"]])
    manifest["layers"][0]["size"] = 10**40
    data = json.dumps(manifest).encode()
    annotations = {REF_NAME: "half\ud800"}
    entry = {"digest": digest(data), "size": len(data), "annotations": annotations}
    put(tmp_path, entry, blobs=(data, *built.blobs.values()))

    async def use(store: ImageStore) -> None:
        held, _, (only,) = await details.inspect(store, digest(data))
        assert only.size_bytes == 2**63 - 1 == details.described(held.image).size_bytes
        assert details.described(held.image).references == ["half\\ud800"]
        (found,) = await problems(store)
        assert "bytes instead of 1000000" in found

    in_store(tmp_path, use)
