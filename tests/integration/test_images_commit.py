"""Images that are made of other ones: what becomes of their documents, and what of everything that goes wrong."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1.image_pb2 import LAYER_COMPRESSION_ZSTD, CommitOptions
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, audit, catalog, commit
from tinyo_runtime.images.prune import InUse, prune

from tests.support.images import busybox_image, skopeo
from tests.support.registry import registry
from tests.support.stores import in_store
from tests.support.trees import listing

DOCKER = "application/vnd.docker"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference of an image in a registry on loopback."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield busybox_image(address, "base", Env=["A=1"])


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """What a container changed."""
    folder = tmp_path / "upper"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/motd").write_text("hello")
    os.mknod(folder / "etc/group", stat.S_IFCHR, os.makedev(0, 0))
    return folder


async def committed(
    store: ImageStore, base: Image, upper: Path, reference: str = "team/app:1", **options: Any
) -> Image:
    draft = commit.Draft(store, "web", base.digest, reference, CommitOptions(**options))
    async with draft:
        await draft.pack(upper)
        return (await draft.image())[0].image


def contents(root: Path) -> set[Path]:
    return {*(root / "images/blobs/sha256").iterdir(), *(root / "layers").iterdir()}


async def problems(store: ImageStore) -> list[str]:
    return [problem.message async for found in audit.audit(store, (), ()) for problem in found.problems]


def test_the_image_is_the_base_and_a_layer(base: str, upper: Path, tmp_path: Path) -> None:
    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        made = await committed(store, pulled, upper, message="why", author="me", changes=["ENV B=2"])
        assert made.references == ("docker.io/team/app:1",)
        assert made.layers[1:] == pulled.layers
        assert listing(tmp_path / "layers" / made.layers[0]) == listing(upper)
        assert made.config.env[-2:] == ("A=1", "B=2") and made.config.cmd == pulled.config.cmd
        manifest, configuration = store.documents(made.digest)
        before, old = store.documents(pulled.digest)
        assert manifest["layers"][:-1] == before["layers"]
        assert configuration["created"] > old["created"] and configuration["author"] == "me"
        assert [step.get("created_by") for step in configuration["history"]] == [None, "tinyo commit # why"]
        assert configuration["history"][-1]["comment"] == "why"
        assert {key: configuration[key] for key in ("os", "architecture")} == {
            "os": "linux",
            "architecture": "amd64",
        }
        assert await problems(store) == []
        # Again, it is the same layer; the reference moves, and the image that had it stays.
        again = await committed(store, pulled, upper, message="why not", compression=LAYER_COMPRESSION_ZSTD)
        assert again.layers == made.layers and again.digest != made.digest
        assert [one.references for one in store.list() if one.digest == made.digest] == [()]
        assert store.documents(again.digest)[0]["layers"][-1]["mediaType"].endswith("tar+zstd")
        # On top of one that was made so.
        (upper / "etc/second").touch()
        third = await committed(store, again, upper, "team/app:3")
        assert third.layers[1:] == made.layers
        assert await problems(store) == []

    in_store(tmp_path, use)
    inspected = json.loads(skopeo("inspect", f"oci:{tmp_path}/images:docker.io/team/app:3"))
    assert len(inspected["Layers"]) == 3 and inspected["Env"][-1] == "A=1"


def test_a_base_of_dockers_becomes_one_of_the_oci(base: str, upper: Path, tmp_path: Path) -> None:
    docker = base.replace("/base:", "/docker:")
    skopeo("copy", "--format=v2s2", "--src-tls-verify=false", "--dest-tls-verify=false",
           f"docker://{base}", f"docker://{docker}")  # fmt: skip

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(docker)
        assert store.documents(pulled.digest)[0]["mediaType"].startswith(DOCKER)
        made = await committed(store, pulled, upper)
        assert DOCKER not in json.dumps(store.documents(made.digest)[0])

    in_store(tmp_path, use)
    skopeo("copy", f"oci:{tmp_path}/images:docker.io/team/app:1", f"dir:{tmp_path}/dir")


@pytest.mark.parametrize(
    ("reference", "options", "reason"),
    [
        ("NO NAME", {}, "IMAGE_REFERENCE_INVALID"),
        ("", {}, "IMAGE_REFERENCE_INVALID"),
        ("a@sha256:" + "0" * 64, {}, "IMAGE_REFERENCE_INVALID"),
        ("app", {"changes": ["FROM x"]}, "CHANGE_INVALID"),
        ("app", {"message": "x" * (3 << 20)}, "COMMIT_REFUSED"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(
    base: str, upper: Path, tmp_path: Path, reference: str, options: dict[str, Any], reason: str
) -> None:
    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        before = contents(tmp_path)
        with pytest.raises(TinyoError) as raised:
            await committed(store, pulled, upper, reference, **options)
        assert raised.value.reason == reason
        assert contents(tmp_path) == before and store.list() == [pulled]

    in_store(tmp_path, use)


def test_an_image_of_too_many_layers_is_refused(
    base: str, upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be started."""
    monkeypatch.setattr(commit, "MAX_LAYERS", 2)

    async def use(store: ImageStore) -> None:
        one = await committed(store, await store.pull(base), upper)
        with pytest.raises(TinyoError, match="its image has 2 layers") as raised:
            await committed(store, one, upper, "team/app:2")
        assert raised.value.reason == "COMMIT_REFUSED"

    in_store(tmp_path, use)


def test_a_lost_blob_of_the_base_is_said(base: str, upper: Path, tmp_path: Path) -> None:
    """The container runs without it, but the new image would not be complete."""

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        blob = store.blob(store.documents(pulled.digest)[0]["layers"][0]["digest"])
        blob.rename(tmp_path / "away")
        with pytest.raises(TinyoError, match=f"is not here: `tinyo image pull {base}`") as raised:
            await committed(store, pulled, upper)
        assert raised.value.reason == "COMMIT_REFUSED"
        store.blob(pulled.digest).unlink()
        with pytest.raises(TinyoError) as raised:
            await committed(store, pulled, upper)
        assert raised.value.reason == "IMAGE_CORRUPT"

    in_store(tmp_path, use)


@pytest.mark.parametrize("odd", ['{"a":' * 900 + "0" + "}" * 900, "NaN"])
def test_a_base_that_says_odd_things(base: str, upper: Path, tmp_path: Path, odd: str) -> None:
    """What Python reads is not what everybody reads, and what it reads it may not be able to copy."""

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        manifest, configuration = store.documents(pulled.digest)
        text = json.dumps(configuration)[:-1] + f', "odd": {odd}}}'
        store.blob(manifest["config"]["digest"]).write_text(text)
        with pytest.raises(TinyoError) as raised:
            await committed(store, pulled, upper)
        assert raised.value.reason == "IMAGE_CORRUPT"

    in_store(tmp_path, use)


def test_a_full_disk_leaves_nothing(base: str, upper: Path, tmp_path: Path) -> None:
    """While the layer is packed, and while it is unpacked; with space, it works."""
    (upper / "big").write_bytes(os.urandom(6 << 20))
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", state], check=True)

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        before, index = contents(state), (state / "images/index.json").read_bytes()
        for free in (4 << 20, 10 << 20, 16 << 20):
            filler = state / "filler"
            used = shutil.disk_usage(state)
            filler.write_bytes(bytes(used.free - free))
            with pytest.raises((TinyoError, OSError)) as raised:
                await committed(store, pulled, upper)
            assert TinyoError.of(raised.value).reason == "DISK_FULL"
            filler.unlink()
            assert contents(state) == before
            assert (state / "images/index.json").read_bytes() == index
        assert await committed(store, pulled, upper) in store.list()

    try:
        in_store(state, use)
    finally:
        subprocess.run(["umount", state], check=True)


def test_cancelled_while_it_tidies_up_it_still_does(
    base: str, upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be deleted stayed, or was deleted when nobody waited for it any more."""
    begun, allowed, delete = threading.Event(), threading.Event(), commit._delete

    def slow(paths: Iterable[Path]) -> None:
        begun.set()
        assert allowed.wait(20)
        delete(paths)

    monkeypatch.setattr(commit, "_delete", slow)

    async def use(store: ImageStore) -> None:
        work = asyncio.create_task(committed(store, await store.pull(base), upper))
        assert await asyncio.to_thread(begun.wait, 20)
        work.cancel()
        ended, _ = await asyncio.wait([work], timeout=0)
        assert not ended
        allowed.set()
        await asyncio.wait([work])
        assert work.cancelled() and os.listdir(tmp_path / "pulling") == []

    in_store(tmp_path, use)


def test_cancelled_at_any_time_it_leaves_nothing_or_all(base: str, upper: Path, tmp_path: Path) -> None:
    (upper / "big").write_bytes(os.urandom(3 << 20))

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        before = contents(tmp_path)
        stopped = 0
        for steps in range(0, 1000, 8):
            work = asyncio.create_task(committed(store, pulled, upper, f"team/app:{steps}"))
            for _ in range(steps):
                if not work.done():
                    await asyncio.sleep(0.001)
            if work.done():
                break
            work.cancel()
            await asyncio.wait([work])
            if work.cancelled():
                stopped += 1
                if store.list() != [pulled]:  # it came when the image was made
                    break
                assert contents(tmp_path) == before
        assert stopped > 5
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_what_another_one_needs_stays_when_a_commit_fails(
    base: str, upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        made = await committed(store, pulled, upper)
        before = contents(tmp_path)

        async def unpack(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store, "layer", unpack)
        with pytest.raises(OSError, match="No space"):
            await committed(store, pulled, upper, "team/other:1")
        assert contents(tmp_path) == before and made in store.list()
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_the_base_stays_meanwhile(base: str, upper: Path, tmp_path: Path) -> None:
    """The container may be deleted as soon as it is read, and the image that it was made from."""

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        draft = commit.Draft(store, "web", pulled.digest, "team/app:1", CommitOptions())
        async with draft:
            await draft.pack(upper)
            store.remove(base)
            await prune(store, InUse, all=True, dry_run=False)
            making = asyncio.create_task(draft.image())
            while not making.done():
                await prune(store, InUse, all=False, dry_run=False)
            made = (await making)[0].image
        assert store.list() == [made] and made.layers[1:] == pulled.layers
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_two_at_the_same_time(base: str, upper: Path, tmp_path: Path) -> None:
    async def use(store: ImageStore) -> None:
        pulled = await store.pull(base)
        one, two = await asyncio.gather(
            committed(store, pulled, upper, "team/one"),
            committed(store, pulled, upper, "team/two", message="x"),
        )
        assert one.layers == two.layers
        assert await problems(store) == []
        assert [held.complete for held in catalog.held(store)] == [True] * 3

    in_store(tmp_path, use)
