"""Images from archives and into them: what other tools write is read, what is written others read, lies are refused."""

import asyncio
import gzip
import json
import os
import random
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zstandard
from tinyo.runtime.v1 import runtime_pb2 as pb
from tinyo.v1 import image_pb2
from tinyo.v1.image_pb2 import ImportSpec, PullProgress
from tinyo_runtime import archivecalls
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, audit, disk, export, headroom, names, receiving
from tinyo_runtime.images.imports import import_images
from tinyo_runtime.images.marks import Limits
from tinyo_runtime.images.prune import InUse, prune

from tests.support import stores
from tests.support.archives import encoded, members, oci_archive, place, saved
from tests.support.images import (
    INDEX,
    MANIFEST,
    all_kinds,
    busybox,
    busybox_image,
    busybox_layer,
    digest,
    file,
    folder,
    hard_link,
    image,
    index,
    layer,
    skopeo,
    symlink,
    write_layout,
)

T = TypeVar("T")
SMALL = layer(file("etc/motd", b"hello"))


def in_store(root: Path, use: Callable[[ImageStore], Awaitable[T]]) -> T:
    """The same; also when it fails, nothing unfinished is left, and no descriptor."""
    files = len(os.listdir("/proc/self/fd"))
    try:
        return stores.in_store(root, use)
    finally:
        assert os.listdir(root / "pulling") == []
        assert len(os.listdir("/proc/self/fd")) == files


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def taken(store: ImageStore, data: bytes, *references: str, **spec: Any) -> list[Image]:
    """What an import makes of an archive."""
    wanted = ImportSpec(references=references, **spec)
    return [one async for one in import_images(store, wanted, pieces(data), None)]


def imported(root: Path, data: bytes, *references: str, **spec: Any) -> list[Image]:
    return in_store(root, lambda store: taken(store, data, *references, **spec))


def refused(root: Path, data: bytes, *references: str, **spec: Any) -> TinyoError:
    """Why an archive is not imported; nothing of it may be left."""
    with pytest.raises((TinyoError, OSError)) as caught:
        imported(root, data, *references, **spec)
    assert os.listdir(root / "pulling") == [] == os.listdir(root / "layers")
    assert os.listdir(root / "images/blobs/sha256") == []
    assert json.loads((root / "images/index.json").read_bytes())["manifests"] == []
    return TinyoError.of(caught.value)


async def exported(store: ImageStore, *references: str) -> bytes:
    with export.opened(store, references) as archive:
        data = b"".join([chunk async for chunk in archive.chunks()])
        assert len(data) == archive.size
        return data


async def problems(store: ImageStore) -> list[str]:
    return [one.message async for finding in audit.audit(store, [], ()) for one in finding.problems]


def packings(data: bytes) -> dict[str, bytes]:
    half = len(data) // 2
    frames = zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    return {"plain": data, "gzip": gzip.compress(data, 1), "zstd": frames}


def test_sha512(tmp_path: Path) -> None:
    """Also of a layer that is large enough to be a file of its own where it is taken in."""
    layers = [layer(file("big", os.urandom(2 << 20))), layer(file("small", b"x"))]
    (one,) = imported(tmp_path, oci_archive(image(layers, algorithm="sha512"), "localhost/app:1"))
    assert len(one.layers) == 2
    assert in_store(tmp_path, problems) == []


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_every_packing_of_a_layout(tmp_path: Path, packing: str) -> None:
    built = all_kinds()
    data = packings(oci_archive(built, "localhost/app:1"))[packing]

    async def use(store: ImageStore) -> None:
        (one,) = await taken(store, data)
        assert one.digest == built.descriptor["digest"] and one.references == ("localhost/app:1",)
        assert (tmp_path / "layers" / one.layers[0] / "linked").read_bytes() == b"linked"
        assert store.find("localhost/app:1") == one and await problems(store) == []

    in_store(tmp_path, use)


def test_what_skopeo_writes(tmp_path: Path) -> None:
    """As a layout and as docker's: the layers are the same folders, unpacked once."""
    write_layout(busybox([SMALL], User="nobody"), tmp_path / "source", "x")
    for kind, name in (("oci-archive", "one"), ("docker-archive", "two")):
        skopeo("copy", f"oci:{tmp_path}/source:x", f"{kind}:{tmp_path}/{kind}.tar:docker.io/library/{name}:1")

    async def use(store: ImageStore) -> None:
        (one,) = await taken(store, (tmp_path / "oci-archive.tar").read_bytes())
        before = [(tmp_path / "state/layers" / name).stat().st_ctime_ns for name in one.layers]
        (two,) = await taken(store, (tmp_path / "docker-archive.tar").read_bytes())
        assert one.references == ("docker.io/library/one:1",) and two.references == (
            "docker.io/library/two:1",
        )
        assert one.layers == two.layers and one.config == two.config and one.config.user == "nobody"
        assert before == [(tmp_path / "state/layers" / name).stat().st_ctime_ns for name in one.layers]
        assert await problems(store) == []

    in_store(tmp_path / "state", use)


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_what_docker_saved(tmp_path: Path, packing: str) -> None:
    """The old form: a layer twice is a link, names are not complete, the configuration stays as it is."""
    archive = saved([busybox_layer(), SMALL, busybox_layer()], ["app:1", "x.test/team/app:2"], {"Cmd": ["a"]})

    async def use(store: ImageStore) -> None:
        (one,) = await taken(store, packings(archive)[packing])
        assert one.references == ("docker.io/library/app:1", "x.test/team/app:2")
        assert one.config.cmd == ("a",) and len(one.layers) == 2 and one.platform == "linux/amd64"
        assert store.find("app:1") == store.find("x.test/team/app:2")
        configuration = next(name for name in members(archive) if name.endswith(".json"))
        assert (store.blob(f"sha256:{configuration[:-5]}")).exists()
        again = await taken(store, archive, f"sha256:{configuration[:14]}", name="again")
        assert again[0].digest == one.digest and again[0].references == ("docker.io/library/again:latest",)
        assert await problems(store) == []

    in_store(tmp_path, use)


def test_compressed_layers_in_what_others_save_for_docker(tmp_path: Path) -> None:
    layers = [SMALL, layer(file("two")), layer(file("three"))]
    packed = [gzip.compress(layers[0]), zstandard.compress(layers[1]), layers[2]]
    configuration = {"rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]}}
    manifest = [{"Config": "c", "RepoTags": ["a"], "Layers": ["./0", "x/1.tar.zst", "2"]}]
    archive = layer(
        file("manifest.json", encoded(manifest)),
        file("./c", encoded(configuration)),
        file("0", packed[0]),
        file("./x/1.tar.zst", packed[1]),
        hard_link("2", "x/2"),
    )
    message = refused(tmp_path, archive).message
    assert "'2' is missing, or a link to what is not in it" in message
    manifest[0]["Layers"] = ["0", "x/1.tar.zst", "link"]
    archive = layer(
        file("manifest.json", encoded(manifest)),
        file("c", encoded(configuration)),
        file("0", packed[0]),
        file("x/1.tar.zst", packed[1]),
        file("2", packed[2]),
        hard_link("link", "./2"),
    )
    (one,) = imported(tmp_path, archive)
    assert len(one.layers) == 3


def test_what_docker_saves_now(tmp_path: Path) -> None:
    """A layout and the old manifest.json in one; the annotation of containerd has the complete name."""
    built = busybox([SMALL])
    annotations = {
        "io.containerd.image.name": "docker.io/team/app:7",
        "org.opencontainers.image.ref.name": "7",
    }
    entry = built.descriptor | {"annotations": annotations}
    old = file("manifest.json", encoded([{"Config": "x", "RepoTags": ["team/app:7"], "Layers": []}]))
    (one,) = imported(tmp_path, oci_archive(built, index={"manifests": [entry]}, extra=[old]))
    assert one.references == ("docker.io/team/app:7",)


def several() -> tuple[bytes, list[str]]:
    builts = [busybox(), busybox([SMALL]), image([SMALL])]
    everything = builts[0]
    for one in builts:
        everything.blobs.update(one.blobs)
    entries = [
        one.descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}
        for one, name in zip(builts, ("a:1", "b", "c.test/c:3"), strict=True)
    ]
    digests = [one.descriptor["digest"] for one in builts]
    return oci_archive(everything, index={"manifests": entries}), digests


def test_several_images_and_some_of_them(tmp_path: Path) -> None:
    archive, digests = several()
    all_of_them = imported(tmp_path / "all", archive)
    assert [one.digest for one in all_of_them] == digests
    complete = ("docker.io/library/a:1", "docker.io/library/b:latest", "c.test/c:3")
    assert tuple(one.references[0] for one in all_of_them) == complete
    some = imported(tmp_path / "some", archive, "docker.io/library/b", digests[2])
    assert [one.digest for one in some] == digests[1:]
    (named,) = imported(tmp_path / "named", archive, "a:1", name="mine:2")
    assert named.references == ("docker.io/library/mine:2",)
    error = refused(tmp_path / "none", archive, "a:1", "a:2")
    assert (error.reason, error.metadata) == ("IMAGE_NOT_FOUND", {"reference": "a:2"})
    assert "which has a:1; b; c.test/c:3" in error.message
    long = saved([SMALL], [f"{'x' * 200}:{number}" for number in range(999)])
    assert len(refused(tmp_path / "none", long, "y").message) < 700
    error = refused(tmp_path / "none", archive, name="one")
    assert error.reason == "INVALID_SPEC" and "say which of these" in error.message
    assert refused(tmp_path / "none", archive, "A:1").reason == "IMAGE_REFERENCE_INVALID"
    assert refused(tmp_path / "none", archive, name="x@" + digests[0]).reason == "IMAGE_REFERENCE_INVALID"


def test_an_image_without_a_name_gets_one(tmp_path: Path) -> None:
    for archive in (oci_archive(image([SMALL])), saved([SMALL], None), saved([SMALL], [])):
        error = refused(tmp_path / "none", archive)
        assert error.reason == "INVALID_SPEC" and "has no name in the archive" in error.message
        (one,) = imported(tmp_path / "some", archive, name="some")
        assert one.references == ("docker.io/library/some:latest",)


def test_platforms(tmp_path: Path) -> None:
    """Of an index the fitting one; what is alone is taken whatever it is for, unless somebody asks."""
    images = [image([layer(file(name))], architecture=name) for name in ("arm64", "amd64", "s390x")]
    digests = [one.descriptor["digest"] for one in images]
    nested = oci_archive(index(images, attested=True), "app:1")
    assert imported(tmp_path / "a", nested)[0].digest == digests[1]
    assert imported(tmp_path / "a", nested, platform="linux/arm64")[0].digest == digests[0]
    error = refused(tmp_path / "none", nested, platform="linux/riscv64")
    assert error.reason == "IMAGE_PLATFORM_MISSING"
    entries = [one.descriptor | {"annotations": {"io.containerd.image.name": "x:1"}} for one in images]
    flat = oci_archive(index(images), index={"manifests": entries})
    assert [one.digest for one in imported(tmp_path / "b", flat)] == [digests[1]]
    assert imported(tmp_path / "b", flat, platform="linux/s390x")[0].digest == digests[2]
    assert [one.digest for one in imported(tmp_path / "d", oci_archive(NESTED, "x"))] == [MANIFEST_DIGEST]
    alone = oci_archive(images[0], "x:1")
    assert imported(tmp_path / "c", alone)[0].platform == "linux/arm64"
    error = refused(tmp_path / "none", alone, platform="linux/amd64")
    assert error.reason == "IMAGE_PLATFORM_MISSING"


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_a_root_file_system(tmp_path: Path, packing: str) -> None:
    """However it is packed, it is the same layer; a file that docker would have in an archive makes it no image."""
    tree = layer(folder("./"), file("./etc/motd", b"hello"), file("./manifest.json", b'{"name": "app"}'))
    changes = ["CMD ls -l", 'ENTRYPOINT ["/bin/sh", "-c"]', "env A=b", "WORKDIR /etc", "USER nobody:nobody"]
    data = packings(tree)[packing]
    (one,) = imported(tmp_path, data, name="base", changes=changes, platform="linux/arm/v7")
    config = one.config
    assert (config.entrypoint, config.cmd) == (("/bin/sh", "-c"), ("/bin/sh", "-c", "ls -l"))
    assert (config.env, config.workdir, config.user) == (("A=b",), "/etc", "nobody:nobody")
    assert one.references == ("docker.io/library/base:latest",) and one.platform == "linux/arm/v7"
    assert one.layers == (digest(tree)[7:39],)
    assert (tmp_path / "layers" / one.layers[0] / "etc/motd").read_bytes() == b"hello"
    assert in_store(tmp_path, problems) == []


def test_a_root_file_system_with_very_many_files(tmp_path: Path) -> None:
    """More than an archive of images may have."""
    tree = layer(*[file(f"{number}") for number in range(21_000)])
    (one,) = imported(tmp_path, tree, name="many")
    assert len(os.listdir(tmp_path / "layers" / one.layers[0])) == 21_000


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_large_members_are_put_together_again(tmp_path: Path, packing: str) -> None:
    """A root file system with archives in it, which could be layers of images; what pads them may be anything."""
    parts = {
        name: os.urandom(size) for name, size in (("blobs/x", 1 << 20), ("a.tar", 1_500_001), ("b.tgz", 9))
    }
    packed = [file(name, data) for name, data in parts.items()]
    tree = layer(
        file("first", os.urandom(2_000_000)), *packed, file("c.tar", os.urandom(3_000_000)), file("last")
    )
    at = tree.index(parts["a.tar"]) + len(parts["a.tar"])
    tree = tree[:at] + b"#" + tree[at + 1 :] + b"behind its end"
    (one,) = imported(tmp_path, packings(tree)[packing], name="x")
    assert (tmp_path / "images/blobs" / digest(tree).replace(":", "/")).read_bytes() == tree
    for name, data in parts.items():
        assert (tmp_path / "layers" / one.layers[0] / name).read_bytes() == data


def test_a_large_layer_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blob is the file that it was received in, for as long as it is needed; lies about it are found all the same."""
    big = layer(file("big", os.urandom(3_000_000)))
    built = busybox([big])
    linked: list[os.stat_result] = []

    def link(descriptor: int, path: Path) -> None:
        linked.append(os.fstat(descriptor))
        real(descriptor, path)

    real = disk.link
    monkeypatch.setattr(disk, "link", link)
    for archive in (oci_archive(built, "x"), saved([busybox_layer(), big], ["y"])):
        imported(tmp_path / str(len(archive)), archive)
        blobs = [path.stat() for path in (tmp_path / str(len(archive)) / "images/blobs/sha256").iterdir()]
        assert {one.st_ino for one in linked} <= {one.st_ino for one in blobs}
        assert all(one.st_nlink == 1 and stat.S_IMODE(one.st_mode) == 0o644 for one in blobs)
        assert linked
        linked.clear()
    key = json.loads(built.blobs[built.descriptor["digest"]])["layers"][1]["digest"]
    built.blobs[key] = built.blobs[key][:-100] + bytes(100)
    error = refused(tmp_path / "none", oci_archive(built, "x"))
    assert error.reason == "IMAGE_CORRUPT"
    error = refused(tmp_path / "none", saved([big], ["y"]).replace(big[5000:5100], bytes(100)))
    assert error.reason == "IMAGE_CORRUPT" and f"expected {digest(big)}, got" in error.message
    assert linked


def test_a_root_file_system_needs_a_name_and_sense(tmp_path: Path) -> None:
    assert "give it one name with --name" in refused(tmp_path, SMALL).message
    error = refused(tmp_path, SMALL, name="x", changes=["CMD a", "RUN rm -rf /"])
    assert (error.reason, error.metadata) == ("CHANGE_INVALID", {"change": "RUN rm -rf /"})
    assert refused(tmp_path, SMALL, name="X").reason == "IMAGE_REFERENCE_INVALID"
    leads_out = layer(file("../out"))
    assert refused(tmp_path, leads_out, name="x").reason == "ARCHIVE_INVALID"
    through = layer(symlink("a", "/etc"), file("a/motd"))
    assert refused(tmp_path, through, name="x").reason == "IMAGE_CORRUPT"
    error = refused(tmp_path, oci_archive(image([SMALL]), "x"), changes=["CMD a"])
    assert "only a root file system can be changed" in error.message


GOOD = image([SMALL])


def lying(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A layout whose manifest somebody changed, so that its digest is right."""
    manifest = json.loads(GOOD.blobs[GOOD.descriptor["digest"]])
    changed = encoded(change(manifest) or manifest)
    entry = {"mediaType": MANIFEST, "digest": digest(changed), "size": len(changed)}
    return oci_archive(
        GOOD,
        index={"manifests": [entry | {"annotations": {"io.containerd.image.name": "x"}}]},
        extra=[file(place(digest(changed)), changed)],
    )


def without(key: str) -> bytes:
    """A layout that lacks a blob."""
    return oci_archive(type(GOOD)(GOOD.descriptor, {k: v for k, v in GOOD.blobs.items() if k != key}), "x")


def damaged(key: str) -> bytes:
    """A layout in which a blob is not what it should be."""
    blobs = GOOD.blobs | {key: GOOD.blobs[key][:-1] + b"#"}
    return oci_archive(type(GOOD)(GOOD.descriptor, blobs), "x")


MANIFEST_DIGEST = GOOD.descriptor["digest"]
CONFIG_DIGEST = json.loads(GOOD.blobs[MANIFEST_DIGEST])["config"]["digest"]
LAYER_DIGEST = json.loads(GOOD.blobs[MANIFEST_DIGEST])["layers"][0]["digest"]
INNER = index([GOOD])
INNER.descriptor["platform"] = {"os": "linux", "architecture": "amd64"}
NESTED = index([INNER])
NESTED.descriptor["platform"] = INNER.descriptor["platform"]
ENTRY = GOOD.descriptor | {"annotations": {"io.containerd.image.name": "x"}}

#: Archives that cannot be meant, with what is said of them.
LIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is empty"),
    "zeros": (lambda: bytes(10240), "nothing is in it"),
    "text": (lambda: b"no archive at all" * 100, "not a tar archive"),
    "short": (lambda: b"no", "the archive ends in the middle"),
    "xz": (lambda: b"\xfd7zXZ\x00" + bytes(100), "compressed by xz"),
    "bzip2": (lambda: b"BZh9" + bytes(100), "compressed by bzip2"),
    "gzip cut off": (lambda: gzip.compress(oci_archive(GOOD, "x"))[:-500], "archive cannot be used"),
    "gzip damaged": (
        lambda: gzip.compress(random.Random(1).randbytes(9999))[:-8] + bytes(8),
        "cannot be used",
    ),
    "zstd cut off": (lambda: zstandard.compress(oci_archive(GOOD, "x"))[:-1], "ends in the middle"),
    "zstd between two frames": (lambda: zstandard.compress(SMALL) + b"\x28\xb5", "ends in the middle"),
    "zstd and then something": (lambda: zstandard.compress(SMALL) + b"something", "zstd: "),
    "tar cut off": (lambda: oci_archive(GOOD, "x")[:1600], "ends in the middle"),
    "leads out": (lambda: oci_archive(GOOD, "x", extra=[file("../../etc/cron.d/x")]), "leads out of it"),
    "gzip bomb": (lambda: gzip.compress(bytes(1 << 20)) * 400, "it unpacks to more than"),
    "zstd bomb": (lambda: zstandard.compress(bytes(300 << 20)), "it unpacks to more than"),
    "twice": (
        lambda: oci_archive(GOOD, "x", extra=[file("index.json", b"{}")]),
        "'index.json' is in it twice",
    ),
    "many members": (
        lambda: oci_archive(GOOD, "x", extra=[file(f"f{n}") for n in range(20_001)]),
        "more members than",
    ),
    "very many members": (
        lambda: oci_archive(GOOD, "../x", extra=[file(f"f{n}") for n in range(19_000)]),
        "which is no name",
    ),
    "many images": (
        lambda: oci_archive(GOOD, index={"manifests": [ENTRY] * 501}),
        "501 images are more than",
    ),
    "many names": (
        lambda: saved([SMALL], [f"n:{number}" for number in range(1001)]),
        "1001 names of images are more than",
    ),
    "no index": (lambda: oci_archive(GOOD, index=None), "'index.json' is missing"),
    "in a folder": (
        lambda: layer(*[file(f"a/{name}", data) for name, data in members(oci_archive(GOOD, "x")).items()]),
        "the layout is in its folder 'a'",
    ),
    "no images": (lambda: oci_archive(GOOD, index={"manifests": []}), "no image is in it"),
    "not JSON": (lambda: oci_archive(GOOD, index=b"{]"), "'index.json' is not JSON"),
    "deep JSON": (lambda: oci_archive(GOOD, index=b"[" * 100_000), "'index.json' is not JSON"),
    "giant JSON": (lambda: oci_archive(GOOD, index=b" " * (5 << 20)), "'index.json' has 5242880 bytes"),
    "a list": (lambda: oci_archive(GOOD, index=[1]), "'index.json': 'manifests' is missing"),
    "numbers": (lambda: oci_archive(GOOD, index={"manifests": [7]}), "'index.json': 'digest' is missing"),
    "no digest": (
        lambda: oci_archive(GOOD, index={"manifests": [ENTRY | {"digest": "../x"}]}),
        "is no digest",
    ),
    "no name": (lambda: oci_archive(GOOD, "../../x"), "'../../x', which is no name"),
    "escapes": (lambda: oci_archive(GOOD, "\x1b[2J"), r"which is no name"),
    "a name with a digest": (lambda: oci_archive(GOOD, f"x@{MANIFEST_DIGEST}"), "which is no name"),
    "manifest missing": (lambda: without(MANIFEST_DIGEST), f"'{place(MANIFEST_DIGEST)}' is missing"),
    "manifest damaged": (lambda: damaged(MANIFEST_DIGEST), f"'{place(MANIFEST_DIGEST)}' is not intact"),
    "configuration missing": (lambda: without(CONFIG_DIGEST), f"'{place(CONFIG_DIGEST)}' is missing"),
    "configuration damaged": (lambda: damaged(CONFIG_DIGEST), f"'{place(CONFIG_DIGEST)}' is not intact"),
    "layer missing": (lambda: without(LAYER_DIGEST), f"'{place(LAYER_DIGEST)}' is missing"),
    "layer damaged": (lambda: damaged(LAYER_DIGEST), f"{LAYER_DIGEST}"),
    "manifest is a list": (lambda: lying(lambda one: [one]), "it is not a JSON object"),
    "no layers": (lambda: lying(lambda one: {"config": one["config"]}), "'layers' is missing"),
    "too many layers": (lambda: lying(lambda one: one | {"layers": one["layers"] * 501}), "501 layers"),
    "layer of another size": (
        lambda: lying(lambda one: one | {"layers": [one["layers"][0] | {"size": 5}]}),
        "is larger than 5 bytes",
    ),
    "negative size": (
        lambda: lying(lambda one: one | {"layers": [one["layers"][0] | {"size": -5}]}),
        "and size -5",
    ),
    "layer of another type": (
        lambda: lying(lambda one: one | {"layers": [one["layers"][0] | {"mediaType": "image/png"}]}),
        "'image/png'",
    ),
    "no image": (
        lambda: lying(lambda one: one | {"config": one["config"] | {"mediaType": "x/helm"}}),
        "x/helm",
    ),
    "indexes, one in the other": (lambda: oci_archive(index([NESTED]), "x"), "is not made for"),
    "index of itself": (
        lambda: oci_archive(GOOD, index={"manifests": [ENTRY | {"mediaType": INDEX}, {"digest": 5}]}),
        "'digest' is missing",
    ),
    "link out": (
        lambda: oci_archive(GOOD, index=None, extra=[symlink("index.json", "/etc/passwd")]),
        "'index.json' is missing, or a link",
    ),
    "links in a circle": (
        lambda: oci_archive(
            GOOD,
            index=None,
            extra=[symlink("index.json", "a"), symlink("a", "b"), hard_link("b", "index.json")],
        ),
        "'index.json' is a link to a link",
    ),
    "sparse": (
        lambda: oci_archive(
            GOOD,
            index=None,
            extra=[
                file(
                    "index.json",
                    b"0\n" + bytes(510),
                    pax_headers={
                        "GNU.sparse.major": "1",
                        "GNU.sparse.minor": "0",
                        "GNU.sparse.realsize": "1099511627776",
                    },
                )
            ],
        ),
        "'index.json' is a sparse file",
    ),
    "docker: no configuration": (
        lambda: saved([SMALL], ["x"], Config="../../etc/passwd"),
        "'../../etc/passwd'",
    ),
    "docker: layers elsewhere": (
        lambda: saved([SMALL], ["x"], Layers=["/etc/passwd"]),
        "'/etc/passwd' is missing",
    ),
    "docker: more layers": (lambda: saved([SMALL], ["x"], Layers=[]), "has 1 diff IDs for 0 layers"),
    "docker: layers of another type": (lambda: saved([SMALL], ["x"], Layers=[5]), "'Layers' is not a list"),
    "docker: another layer": (
        lambda: saved([SMALL], ["x"]).replace(b"hello", b"jello"),
        f"expected {digest(SMALL)}, got",
    ),
    "docker: not JSON": (lambda: layer(file("manifest.json", b"[")), "'manifest.json' is not JSON"),
    "docker: no image": (lambda: layer(file("manifest.json", b"[]")), "no image is in it"),
    "docker: a long name": (
        lambda: saved([SMALL], ["x"], Config="x" * 9999),
        "…' is missing",
    ),
    "docker: a long name with nonsense": (
        lambda: layer(
            file("manifest.json", encoded([{"Config": "c/" * 9999 + "c", "Layers": []}])),
            file("c/" * 9999 + "c", b"[]"),
        ),
        "…': 'rootfs' is missing",
    ),
    "half of a surrogate pair": (lambda: oci_archive(GOOD, "\ud800" * 999), "which is no name"),
    "docker: names of another type": (
        lambda: saved([SMALL], ["x"], RepoTags=[{}]),
        "'RepoTags' is not a list",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(tmp_path: Path, lie: str) -> None:
    make, said = LIES[lie]
    error = refused(tmp_path, make())
    reasons = ("ARCHIVE_INVALID", "IMAGE_CORRUPT", "IMAGE_UNSUPPORTED", "IMAGE_PLATFORM_MISSING")
    assert error.reason in reasons, error
    assert said in error.message and "\x1b" not in error.message and len(error.message) < 700


def test_a_scanner_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["/bin/false"], ["/bin/echo"], ["/bin/sh", "-c", "kill -9 $$"]):
        monkeypatch.setattr(receiving, "SCAN", command)
        error = refused(tmp_path, oci_archive(GOOD, "x"))
        assert error.reason == "INTERNAL" and "the archive" in error.message


def test_what_arrives_byte_by_byte(tmp_path: Path) -> None:
    data = gzip.compress(oci_archive(GOOD, "x"))

    async def use(store: ImageStore) -> None:
        images = [one async for one in import_images(store, ImportSpec(), pieces(data, 1), None)]
        assert [one.digest for one in images] == [MANIFEST_DIGEST]

    in_store(tmp_path, use)


def test_an_import_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    data = oci_archive(image([layer(file("big", os.urandom(20_000_000)))]), "x")

    async def use(store: ImageStore, until: int) -> None:
        begun, never = asyncio.Event(), asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield data[:until]
            begun.set()
            if until < len(data):
                await never.wait()

        async def work() -> None:
            async for _ in import_images(store, ImportSpec(), stalled(), lambda _: began.set()):
                pass

        began = asyncio.Event()
        task = asyncio.create_task(work())
        await (began if until == len(data) else begun).wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.list() == [] == os.listdir(tmp_path / "layers")
        assert os.listdir(tmp_path / "images/blobs/sha256") == []

    in_store(tmp_path, lambda store: use(store, 10_000_000))
    in_store(tmp_path, lambda store: use(store, len(data)))
    assert imported(tmp_path, data)


def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is told as that, and leaves nothing; what fits does afterwards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], check=True)
    try:
        in_store(disk, lambda store: asyncio.sleep(0))
        for size in (7, 20):  # room for the archive, but not for its layer; not even for that
            big = layer(file("big", os.urandom(size << 20)))
            error = refused(disk, oci_archive(image([big]), "x"))
            assert error.reason == "DISK_FULL", error
            assert refused(disk, big, name="x").reason == "DISK_FULL"
        assert imported(disk, oci_archive(GOOD, "x"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_imports_leave_a_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while it comes: nobody sends all of it for nothing."""
    monkeypatch.setattr(headroom, "INTERVAL", 0)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], check=True)
    try:

        async def use(store: ImageStore) -> None:
            store.limits = Limits(reserve_percent=60)
            sent = 0

            async def counted() -> AsyncIterator[bytes]:
                nonlocal sent
                async for piece in pieces(layer(file("big", os.urandom(28 << 20)))):
                    sent += len(piece)
                    yield piece

            with pytest.raises(TinyoError, match="disk_reserve"):
                async for _ in import_images(store, ImportSpec(name="x"), counted(), lambda _: None):
                    pass
            assert 10 << 20 < sent < 20 << 20
            store.trash.emptied()
            assert os.listdir(disk / "pulling") == []
            assert await taken(store, oci_archive(GOOD, "x"))

        in_store(disk, use)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_at_the_same_time(host: str, tmp_path: Path) -> None:
    """Imports of one archive, a pull of the same image, and a prune do not harm each other."""
    big = [layer(file("big", os.urandom(5_000_000)))]
    reference = busybox_image(host, "same", big)
    archive = oci_archive(busybox(big), reference)

    async def use(store: ImageStore) -> None:
        async def clear() -> None:
            for _ in range(10):
                await prune(store, InUse, all=False, dry_run=False)
                await asyncio.sleep(0.01)

        images = [taken(store, archive), taken(store, archive), taken(store, archive, name="other")]
        pulls = asyncio.gather(*images)
        pulled, lists, _ = await asyncio.gather(store.pull(reference), pulls, clear())
        assert {one.digest for (one,) in lists} == {pulled.digest}
        assert await problems(store) == [] and len(store.list()) == 1
        assert store.list()[0].references == (reference, "docker.io/library/other:latest")

    in_store(tmp_path, use)


def test_export_is_read_by_others(tmp_path: Path) -> None:
    """As a layout and as docker's archive by skopeo, as a layout by umoci, and by us."""
    archive, digests = several()

    async def use(store: ImageStore) -> bytes:
        await taken(store, archive)
        everything = await exported(store, "c.test/c:3", "a:1", "b", "a:1")
        assert everything == await exported(store, "b", "a:1", digests[2])
        return everything

    data = in_store(tmp_path / "state", use)
    (tmp_path / "out.tar").write_bytes(data)
    files = members(data)
    assert [*files][:3] == ["oci-layout", "index.json", "manifest.json"]
    assert len([name for name in files if name.startswith("blobs/")]) == 3 + 3 + 2  # layers are shared
    names_there = {one["digest"]: one["annotations"] for one in json.loads(files["index.json"])["manifests"]}
    assert set(names_there) == set(digests)
    for key, name in zip(
        digests, ("docker.io/library/a:1", "docker.io/library/b:latest", "c.test/c:3"), strict=True
    ):
        assert set(names_there[key].values()) == {name}
        for source in (f"oci-archive:{tmp_path}/out.tar:{name}", f"docker-archive:{tmp_path}/out.tar:{name}"):
            skopeo("copy", source, f"oci:{tmp_path}/{source[:3]}:{name}")
    assert json.loads(skopeo("inspect", f"oci:{tmp_path}/oci:c.test/c:3"))["Digest"] == digests[2]
    assert {one.digest for one in imported(tmp_path / "again", data)} == set(digests)
    subprocess.run(["tar", "-xf", tmp_path / "out.tar", "-C", tmp_path / "again"], check=True)
    command = ["umoci", "unpack", "--image", f"{tmp_path}/again:c.test/c:3", str(tmp_path / "bundle")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/etc/motd").read_bytes() == b"hello"


def test_export_of_what_is_not_whole(tmp_path: Path) -> None:
    async def use(store: ImageStore) -> None:
        await taken(store, oci_archive(GOOD, "x"))
        with pytest.raises(TinyoError, match="y is not here"):
            await exported(store, "x", "y")
        with pytest.raises(TinyoError, match="say which"):
            await exported(store)
        blob = store.blob(LAYER_DIGEST)
        intact = blob.read_bytes()
        blob.write_bytes(intact[:-1] + b"#")
        with pytest.raises(TinyoError, match=f"blob {LAYER_DIGEST} is missing or damaged"):
            await exported(store, "x")
        blob.write_bytes(intact[:-1])
        with pytest.raises(TinyoError, match="is missing or damaged") as caught, export.opened(store, ["x"]):
            pass
        assert caught.value.reason == "IMAGE_CORRUPT"
        blob.unlink()
        with pytest.raises(TinyoError, match="is missing or damaged"), export.opened(store, ["x"]):
            pass
        await taken(store, oci_archive(GOOD, "x"))  # heals it
        assert (await exported(store, "x")) and names.entries(store)

    in_store(tmp_path, use)


def test_what_is_removed_meanwhile_is_exported_still(tmp_path: Path) -> None:
    async def use(store: ImageStore) -> bytes:
        await taken(store, oci_archive(GOOD, "x"))
        with export.opened(store, ["x"]) as archive:
            store.remove("x")
            return b"".join([chunk async for chunk in archive.chunks()])

    data = in_store(tmp_path / "state", use)
    assert imported(tmp_path / "again", data)[0].digest == MANIFEST_DIGEST


def test_progress_that_nobody_took_is_replaced() -> None:
    """A client that does not read costs no memory, and misses no image."""

    async def use() -> list[str]:
        answers, told = archivecalls.Answers(), list[str]()
        for number in range(2):
            for count in range(1000):
                progress = PullProgress(reference=f"{number}-{count}")
                answers.put(pb.ImportImagesResponse(progress=progress))
            answers.put(pb.ImportImagesResponse(image=image_pb2.Image(digest=f"image {number}")))
        answers.put(None)
        while answer := await answers.get():
            told.append(answer.progress.reference or answer.image.digest)
        return told

    assert asyncio.run(use()) == ["0-999", "image 0", "1-999", "image 1"]
