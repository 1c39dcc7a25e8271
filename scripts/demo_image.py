"""An image made on the spot from this machine's busybox, and a registry on loopback that serves it.

The registry is the part of the OCI distribution specification that a pull needs: manifests and blobs.
`python -m scripts.demo_image HOST:PORT` pushes the image to a real one.
"""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
#: Where the registry listens; the image's name contains it.
PORT = 5077
REFERENCE = f"localhost:{PORT}/demo"


def layer() -> bytes:
    """A root file system as a tar: busybox, its applets as links to it, and root's account."""
    applets = subprocess.check_output([BUSYBOX, "--list"], text=True).split()
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, mode, content in (
            ("bin/busybox", 0o755, BUSYBOX.read_bytes()),
            ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n"),
        ):
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), mode
            tar.addfile(file, io.BytesIO(content))
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(link)
    return written.getvalue()


def image() -> dict[str, tuple[str, bytes]]:
    """What the registry holds: the last part of a path, and the media type and bytes that it stands for."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[
        subprocess.check_output(["uname", "-m"], text=True).strip()
    ]
    tar = layer()
    packed = gzip.compress(tar, mtime=0)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
    }
    parts = ((CONFIG, json.dumps(config).encode()), (LAYER, packed))
    described = [{"mediaType": kind, "digest": digest(part), "size": len(part)} for kind, part in parts]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    content = json.dumps(manifest).encode()
    held = {digest(part): (kind, part) for kind, part in (*parts, (MANIFEST, content))}
    return {**held, "latest": (MANIFEST, content)}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def registry() -> Iterator[str]:
    """Serves the image as long as it is entered; gives its reference. OSError when the port is taken."""
    held = image()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = held.get(self.path.rpartition("/")[2], ("", b""))
            self.send_response(200 if kind or self.path == "/v2/" else 404)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(content)))
            if kind == MANIFEST:
                self.send_header("Docker-Content-Digest", digest(content))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nobody wants to read it."""

    with ThreadingHTTPServer(("127.0.0.1", PORT), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield REFERENCE
        finally:
            server.shutdown()


def push(to: str) -> None:
    """Puts the image into another registry, "host:port", as "demo"."""
    held = image()
    for name, (kind, content) in held.items():
        if kind != MANIFEST:
            begun = _send("POST", f"http://{to}/v2/demo/blobs/uploads/")
            place = begun.headers["Location"]
            _send("PUT", f"{place}{'&' if '?' in place else '?'}digest={name}", content)
    _send("PUT", f"http://{to}/v2/demo/manifests/latest", held["latest"][1], MANIFEST)


def _send(
    method: str, url: str, content: bytes = b"", kind: str = "application/octet-stream"
) -> HTTPResponse:
    request = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request) as response:
        assert isinstance(response, HTTPResponse)
        return response


if __name__ == "__main__":
    push(sys.argv[1])
