"""The image store against a real registry: what it fetches, what it keeps, what other tools make of it."""

import asyncio
import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1.image_pb2 import PullProgress
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import ImageStore

from tests.support.images import (
    busybox,
    busybox_image,
    file,
    image,
    index,
    layer,
    many_layers,
    push,
    skopeo,
    write_layout,
)
from tests.support.registry import free_port, registry, requests, token_service
from tests.support.stores import in_store


def failure(root: Path, reference: str, **options: Any) -> TinyoError:
    with pytest.raises(TinyoError) as caught:
        in_store(root, lambda store: store.pull(reference, **options))
    assert os.listdir(root / "pulling") == [] == os.listdir(root / "layers")
    return caught.value


def test_pull(host: str, tmp_path: Path) -> None:
    reference = busybox_image(
        host, "pull", Entrypoint=["/bin/env"], User="nobody", WorkingDir="/tmp", StopSignal="SIGINT"
    )
    reports: list[PullProgress] = []

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference, progress=reports.append)
        assert pulled.references == (reference,)
        assert (pulled.platform, pulled.created) == ("linux/amd64", 1704164645)
        config = pulled.config
        assert (config.entrypoint, config.cmd, config.user) == (("/bin/env",), ("/bin/sh",), "nobody")
        assert (config.workdir, config.stop_signal) == ("/tmp", "SIGINT")
        assert (tmp_path / "layers" / pulled.layers[0] / "bin/busybox").stat().st_mode & 0o777 == 0o755
        assert store.list() == [pulled] and store.get(pulled.digest) == pulled
        assert store.find(reference) == store.find(pulled.digest) == store.find(pulled.digest[:20]) == pulled
        assert await store.pull(f"{host}/pull@{pulled.digest}") == store.get(pulled.digest)

    in_store(tmp_path, use)
    last = reports[-1].layers[0]
    assert last.complete and last.received_bytes == last.total_bytes > 0 and not last.shared
    assert in_store(tmp_path, lambda store: asyncio.sleep(0, store.list()))[0].references[0] == reference


def test_present_images_need_no_registry(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        reference = busybox_image(address, "offline")
        first = in_store(tmp_path / "state", lambda store: store.pull(reference))
    assert in_store(tmp_path / "state", lambda store: store.pull(reference)) == first
    assert (
        in_store(tmp_path / "state", lambda store: store.pull(f"x.test/y@{first.digest}")).digest
        == first.digest
    )


def test_moved_tag(host: str, tmp_path: Path) -> None:
    """The tag follows on request only; the image that had it stays as long as its digest may be needed."""
    reference = busybox_image(host, "moved")

    async def use(store: ImageStore) -> None:
        old = await store.pull(reference)
        push(busybox([layer(file("new", b"x"))]), reference)
        assert await store.pull(reference) == old
        new = await store.pull(reference, refresh=True)
        assert new.digest != old.digest and store.find(reference) == new
        assert store.get(old.digest).references == ()
        with pytest.raises(TinyoError, match="used by a container"):
            store.remove(old.digest, {old.digest})
        assert list(store.remove(old.digest)) == []
        assert store.list() == [new]

    in_store(tmp_path, use)


def test_platforms(host: str, tmp_path: Path) -> None:
    images = [image([layer(file(name, b"x"))], architecture=name) for name in ("arm64", "amd64", "s390x")]
    reference = push(index(images, attested=True), f"{host}/platforms:1")

    async def use(store: ImageStore) -> None:
        assert (await store.pull(reference)).digest == images[1].descriptor["digest"]
        assert (await store.pull(reference, "linux/arm64")).digest == images[0].descriptor["digest"]

    in_store(tmp_path / "a", use)
    error = failure(tmp_path / "b", reference, platform="linux/riscv64")
    assert error.reason == "IMAGE_PLATFORM_MISSING"
    assert error.metadata["available"] == "linux/arm64, linux/amd64, linux/s390x"
    single = push(images[0], f"{host}/single:1")
    assert failure(tmp_path / "b", single, platform="linux/amd64").reason == "IMAGE_PLATFORM_MISSING"


def test_docker_media_types(host: str, tmp_path: Path) -> None:
    reference = busybox_image(host, "oci")
    skopeo(
        "copy",
        "--format=v2s2",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{reference}",
        f"docker://{host}/v2s2:1",
    )
    assert in_store(tmp_path, lambda store: store.pull(f"{host}/v2s2:1")).config.cmd == ("/bin/sh",)


def test_missing(host: str, tmp_path: Path) -> None:
    busybox_image(host, "there")
    error = failure(tmp_path, f"{host}/there:absent")
    assert (error.reason, error.metadata["registry"]) == ("IMAGE_NOT_FOUND", host)
    assert failure(tmp_path, f"{host}/absent").reason == "IMAGE_NOT_FOUND"
    assert failure(tmp_path, f"{host}/there@sha256:{'0' * 64}").reason == "IMAGE_NOT_FOUND"


def test_unreachable(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    error = failure(tmp_path, f"{address}/x")
    assert (error.reason, error.metadata) == ("REGISTRY_UNREACHABLE", {"registry": address})
    error = failure(tmp_path, "no-such-host.invalid/x")
    assert error.reason == "REGISTRY_UNREACHABLE" and "[Errno" not in error.message


def test_tokens(tmp_path: Path) -> None:
    with (
        token_service(tmp_path / "tokens") as (realm, certificate, queries),
        registry(tmp_path / "registry", realm, certificate) as address,
    ):
        reference = busybox_image(address, "private", [layer(file("second", b"x"))])
        queries.clear()
        pulled = in_store(tmp_path / "state", lambda store: store.pull(reference))
    assert len(pulled.layers) == 2
    assert queries == ["scope=repository%3Aprivate%3Apull&service=registry.test"]


def test_once(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """Pulls of one image at the same time, and of another with the same layers, fetch each blob once."""
    extra = [layer(file("big", os.urandom(5_000_000)))]
    one, other = busybox_image(host, "one", extra), busybox_image(host, "other", extra, User="1")

    async def use(store: ImageStore) -> None:
        pulls = [store.pull(reference) for reference in (one, one, other, one)]
        images = await asyncio.gather(*pulls)
        assert images[0] == images[1] == images[3] != images[2]
        assert images[0].layers == images[2].layers

    before = len(requests(registry_folder))
    in_store(tmp_path, use)
    asked = requests(registry_folder)[before:]
    assert len([line for line in asked if "/blobs/" in line]) == 2 + 2  # layers, configurations
    assert len([line for line in asked if "/manifests/" in line]) == 2


def test_shared_pull_outlives_one_who_gave_up(host: str, tmp_path: Path) -> None:
    reference = busybox_image(host, "shared", [layer(file("big", os.urandom(20_000_000)))])

    async def use(store: ImageStore) -> None:
        begun = asyncio.Event()
        first = asyncio.create_task(store.pull(reference, progress=lambda _: begun.set()))
        second = asyncio.create_task(store.pull(reference))
        await begun.wait()
        first.cancel()
        assert (await second).references == (reference,)
        assert first.cancelled()

    in_store(tmp_path, use)


def test_cancelled(host: str, tmp_path: Path) -> None:
    """Nothing half-made is left, and the next pull works."""
    reference = push(image([layer(file("big", os.urandom(30_000_000)))]), f"{host}/cancelled:1")

    async def cancel(store: ImageStore) -> None:
        begun = asyncio.Event()
        pull = asyncio.create_task(store.pull(reference, progress=lambda _: begun.set()))
        await begun.wait()
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert store.list() == [] == os.listdir(tmp_path / "layers")
        assert os.listdir(tmp_path / "images/blobs/sha256") == []

    in_store(tmp_path, cancel)
    in_store(tmp_path, lambda store: store.pull(reference))


def test_remove(host: str, tmp_path: Path) -> None:
    """The last reference takes blobs and layers along, except what another image shares."""
    one = busybox_image(host, "removed", [layer(file("one", b"1"))])
    two = busybox_image(host, "stays", [layer(file("two", b"2"))])

    async def use(store: ImageStore) -> None:
        first, second = await store.pull(one), await store.pull(two)
        await store.pull(f"{host}/removed@{first.digest}")
        with pytest.raises(TinyoError) as caught:
            store.remove(first.digest, {first.digest})
        assert caught.value.reason == "IMAGE_IN_USE"
        assert list(store.remove(one, {first.digest})) == [one]  # it has another reference
        assert list(store.remove(first.digest)) == [f"{host}/removed@{first.digest}"]
        assert store.list() == [second]
        assert sorted(os.listdir(tmp_path / "layers")) == sorted(second.layers)
        assert len(os.listdir(tmp_path / "images/blobs/sha256")) == 4
        for reference in (one, first.digest):
            with pytest.raises(TinyoError, match="not here"):
                store.remove(reference)

    in_store(tmp_path, use)


def test_other_tools_read_the_layout(host: str, tmp_path: Path) -> None:
    reference = busybox_image(host, "read")
    in_store(tmp_path, lambda store: store.pull(reference))
    skopeo("copy", f"oci:{tmp_path}/images:{reference}", f"dir:{tmp_path}/copy")
    listed = subprocess.run(["umoci", "ls", "--layout", tmp_path / "images"], check=True, capture_output=True)
    assert listed.stdout.decode().split() == [reference]


def test_images_that_other_tools_put_there(tmp_path: Path) -> None:
    """No registry is asked for what the layout has; only unpacking is left to do."""
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    write_layout(busybox(), tmp_path / "source")
    skopeo("copy", f"oci:{tmp_path}/source:image", f"oci:{tmp_path}/images:localhost/demo:latest")

    async def use(store: ImageStore) -> None:
        assert store.list() == []
        pulled = await store.pull("localhost/demo")
        assert store.list() == [pulled]

    in_store(tmp_path, use)


def test_hundred_layers_fit_one_mount(host: str, tmp_path: Path) -> None:
    reference = push(many_layers(100), f"{host}/many:1")
    pulled = in_store(tmp_path, lambda store: store.pull(reference))
    assert len(pulled.layers) == 100
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={':'.join(pulled.layers)},upperdir=../containers/{'0' * 16}/upper,workdir=../containers/{'0' * 16}/work"
    assert len(options) < 4096
    options = f"lowerdir={':'.join(pulled.layers)},upperdir=../upper,workdir=../work"
    mount = "import ctypes, os, sys; os.chdir(sys.argv[1]); l = ctypes.CDLL(None, use_errno=True); sys.exit(l.mount(b'o', b'../merged', b'overlay', 0, sys.argv[2].encode()) and ctypes.get_errno())"
    subprocess.run(["python3", "-c", mount, tmp_path / "layers", options], check=True)
    try:
        assert (tmp_path / "merged/top").read_text() == "99"
        assert len(os.listdir(tmp_path / "merged/layers")) == 99
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(tmp_path / "merged"), 0)


def test_disk_full(host: str, tmp_path: Path) -> None:
    reference = push(image([layer(file("big", os.urandom(12_000_000)))]), f"{host}/big:1")
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", state], check=True)
    try:
        error = failure(state, reference)
        assert error.reason == "DISK_FULL"
        subprocess.run(["mount", "-o", "remount,size=64m", state], check=True)
        in_store(state, lambda store: store.pull(reference))
    finally:
        subprocess.run(["umount", state], check=True)


def test_start_removes_what_was_not_finished(tmp_path: Path) -> None:
    half = tmp_path / "pulling/tmpabc/tree/usr"
    half.mkdir(parents=True)
    (half / "file").write_text("x")
    in_store(tmp_path, lambda store: asyncio.sleep(0))


def test_lost_layer_is_made_again(host: str, tmp_path: Path) -> None:
    """From the blob that is still here, without the registry's help."""
    reference = busybox_image(host, "lost")

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        shutil.rmtree(tmp_path / "layers" / pulled.layers[0])
        assert store.find(reference) is None
        assert await store.pull(reference) == pulled

    in_store(tmp_path, use)
