"""Images brought to real registries: as they are, nothing twice, with a login; and read back by skopeo."""

import asyncio
import hashlib
import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tinyo.v1.push_pb2 import UploadProgress
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import ImageStore, patience, registries
from tinyo_runtime.images.push import Pushed, Report

from tests.support.images import (
    Built,
    busybox,
    busybox_layer,
    digest,
    file,
    image,
    index,
    layer,
    push,
    skopeo,
    write_layout,
)
from tests.support.instance import PATIENCE, PROGRAMS, Instance
from tests.support.registry import basic, everything, registry, served, token_service
from tests.support.stores import in_store
from tests.support.uploads import Shelf, Taker, taking

SECRET = "s3cret-word"
LOGIN = f"me:{SECRET}"
#: What htpasswd -B makes of LOGIN.
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuEpHRRKIlpAGo.iP7Bpa.htQEJMAAnRe"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has nothing."""
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(patience, "DELAYS", (0.01, 0.01))
    return tmp_path


def put(root: Path, built: Built, name: str) -> None:
    """Puts an image into the layout as another tool does."""
    in_store(root, lambda store: asyncio.sleep(0))
    for key, blob in built.blobs.items():
        (root / "images/blobs" / key.replace(":", "/")).write_bytes(blob)
    path = root / "images/index.json"
    document = json.loads(path.read_text())
    document["manifests"].append(
        built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}
    )
    path.write_text(json.dumps(document))


def bring(root: Path, reference: str, to: str = "") -> tuple[Pushed, dict[str, UploadProgress]]:
    """What a push comes to, and the last that was told of each blob."""
    report: list[Report] = []

    async def run(store: ImageStore) -> Pushed:
        report.append(Report())
        return await store.push(reference, to, report[0])

    pushed = in_store(root, run)
    assert report[0].message().reference == pushed.reference
    assert all(one.complete for one in report[0].states.values())
    return pushed, report[0].states


def refused(reason: str, call: Callable[..., object], *arguments: object) -> TinyoError:
    with pytest.raises(TinyoError) as caught:
        call(*arguments)
    assert caught.value.reason == reason, caught.value
    assert SECRET not in str(vars(caught.value))
    return caught.value


def there(reference: str, *arguments: str) -> str:
    """The digest that a reference has in its registry; all blobs must come with it."""
    return json.loads(skopeo("inspect", "--tls-verify=false", *arguments, f"docker://{reference}"))["Digest"]  # type: ignore[no-any-return]


def test_what_is_pushed_is_what_is_here(host: str, registry_folder: Path, tmp_path: Path) -> None:
    built = busybox([layer(file("big", os.urandom(3_000_000)))])
    put(tmp_path / "s", built, f"{host}/team/app:1")
    pushed, uploads = bring(tmp_path / "s", f"{host}/team/app:1")
    size = sum(map(len, built.blobs.values())) - built.descriptor["size"]
    assert pushed == Pushed(f"{host}/team/app:1", built.descriptor["digest"], size)
    assert {one.digest: one.sent_bytes for one in uploads.values()} == {
        key: len(blob) for key, blob in built.blobs.items() if key != built.descriptor["digest"]
    }
    assert there(pushed.reference) == built.descriptor["digest"]
    skopeo("copy", "--src-tls-verify=false", f"docker://{pushed.reference}", f"dir:{tmp_path}/copy")
    for key, blob in built.blobs.items():
        name = "manifest.json" if key == pushed.digest else key.removeprefix("sha256:")
        assert (tmp_path / "copy" / name).read_bytes() == blob


def test_what_is_there_is_not_sent(host: str, registry_folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "s", busybox(), "app")
    bring(tmp_path / "s", "app", f"{host}/twice/app")
    before = len(everything(registry_folder))
    pushed, uploads = bring(tmp_path / "s", "app", f"{host}/twice/app:2")
    assert all(one.present and not one.sent_bytes for one in uploads.values())
    assert {line.split()[0] for line in everything(registry_folder)[before:]} == {"HEAD", "PUT"}
    assert there(pushed.reference) == pushed.digest


def test_what_another_repository_has_is_mounted(host: str, registry_folder: Path, tmp_path: Path) -> None:
    base = busybox()
    push(base, f"{host}/mount/base:1")
    put(tmp_path / "s", base, f"{host}/mount/absent:1")  # asked first, and does not have it
    put(tmp_path / "s", base, f"{host}/mount/base:1")
    put(tmp_path / "s", base, "elsewhere.test/mount/base:1")
    put(tmp_path / "s", busybox([layer(file("mine", os.urandom(1000)))]), f"{host}/mount/app:1")
    before = len(everything(registry_folder))
    pushed, uploads = bring(tmp_path / "s", f"{host}/mount/app:1")
    assert there(pushed.reference) == pushed.digest
    (shared,) = base.blobs.keys() & uploads.keys()
    assert [one.digest for one in uploads.values() if one.mounted_from] == [shared]
    assert uploads[shared].mounted_from == "mount/base" and not uploads[shared].sent_bytes
    asked = [line for line in everything(registry_folder)[before:] if "/mount/app/blobs/uploads/" in line]
    assert [line.rpartition("from=")[2] for line in asked if "mount=" in line] == [
        "mount%2Fabsent",
        "mount%2Fbase",
    ]
    assert [line.split()[0] for line in asked].count("DELETE") == 1  # the upload that the first one began


def test_an_index_goes_with_all_that_it_offers(host: str, tmp_path: Path) -> None:
    built = index([busybox(), image([busybox_layer()], architecture="arm64")], attested=True)
    put(tmp_path / "s", built, "both")
    pushed, _ = bring(tmp_path / "s", "both", f"{host}/both:1")
    assert pushed.digest == built.descriptor["digest"]
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/both:1")
    assert digest(manifest.encode()) == built.descriptor["digest"]
    assert there(f"{host}/both:1", "--override-arch=arm64")
    single = built.descriptor["digest"], index([busybox()])
    child = busybox().descriptor["digest"]
    one, _ = bring(tmp_path / "s", child[:19], f"{host}/both:amd64")
    assert one.digest == child == there(f"{host}/both:amd64") != single[0]


def test_layers_in_sha512(host: str, tmp_path: Path) -> None:
    built = busybox([layer(file("f", os.urandom(100_000)))])
    manifest = json.loads(built.blobs.pop(built.descriptor["digest"]))
    for part in manifest["layers"]:
        data = built.blobs.pop(part["digest"])
        part["digest"] = f"sha512:{hashlib.sha512(data).hexdigest()}"
        built.blobs[part["digest"]] = data
    data = json.dumps(manifest).encode()
    built.blobs[digest(data)] = data
    built.descriptor |= {"digest": digest(data), "size": len(data)}
    (tmp_path / "s/images/blobs/sha512").mkdir(parents=True)
    put(tmp_path / "s", built, "app")
    path = tmp_path / "s/images/blobs" / manifest["layers"][1]["digest"].replace(":", "/")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    refused("IMAGE_CORRUPT", bring, tmp_path / "s", "app", f"{host}/sha512:1")
    path.write_bytes(built.blobs[manifest["layers"][1]["digest"]])
    pushed, _ = bring(tmp_path / "s", "app", f"{host}/sha512:1")
    assert there(pushed.reference) == pushed.digest == digest(data)
    assert in_store(tmp_path / "t", lambda store: store.pull(pushed.reference)).digest == pushed.digest


def test_half_an_index_is_refused(host: str, tmp_path: Path) -> None:
    other = image([busybox_layer()], architecture="arm64")
    built = index([busybox(), other])
    del built.blobs[other.descriptor["digest"]]
    put(tmp_path / "s", built, "localhost/half:1")
    error = refused("IMAGE_CORRUPT", bring, tmp_path / "s", "localhost/half:1", f"{host}/half")
    assert (
        "index of 2 manifests, of which 1 are not here: `tinyo image tag localhost/half:1 NEW`"
        in error.message
    )


def test_damage_is_found_before_anything_has_a_name(host: str, tmp_path: Path) -> None:
    built = busybox([layer(file("big", os.urandom(3_000_000)))])
    put(tmp_path / "s", built, "damaged")
    big = max(built.blobs, key=lambda key: len(built.blobs[key]))
    manifest = built.descriptor["digest"]
    config = json.loads(built.blobs[manifest])["config"]["digest"]
    for key, kind in ((big, "layer"), (config, "configuration"), (manifest, "manifest")):
        path, target = tmp_path / "s/images/blobs" / key.replace(":", "/"), f"{host}/damaged/{kind}:1"
        for wrong in (built.blobs[key][:-1] + b"x", built.blobs[key][:-1], None):
            path.write_bytes(wrong or b"")
            if wrong is None:
                path.unlink()
            error = refused("IMAGE_CORRUPT", bring, tmp_path / "s", "damaged", target)
            assert f"the {kind} {key} " in error.message and "`tinyo image pull`" in error.message
            # A layer that is of no use to anybody goes, so that a pull fetches it again.
            assert path.exists() == (wrong is not None and kind != "layer")
        path.write_bytes(built.blobs[key])
        with pytest.raises(RuntimeError, match="unknown"):
            there(target)
        bring(tmp_path / "s", "damaged", target)


def test_names_that_do_not_say_where(host: str, tmp_path: Path) -> None:
    built = busybox()
    put(tmp_path / "s", built, "app")
    refused("IMAGE_NOT_FOUND", bring, tmp_path / "s", "none")
    for name in ("app", built.descriptor["digest"]):
        error = refused("IMAGE_REFERENCE_INVALID", bring, tmp_path / "s", name)
        assert f"'{name}' does not say where to push to" in error.message
    refused("IMAGE_REFERENCE_INVALID", bring, tmp_path / "s", "app", "UPPER")
    wrong = f"{host}/app@sha256:{'0' * 64}"
    assert "has a digest" in refused("IMAGE_REFERENCE_INVALID", bring, tmp_path / "s", "app", wrong).message
    reference = f"{host}/by@{built.descriptor['digest']}"
    bring(tmp_path / "s", "app", reference)
    assert (
        digest(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}").encode())
        in reference
    )


def test_password(tmp_path: Path) -> None:
    built = busybox()
    with registry(tmp_path / "registry", htpasswd=HTPASSWD) as address:
        put(tmp_path / "s", built, f"{address}/team/app:1")
        error = refused("REGISTRY_DENIED", bring, tmp_path / "s", f"{address}/team/app:1")
        assert f"does not let us push {address}/team/app:1" in error.message
        assert f"`tinyo login {address}`" in error.message
        in_store(tmp_path / "s", lambda store: store.login(address, "me", SECRET))
        bring(tmp_path / "s", f"{address}/team/app:1")
        assert there(f"{address}/team/app:1", f"--creds={LOGIN}") == built.descriptor["digest"]
        (tmp_path / "s/auth.json").write_text(
            json.dumps({"auths": {address: {"auth": basic("me:wrong")[6:]}}})
        )
        before = len(everything(tmp_path / "registry"))
        refused("REGISTRY_DENIED", bring, tmp_path / "s", f"{address}/team/app:1")
        assert len(everything(tmp_path / "registry")) - before <= 8


def test_token_with_the_right_to_push(tmp_path: Path) -> None:
    base, built = busybox(), busybox([layer(file("mine", b"x"))])
    with (
        token_service(tmp_path / "tokens", LOGIN) as (realm, certificate, queries),
        registry(tmp_path / "registry", realm, certificate) as address,
    ):
        put(tmp_path / "s", base, f"{address}/base:1")
        put(tmp_path / "s", built, f"{address}/team/app:1")
        refused("REGISTRY_DENIED", bring, tmp_path / "s", f"{address}/base:1")
        in_store(tmp_path / "s", lambda store: store.login(address, "me", SECRET))
        queries.clear()
        bring(tmp_path / "s", f"{address}/base:1", f"{address}/base:1")
        _, uploads = bring(tmp_path / "s", f"{address}/team/app:1")
        assert [one.mounted_from for one in uploads.values() if one.mounted_from] == ["base"]
        first, second = (urllib.parse.parse_qs(query)["scope"] for query in queries)
        assert first == ["repository:base:pull,push", "repository:team/app:pull"]
        assert second == ["repository:team/app:pull,push", "repository:base:pull"]
        (tmp_path / "s/auth.json").write_text(
            json.dumps({"auths": {address: {"identitytoken": f"refresh-{SECRET}"}}})
        )
        bring(tmp_path / "s", f"{address}/team/app:1", f"{address}/team/other:1")
        form = urllib.parse.parse_qs(queries[-1])
        assert form["grant_type"] == ["refresh_token"]
        assert form["scope"][0].split()[0] == "repository:team/other:pull,push"


def test_a_registry_that_may_only_be_read(tmp_path: Path) -> None:
    with registry(tmp_path / "registry", read_only=True) as address:
        put(tmp_path / "s", busybox(), f"{address}/app:1")
        error = refused("REGISTRY_REJECTED", bring, tmp_path / "s", f"{address}/app:1")
    assert error.message.endswith("it takes nothing: it can only be read from")


def test_mirrors_get_nothing(host: str, registry_folder: Path, tmp_path: Path) -> None:
    with registry(tmp_path / "mirror") as mirror:
        settings = f'["{host}"]\nmirrors = ["{mirror}"]\n'
        (tmp_path / "registries.toml").write_text(settings)

        async def use(store: ImageStore) -> Pushed:
            store.registries = registries.load(tmp_path)
            return await store.push("app", f"{host}/not/mirrored:1")

        put(tmp_path / "s", busybox(), "app")
        pushed = in_store(tmp_path / "s", use)
        assert there(pushed.reference) == pushed.digest
        assert everything(tmp_path / "mirror") == ["GET /v2/"]


def test_a_line_that_is_cut(host: str, tmp_path: Path) -> None:
    """Twice in the middle of a layer; docker-registry does not say what it has got, and gets it once more."""
    built = busybox([layer(file("big", os.urandom(3_000_000)))])
    put(tmp_path / "s", built, "app")
    cuts = [2_000_000, 1_500_000]
    with cut_line(host, cuts) as address:
        pushed, uploads = bring(tmp_path / "s", "app", f"{address}/cut:1")
        assert cuts == []
        assert there(pushed.reference) == pushed.digest
    assert max(one.sent_bytes for one in uploads.values()) > 3_000_000


@contextmanager
def cut_line(address: str, cuts: list[int]) -> Iterator[str]:
    """A way to an address on which a connection ends after so many bytes, one for each number."""

    class Line(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host, _, port = address.partition(":")
            there, count = socket.create_connection((host, int(port))), 0
            ends = [self.request, there]
            with there:
                while ready := select.select(ends, [], [], PATIENCE)[0]:
                    data = ready[0].recv(65536)
                    count += len(data) if ready[0] is self.request else 0
                    if cuts and count > cuts[0]:
                        cuts.pop(0)
                        return
                    if not data:
                        return
                    ends[ends[0] is ready[0]].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Line) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_whole_way(host: str, registry_folder: Path, tmp_path: Path) -> None:
    """Through the command line and both services."""
    built = busybox([layer(file("mine", os.urandom(2_000_000)))])
    push(built, f"{host}/whole/app:1")
    with Instance() as instance:
        instance.cli("image", "pull", f"{host}/whole/app:1")
        printed = instance.cli("image", "push", f"{host}/whole/app:1", f"{host}/whole/other:2").stdout
        *lines, last = printed.splitlines()
        assert len(lines) == 3 and all("  mounted from whole/app  " in line for line in lines[1:])
        assert last.startswith(f"✓ {host}/whole/other:2  {built.descriptor['digest']}  ")
        assert there(f"{host}/whole/other:2") == built.descriptor["digest"]
        again = instance.cli("image", "push", f"{host}/whole/app:1").stdout
        assert again.count("  exists already  ") == 2 and again.endswith("(nothing to send)\n")
        wrong = instance.cli("image", "push", "nothing", check=False)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert wrong.stderr == "tinyo: image nothing is not here: `tinyo image ls` lists what is\n"
        wrong = instance.cli("image", "push", built.descriptor["digest"], check=False)
        assert wrong.returncode == 2 and "does not say where to push to" in wrong.stderr


def test_ctrl_c_takes_back_what_was_begun(tmp_path: Path) -> None:
    shelf, waiting = Shelf(), threading.Event()

    def lie(request: Taker) -> bool:
        if waits := request.command == "PUT" and int(request.headers["Content-Length"]) > 1000:
            waiting.set()
            request.rfile.read()  # until who sends has gone
            request.close_connection = True
        elif request.command == "DELETE":
            request.upload_delete()
            gone.set()
            return True
        return waits

    gone = threading.Event()
    with served(taking(shelf, lie)) as address, Instance() as instance:
        write_layout(busybox(), tmp_path / "layout")
        skopeo("copy", f"oci:{tmp_path}/layout:image", f"oci:{instance.state}/images:{address}/app:1")
        command = [str(PROGRAMS / "tinyo"), "image", "push", f"{address}/app:1"]
        process = subprocess.Popen(command, env=instance.environment, stderr=subprocess.PIPE, text=True)
        assert waiting.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130 and said.startswith("interrupted: the image was not pushed; ")
        assert gone.wait(PATIENCE)
        assert shelf.uploads == {} and shelf.manifests == {}
