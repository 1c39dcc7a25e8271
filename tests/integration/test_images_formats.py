"""Whatever form an image has: compressions, digests, platforms, indexes; and what is refused by name."""

import asyncio
import gzip
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, audit, platforms, usage
from tinyo_runtime.images.choice import MAX_NESTED
from tinyo_runtime.images.platforms import Platform
from tinyo_runtime.images.prune import InUse, prune

from tests.support.images import (
    GZIP,
    INDEX,
    MANIFEST,
    Built,
    Member,
    busybox,
    busybox_image,
    digest,
    file,
    folder,
    image,
    index,
    layer,
    push,
    skopeo,
    write_layout,
)
from tests.support.liar import Lie, liar, send
from tests.support.registry import requests, served
from tests.support.stores import in_store

TAR, ZSTD = GZIP.removesuffix("+gzip"), GZIP.replace("+gzip", "+zstd")


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this machine one of another level, "v3" and the like."""

    def of(variant: str) -> None:
        monkeypatch.setattr(platforms, "host", lambda: Platform("linux", "amd64", variant))

    return of


def pull(root: Path, reference: str, platform: str = "", *, refresh: bool = False) -> Image:
    return in_store(root, lambda store: store.pull(reference, platform, refresh=refresh))


def told(root: Path, built: Built, platform: str = "") -> TinyoError:
    """What is said of an image that is refused; nothing of it is kept."""
    with served(liar(built)) as address, pytest.raises(TinyoError) as caught:
        pull(root, f"{address}/x:1", platform)
    assert os.listdir(root / "layers") == [] == os.listdir(root / "images/blobs/sha256")
    return caught.value


def changed(built: Built, change: Callable[[dict[str, Any]], object], config: bool = False) -> Built:
    """The image with another manifest, or another configuration."""
    manifest = json.loads(built.blobs.pop(built.descriptor["digest"]))
    part = json.loads(built.blobs.pop(manifest["config"]["digest"])) if config else manifest
    change(part)
    if config:
        data = json.dumps(part).encode()
        built.blobs[digest(data)] = data
        manifest["config"] |= {"digest": digest(data), "size": len(data)}
    data = json.dumps(manifest).encode()
    built.blobs[digest(data)] = data
    built.descriptor |= {"digest": digest(data), "size": len(data)}
    return built


def of_platform(name: str, variant: str = "") -> Built:
    return image([layer(file("which", f"{name}/{variant}".encode()))], architecture=name, variant=variant)


def which(root: Path, pulled: Image) -> str:
    return (root / "layers" / pulled.layers[0] / "which").read_text()


# --- compressions


def test_zstd_chunked(host: str, tmp_path: Path) -> None:
    """As podman writes it: a frame for each file, and what tells where they are in frames that are skipped."""
    content = os.urandom(300_000)
    archive = layer(folder("d"), file("d/a", content), file("d/b", b"b" * 512)).rstrip(b"\0") + bytes(1024)
    built = image([archive], media_type=TAR)
    write_layout(built, tmp_path / "source")
    reference = f"{host}/chunked:1"
    options = ("--dest-compress-format", "zstd:chunked", "--dest-tls-verify=false")
    skopeo("copy", *options, f"oci:{tmp_path}/source:image", f"docker://{reference}")
    pulled = pull(tmp_path / "s", reference)
    manifest = json.loads((tmp_path / "s/images/blobs" / pulled.digest.replace(":", "/")).read_bytes())
    (described,) = manifest["layers"]
    assert described["mediaType"] == ZSTD
    assert "io.containers.zstd-chunked.manifest-checksum" in described["annotations"]
    assert (tmp_path / "s/layers" / pulled.layers[0] / "d/a").read_bytes() == content
    assert (tmp_path / "s/layers" / pulled.layers[0] / "d/b").read_bytes() == b"b" * 512


def stargz(*members: Member) -> tuple[bytes, bytes]:
    """A layer as stargz-snapshotter writes it (docs/estargz.md), and the archive in it: each entry a member of gzip
    by itself, a table of contents as the last file, and an empty member in whose header stands where that begins."""
    table = json.dumps({"version": 1, "entries": []}).encode()
    packed = plain = b""
    for info, data in [*members, file("stargz.index.json", table)]:
        at = len(packed)
        buffer = io.BytesIO()
        tarfile.TarFile(fileobj=buffer, mode="w").addfile(info, io.BytesIO(data))
        plain += buffer.getvalue()
        packed += gzip.compress(buffer.getvalue(), mtime=0)
    end = bytes(1024)
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % at
    footer = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    footer += b"\x01\x00\x00\xff\xff" + bytes(8)
    assert len(footer) == 51
    return packed + gzip.compress(end, mtime=0) + footer, plain + end


def packed(data: bytes, archive: bytes, media_type: str) -> Built:
    """An image of one layer that is compressed already."""
    built = changed(image([data], media_type=TAR), lambda one: one["layers"][0].update(mediaType=media_type))
    return changed(built, lambda config: config["rootfs"].update(diff_ids=[digest(archive)]), config=True)


def test_estargz(host: str, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    compressed, archive = stargz(file("no.prefetch.landmark", b"\xf0"), folder("d"), file("d/a", content))
    built = packed(compressed, archive, GZIP)
    pulled = pull(tmp_path / "s", push(built, f"{host}/estargz:1"))
    assert (tmp_path / "s/layers" / pulled.layers[0] / "d/a").read_bytes() == content
    assert (tmp_path / "s/images/blobs" / digest(compressed).replace(":", "/")).exists()


def test_several_members_and_frames(host: str, tmp_path: Path) -> None:
    archive = layer(file("f", b"x" * 100_000))
    parts = [archive[:512], b"", archive[512:70_000], archive[70_000:]]
    skipped = struct.pack("<II", 0x184D2A5F, 3) + b"any"
    members = b"".join(gzip.compress(part) for part in parts)
    frames = b"".join(zstandard.compress(part) + skipped for part in parts)
    for name, data, media_type in (("gzip", members, GZIP), ("zstd", frames, ZSTD)):
        pulled = pull(tmp_path / name, push(packed(data, archive, media_type), f"{host}/{name}:1"))
        assert (tmp_path / name / "layers" / pulled.layers[0] / "f").stat().st_size == 100_000


def test_docker_manifest_list(host: str, tmp_path: Path) -> None:
    """Schema 2, an index of it, and the layers' names in it."""
    write_layout(index([of_platform("arm64"), of_platform("amd64")]), tmp_path / "source")
    target = f"docker://{host}/list:1"
    options = ("--all", "--format=v2s2", "--dest-tls-verify=false")
    skopeo("copy", *options, f"oci:{tmp_path}/source:image", target)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", target)
    assert "manifest.list.v2" in raw
    assert which(tmp_path / "s", pull(tmp_path / "s", f"{host}/list:1")) == "amd64/"


# --- digests


def test_sha512(tmp_path: Path) -> None:
    """From the manifest to the diff IDs; the layout stays whole for us and for others."""
    built = image([layer(file("which", b"x")), layer(file("more", b"y"))], algorithm="sha512")
    named = built.descriptor["digest"]
    with served(liar(built)) as address:

        async def use(store: ImageStore) -> None:
            pulled = await store.pull(f"{address}/x@{named}")
            assert pulled.references == (f"{address}/x@{named}",)
            assert store.find(named) == store.find(named[:30]) == pulled
            assert await store.pull(f"{address}/x@{named}") == pulled
            assert all(len(name) == 32 and (tmp_path / "layers" / name).is_dir() for name in pulled.layers)
            assert len(os.listdir(tmp_path / "images/blobs/sha512")) == 3  # two layers, the configuration
            assert [one.problems async for one in audit.audit(store, (), ())] == [[]]
            assert (await prune(store, InUse, all=False, dry_run=False))[0] == []
            total = await usage.measure(store, InUse())
            files = [path for path in (tmp_path / "images/blobs").rglob("*") if path.is_file()]
            assert total.blobs == sum(path.stat().st_blocks * 512 for path in files)
            assert total.images[0].own == total.blobs + total.layers
            skopeo("inspect", "--raw", f"oci:{tmp_path}/images:{address}/x@{named}")  # it cannot do more
            blob = sorted((tmp_path / "images/blobs/sha512").iterdir(), key=lambda path: path.stat().st_size)[
                0
            ]
            blob.write_bytes(b"damaged")
            ((problem,),) = [one.problems async for one in audit.audit(store, (), ())]
            assert f"sha512:{blob.name} is corrupt: its 7 bytes have the digest sha512:" in problem.message
            await store.pull(f"{address}/x@{named}", refresh=True)
            assert [one.problems async for one in audit.audit(store, (), ())] == [[]]
            store.remove(named)
            assert os.listdir(tmp_path / "images/blobs/sha512") == [] == os.listdir(tmp_path / "layers")

        in_store(tmp_path, use)


@pytest.mark.parametrize("part", ["manifest", "layer", "diff ID"])
def test_sha512_that_is_another(tmp_path: Path, part: str) -> None:
    built = image([layer(file("f", b"x" * 5000))], algorithm="sha512")
    named = built.descriptor["digest"]
    if part == "diff ID":
        other = image([layer(file("f", b"y" * 5000))], algorithm="sha512")
        mine, theirs = (json.loads(one.blobs[one.descriptor["digest"]]) for one in (built, other))
        mine["config"] = theirs["config"]
        data = json.dumps(mine).encode()
        built.blobs |= other.blobs | {(named := digest(data, "sha512")): data}

    def lie(request: Any, body: bytes) -> bool:
        lying = (part == "manifest" and "/manifests/" in request.path) or (
            part == "layer" and body.startswith(b"\x1f\x8b")
        )
        if lying:
            send(request, body[:-1] + b"x")
        return lying

    with served(liar(built, lie)) as address, pytest.raises(TinyoError) as caught:
        pull(tmp_path, f"{address}/x@{named}")
    assert caught.value.reason == "IMAGE_CORRUPT" and caught.value.metadata["expected"].startswith("sha512:")
    assert os.listdir(tmp_path / "layers") == []


def test_tag_and_digest(host: str, tmp_path: Path) -> None:
    """The digest counts; what the tag has become meanwhile does not."""
    first = push(of_platform("amd64"), f"{host}/pinned:1")
    pinned = pull(tmp_path / "a", first)
    push(busybox(), f"{host}/pinned:1")
    both = f"{host}/pinned:1@{pinned.digest}"
    assert pull(tmp_path / "b", both) == pinned._replace(references=(both,))


# --- platforms


@pytest.mark.parametrize(
    ("level", "offered", "chosen"),
    [
        ("v3", ["v1", "v2", "v3", "v4"], "v3"),
        ("v3", ["", "v2"], "v2"),
        ("v4", ["v2", "v3"], "v3"),
        ("v1", ["v3", "", "v2"], ""),
        ("v2", ["v3"], None),
    ],
)
def test_the_best_that_the_processor_can(
    host: str,
    tmp_path: Path,
    processor: Callable[[str], None],
    level: str,
    offered: list[str],
    chosen: str | None,
) -> None:
    processor("" if level == "v1" else level)
    name = f"{host}/levels:{level}-{'-'.join(offered).strip('-')}"
    reference = push(index([of_platform("amd64", one) for one in offered]), name)
    if chosen is None:
        with pytest.raises(TinyoError) as caught:
            pull(tmp_path, reference)
        assert caught.value.reason == "IMAGE_PLATFORM_MISSING"
        assert "not made for linux/amd64/v2, but for linux/amd64/v3" in caught.value.message
        return
    pulled = pull(tmp_path, reference)
    assert which(tmp_path, pulled) == f"amd64/{chosen}"
    assert pull(tmp_path, reference) == pulled


def test_arm_variants(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """The configuration of v5 does not say its variant, as those of older tools: the index does."""
    five = of_platform("arm")
    five.descriptor["platform"] = five.descriptor["platform"] | {"variant": "v5"}
    images = [of_platform("arm", "v7"), five, of_platform("arm", "v6"), of_platform("arm64", "v8")]
    reference = push(index(images), f"{host}/arms:1")
    for asked, got, shown in (
        ("linux/arm/v7", "arm/v7", "linux/arm/v7"),
        ("linux/armel", "arm/v6", "linux/arm/v6"),
        ("linux/arm/v5", "arm/", "linux/arm/v7"),
        ("linux/aarch64", "arm64/v8", "linux/arm64"),
    ):
        root = tmp_path / got.replace("/", "-")
        pulled = pull(root, reference, asked)
        assert (which(root, pulled), pulled.platform) == (got, shown)
        before = requests(registry_folder)
        assert pull(root, reference, asked) == pulled
        assert requests(registry_folder) == before


def test_what_is_here_is_asked_for_again_when_it_is_for_another_platform(host: str, tmp_path: Path) -> None:
    reference = push(index([of_platform("arm64"), of_platform("amd64")]), f"{host}/both:1")
    other = pull(tmp_path, reference, "linux/arm64")
    assert other.platform == "linux/arm64"
    mine = pull(tmp_path, reference)
    assert which(tmp_path, mine) == "amd64/"
    assert {one.platform: one.references for one in in_store(tmp_path, listed)} == {
        "linux/arm64": (),
        "linux/amd64": (reference,),
    }


async def listed(store: ImageStore) -> list[Image]:
    return store.list()


def test_here_for_another_platform_and_nowhere_else(tmp_path: Path) -> None:
    """No registry has it, but that is not what is wrong with it."""
    in_store(tmp_path, lambda store: asyncio.sleep(0))
    write_layout(of_platform("arm64"), tmp_path / "source")
    skopeo("copy", f"oci:{tmp_path}/source:image", f"oci:{tmp_path}/images:localhost:1/theirs:1")
    pull(tmp_path, "localhost:1/theirs:1", "linux/arm64")
    with pytest.raises(TinyoError, match="is here for linux/arm64, and not for linux/amd64") as caught:
        pull(tmp_path, "localhost:1/theirs:1")
    assert caught.value.reason == "IMAGE_PLATFORM_MISSING"
    assert caught.value.metadata["available"] == "linux/arm64"


def test_here_for_another_platform_and_broken_for_this(tmp_path: Path) -> None:
    """What is wrong with the image is said, and not that there is another one."""
    built = index([of_platform("arm64"), image([layer(file("f", b"x"))])])

    def lie(request: Any, body: bytes) -> bool:
        if lying := body == gzip.compress(layer(file("f", b"x")), 1, mtime=0):
            send(request, body, 404)
        return lying

    with served(liar(built, lie)) as address:
        pull(tmp_path, f"{address}/x:1", "linux/arm64")
        with pytest.raises(TinyoError, match="was not found"):
            pull(tmp_path, f"{address}/x:1")


def test_an_index_may_say_nothing_of_a_platform(host: str, tmp_path: Path) -> None:
    built = of_platform("amd64")
    del built.descriptor["platform"]
    assert which(tmp_path, pull(tmp_path, push(index([built]), f"{host}/silent:1"))) == "amd64/"
    other = of_platform("arm64")
    del other.descriptor["platform"]
    assert told(tmp_path / "b", index([other])).reason == "IMAGE_PLATFORM_MISSING"


def test_a_configuration_that_disagrees_with_the_index(tmp_path: Path) -> None:
    built = of_platform("arm64")
    built.descriptor["platform"] = {"os": "linux", "architecture": "amd64"}
    assert told(tmp_path, index([built])).reason == "IMAGE_PLATFORM_MISSING"


# --- what else an index may hold


def entry(media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{'0' * 64}", "size": 7} | more


MINE = {"os": "linux", "architecture": "amd64"}


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    others = [
        entry(MANIFEST, platform={"os": "unknown", "architecture": "unknown"}),
        entry(MANIFEST, platform=MINE, annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        entry(MANIFEST, platform=MINE, artifactType="application/vnd.example.sbom"),
        entry("application/vnd.oci.artifact.manifest.v1+json", platform=MINE),
        entry("application/vnd.newer.than.we.are+json"),
        entry(MANIFEST, platform={"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"}),
    ]
    with served(liar(index([of_platform("amd64")], others=others))) as address:
        assert which(tmp_path, pull(tmp_path, f"{address}/x:1")) == "amd64/"
    nothing = told(tmp_path / "b", index([], others=others[:5]))
    assert "is not made for linux/amd64" in nothing.message and nothing.message.endswith("but for none")


def within(inner: Built, *others: dict[str, Any]) -> Built:
    """An index of an index."""
    outer = index([], others=[*others, inner.descriptor])
    outer.blobs |= inner.blobs
    return outer


def test_an_index_in_an_index(host: str, tmp_path: Path) -> None:
    once = within(index([of_platform("arm64"), of_platform("amd64")]))
    with served(liar(once)) as address:
        pulled = pull(tmp_path, f"{address}/x:1")
        assert which(tmp_path, pulled) == "amd64/"
        assert pull(tmp_path, f"{address}/x:1", refresh=True) == pulled
    assert "but for none" in told(tmp_path / "b", within(once)).message


def test_an_image_comes_before_an_index(tmp_path: Path) -> None:
    """What is in an index is not even looked into when the image stands beside it."""
    direct, asked = of_platform("amd64"), list[str]()
    built = index([direct], others=[entry(INDEX)])
    with served(liar(built, asked=asked)) as address:
        pull(tmp_path, f"{address}/x:1")
    assert not any("0000" in line for line in asked)


def test_indexes_without_end(tmp_path: Path) -> None:
    """An index that holds itself, and so many that looking into them would be a task of its own."""
    hollow = index([], others=[entry(MANIFEST, platform={"os": "plan9", "architecture": "386"})])
    asked: list[str] = []
    many = within(hollow, *[hollow.descriptor] * 1000)
    with served(liar(many, asked=asked)) as address, pytest.raises(TinyoError, match="but for plan9/386"):
        pull(tmp_path, f"{address}/x:1")
    assert len(asked) == 1 + MAX_NESTED

    def lie(request: Any, body: bytes) -> bool:
        send(request, many.blobs[many.descriptor["digest"]])
        return True

    with served(liar(many, lie)) as address, pytest.raises(TinyoError) as caught:
        pull(tmp_path, f"{address}/x:1")
    assert caught.value.reason in ("IMAGE_CORRUPT", "REGISTRY_UNREACHABLE")


def test_an_index_where_a_manifest_was_said_to_be(tmp_path: Path) -> None:
    inner = index([of_platform("amd64")])
    outer = index([], others=[inner.descriptor | {"mediaType": MANIFEST, "platform": MINE}])
    outer.blobs |= inner.blobs
    assert told(tmp_path, outer).reason == "IMAGE_CORRUPT"


# --- what is refused by name


@pytest.mark.parametrize(
    ("media_type", "why"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign, non-distributable"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign, non-distributable"),
        (f"{GZIP}+encrypted", "the layer is encrypted"),
        ("application/vnd.oci.empty.v1+json", "no such layers are known here"),
        ("application/vnd.in-toto+json", "no such layers are known here"),
        ("text/x-tar", "no such layers are known here"),
    ],
)
def test_layers_that_cannot_be_used(tmp_path: Path, media_type: str, why: str) -> None:
    asked: list[str] = []
    built = image([layer(file("f", b"x"))], media_type=media_type)
    with served(liar(built, asked=asked)) as address, pytest.raises(TinyoError) as caught:
        pull(tmp_path, f"{address}/x:1")
    assert caught.value.reason == "IMAGE_UNSUPPORTED" and len(asked) == 1
    assert media_type in caught.value.message and why in caught.value.message


@pytest.mark.parametrize(
    "media_type", ["application/vnd.oci.empty.v1+json", "application/vnd.cncf.helm.config.v1+json"]
)
def test_artifacts(tmp_path: Path, media_type: str) -> None:
    error = told(tmp_path, changed(busybox(), lambda one: one["config"].update(mediaType=media_type)))
    assert error.reason == "IMAGE_UNSUPPORTED"
    assert media_type in error.message and "an artifact, and no image" in error.message


@pytest.mark.parametrize("kind", ["v1+json", "v1+prettyjws"])
def test_schema_1(tmp_path: Path, kind: str) -> None:
    body = b'{"schemaVersion": 1, "name": "x", "tag": "1", "architecture": "amd64", "fsLayers": []}'

    def answering(media_type: str) -> Lie:
        def lie(request: Any, _: bytes) -> bool:
            send(request, body, Content_Type=media_type)
            return True

        return lie

    for media_type in (f"application/vnd.docker.distribution.manifest.{kind}", MANIFEST):
        with (
            served(liar(busybox(), answering(media_type))) as address,
            pytest.raises(TinyoError, match="schema 1 has no verifiable layers") as caught,
        ):
            pull(tmp_path, f"{address}/x:1")
        assert caught.value.reason == "IMAGE_UNSUPPORTED"


# --- what a registry is asked


def test_an_unchanged_tag_costs_one_request(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """An index as well as a manifest; also after a restart, and for the layers' sake nothing."""
    both = push(index([of_platform("arm64"), of_platform("amd64")]), f"{host}/unchanged:index")
    one = busybox_image(host, "unchanged:manifest")
    for reference in (both, one):
        first = pull(tmp_path, reference)
        before = len(requests(registry_folder))
        assert pull(tmp_path, reference, refresh=True) == first
        tag = reference.rpartition(":")[2]
        assert requests(registry_folder)[before:] == [f"HEAD /v2/unchanged/manifests/{tag}"]
        assert pull(tmp_path, reference) == first
        assert len(requests(registry_folder)) == before + 1


def test_a_moved_tag_costs_two_documents(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """When all layers are here."""
    reference = busybox_image(host, "moving")
    first = pull(tmp_path, reference)
    busybox_image(host, "moving", User="1")
    before = len(requests(registry_folder))
    second = pull(tmp_path, reference, refresh=True)
    assert second.layers == first.layers and second.digest != first.digest
    asked = requests(registry_folder)[before:]
    assert asked[:2] == ["HEAD /v2/moving/manifests/latest", "GET /v2/moving/manifests/latest"]
    assert len(asked) == 3 and asked[2].startswith("GET /v2/moving/blobs/")


def test_an_unchanged_tag_of_what_was_damaged(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """What is lost of it is fetched, and nothing else."""
    reference = busybox_image(host, "healed", [layer(file("f", b"x"))])
    pulled = pull(tmp_path, reference)
    path = tmp_path / "images/blobs" / pulled.digest.replace(":", "/")
    lost = json.loads(path.read_bytes())["layers"][1]["digest"]
    (tmp_path / "images/blobs" / lost.replace(":", "/")).unlink()
    before = len(requests(registry_folder))
    assert pull(tmp_path, reference, refresh=True) == pulled
    assert requests(registry_folder)[before:] == [
        "HEAD /v2/healed/manifests/latest",
        f"GET /v2/healed/blobs/{lost}",
    ]
