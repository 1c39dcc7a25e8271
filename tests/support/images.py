"""Images made on the spot: an OCI layout written by hand, pushed to a registry by skopeo.

busybox_image("127.0.0.1:5000", "demo")                     -> "127.0.0.1:5000/demo:latest"
push(image([layer(file("etc/motd", b"hello"))]), "127.0.0.1:5000/hello:1")
"""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

#: A member of an archive, with the bytes of a file.
Member = tuple[tarfile.TarInfo, bytes]


@dataclass
class Built:
    """An image in memory: its blobs by digest, and the descriptor of its manifest or index."""

    descriptor: dict[str, Any]
    blobs: dict[str, bytes] = field(default_factory=dict)
    algorithm: str = "sha256"


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **attributes: Any) -> Member:
    """Any member; attributes are those of TarInfo (mode, uid, gid, mtime, linkname, pax_headers, …)."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, 1_600_000_000
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def file(name: str, data: bytes = b"", **attributes: Any) -> Member:
    return member(name, tarfile.REGTYPE, data, **attributes)


def folder(name: str, **attributes: Any) -> Member:
    return member(name, tarfile.DIRTYPE, **{"mode": 0o755, **attributes})


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard_link(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def layer(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image(
    layers: Sequence[bytes],
    config: dict[str, Any] | None = None,
    architecture: str = "amd64",
    media_type: str = GZIP,
    variant: str = "",
    algorithm: str = "sha256",
) -> Built:
    """An image of uncompressed archives, the lowest first; `config` is the process's part (Cmd, Env, …)."""
    built = Built({}, algorithm=algorithm)
    platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
    compressed = [gzip.compress(data, 1, mtime=0) if media_type == GZIP else data for data in layers]
    document = {
        **platform,
        "created": "2024-01-02T03:04:05Z",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(data, algorithm) for data in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add(built, _json(document), "application/vnd.oci.image.config.v1+json"),
        "layers": [_add(built, data, media_type) for data in compressed],
    }
    built.descriptor = _add(built, _json(manifest), MANIFEST)
    built.descriptor["platform"] = platform
    return built


def index(images: Iterable[Built], attested: bool = False, others: Iterable[dict[str, Any]] = ()) -> Built:
    """An index of images for several platforms; `attested` adds what buildkit puts beside them, `others` come first."""
    images = list(images)
    built = Built({}, {key: blob for one in images for key, blob in one.blobs.items()})
    manifests = [*others, *(one.descriptor for one in images)]
    if attested:
        unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
        manifests = [manifests[0] | unknown, *manifests]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    built.descriptor = _add(built, _json(document), INDEX)
    return built


def write_layout(built: Built, path: Path, name: str = "image") -> None:
    """The image as an OCI layout, under the reference `name`."""
    for key, blob in built.blobs.items():
        file = path / "blobs" / key.replace(":", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(blob)
    entry = built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}
    (path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))


def push(built: Built, reference: str) -> str:
    """Pushes to a registry on loopback, index and all; gives the reference."""
    with tempfile.TemporaryDirectory() as temporary:
        write_layout(built, Path(temporary) / "layout")
        skopeo(
            "copy",
            "--all",
            "--dest-tls-verify=false",
            f"oci:{temporary}/layout:image",
            f"docker://{reference}",
        )
    return reference


def skopeo(*arguments: str) -> str:
    """Runs skopeo with no policy; what it printed."""
    command = ["skopeo", "--insecure-policy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


@cache
def busybox_layer() -> bytes:
    """A root file system that looks like alpine's: busybox, its links, users, and the usual folders."""
    applets = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True)
    names = sorted({line for line in applets.stdout.split() if line not in ("bin/busybox", "linuxrc")})
    folders = ["bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"]
    folders += ["usr/bin", "usr/sbin"]
    modes = {"tmp": 0o1777, "root": 0o700, "proc": 0o555, "sys": 0o555}
    return layer(
        *[folder(name, mode=modes.get(name, 0o755)) for name in folders],
        file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *[symlink(name, "/bin/busybox") for name in names],
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        file("etc/group", b"root:x:0:\nnobody:x:65534:\n"),
        file("etc/hostname", b"localhost\n"),
        file("etc/hosts", b"127.0.0.1\tlocalhost\n"),
        file("etc/os-release", b'ID=busybox\nPRETTY_NAME="busybox"\n'),
    )


def busybox(extra: Sequence[bytes] = (), **config: Any) -> Built:
    """An image on busybox; `extra` archives are layers above it, `config` replaces parts of its process."""
    return image([busybox_layer(), *extra], {"Cmd": ["/bin/sh"], "Env": [PATH], **config})


def busybox_image(registry: str, name: str = "busybox", extra: Sequence[bytes] = (), **config: Any) -> str:
    """Makes and pushes it; `name` may have a tag. Gives the complete reference."""
    tagged = name if ":" in name else f"{name}:latest"
    return push(busybox(extra, **config), f"{registry}/{tagged}")


def many_layers(count: int = 100) -> Built:
    """Busybox below so many layers in all; each adds /layers/NUMBER and writes its number into /top."""
    extra = [
        layer(folder("layers"), file(f"layers/{number}", b"%d" % number), file("top", b"%d" % number))
        for number in range(1, count)
    ]
    return busybox(extra)


def all_kinds() -> Built:
    """Two layers with everything that a layer may hold: links, attributes, modes, whiteouts, opaque folders."""
    capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    lower = layer(
        folder("kept"),
        file("kept/gone", b"hidden by a whiteout"),
        file("kept/stays", b"stays"),
        folder("replaced", uid=3, gid=4, mode=0o750),
        file("replaced/old", b"hidden by an opaque folder"),
        file("removed", b"hidden"),
    )
    upper = layer(
        folder("kept", mode=0o700),
        file("kept/.wh.gone"),
        folder("replaced"),
        file("replaced/.wh..wh..opq"),
        file("replaced/new", b"new"),
        file(".wh.removed"),
        file("linked", b"linked", uid=1000, gid=1000, mode=0o640, mtime=1_600_000_000.25),
        hard_link("kept/link", "linked"),
        symlink("symbolic", "../../etc/passwd"),
        file("setuid", b"#!/bin/sh\n", mode=0o4755, uid=5),
        file("capable", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}),
        file("attributes", b"x", pax_headers={"SCHILY.xattr.user.colour": "blue"}),
        member("pipe", tarfile.FIFOTYPE, mode=0o600),
        file("deep/er/than/its/folders", b"x"),
        file("long/" + "n" * 200 + "/" + "m" * 200, b"long"),
        file("ünïcödé", b"x"),
    )
    return image([lower, upper], {"Cmd": ["/bin/true"]})


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _add(built: Built, blob: bytes, media_type: str) -> dict[str, Any]:
    name = digest(blob, built.algorithm)
    built.blobs[name] = blob
    return {"mediaType": media_type, "digest": name, "size": len(blob)}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
