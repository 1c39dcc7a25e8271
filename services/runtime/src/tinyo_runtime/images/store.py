"""The images of one machine, in an OCI image layout that other tools can read, and beside it the unpacked layers.

    images/oci-layout, index.json, blobs/sha256/…    as the OCI image specification says
    layers/1a2b…                                      one folder for each diff ID, a lower folder of overlayfs
    pulling/…                                         whatever is not finished; emptied at the start

Everything appears by rename, after it has reached the disk: what is in its place is whole and verified.
`Images` is what a pull does when all goes well, `Careful` adds everything else to it.
"""

import asyncio
import hashlib
import json
import re
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING

from tinyo_runtime.images import answers, careful, child, disk, names, order, platforms, trust
from tinyo_runtime.images.image import Document, Image, ImageConfig
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

#: What this machine runs.
PLATFORM = {"os": "linux", "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine(), machine())}
ACCEPT = [("Accept", f"application/vnd.oci.image.{kind}.v1+json") for kind in ("index", "manifest")]
UNPACK = [sys.executable, "-I", str(Path(__file__).parents[1] / "unpack/__main__.py")]


class Images:
    """Pulls and looks up, one step after the other."""

    root: Path
    #: Registries that may be spoken to without TLS.
    insecure: frozenset[str]

    async def image(self, reference: Reference, platform: Document) -> str:
        """Makes an image present: documents first, then its layers. Gives the digest of its manifest."""
        data, manifest = await self.read(
            reference, "manifests", {"digest": reference.digest or reference.tag}
        )
        if "manifests" in manifest:
            fitting = (one for one in manifest["manifests"] if platform.items() <= one["platform"].items())
            data, manifest = await self.read(reference, "manifests", next(fitting))
        document, configuration = await self.read(reference, "blobs", manifest["config"])
        async with asyncio.TaskGroup() as layers:
            for layer, diff_id in zip(manifest["layers"], configuration["rootfs"]["diff_ids"], strict=True):
                layers.create_task(self.layer(reference, layer, diff_id))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.write(self.blob(manifest["config"]["digest"]), document)
        self.write(self.blob(digest), data)
        names.tag(self, reference, digest)
        return digest

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Gives a layer its place, as it came and unpacked."""
        with tempfile.TemporaryDirectory(dir=self.root / "pulling") as folder:
            await self.unpack(reference, layer, diff_id, Path(folder))
            Path(folder, "blob").rename(self.blob(layer["digest"]))
            Path(folder, "tree").rename(self.folder(diff_id))

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """Streams a layer into a file and into the confined process that unpacks it, which has the last word."""
        unpacker = await self.begin(layer, diff_id, folder)
        assert unpacker.stdin
        async with child.ended(unpacker):
            with open(folder / "blob", "wb") as blob:
                async for chunk in self.fetch(reference, "blobs", layer):
                    blob.write(chunk)
                    unpacker.stdin.write(chunk)
                    await unpacker.stdin.drain()
        return (await unpacker.communicate(b""))[0]

    async def begin(self, layer: Document, diff_id: str, folder: Path) -> Process:
        """Starts the process that unpacks a layer into a new folder."""
        (folder / "tree").mkdir()
        return await self.unpacker(str(folder / "tree"), layer["mediaType"], diff_id.partition(":")[0])

    async def unpacker(self, *arguments: str, stdin: int = PIPE) -> Process:
        """Starts the process."""
        return await asyncio.create_subprocess_exec(*UNPACK, *arguments, stdin=stdin, stdout=PIPE, env={})

    async def read(self, reference: Reference, kind: str, content: Document) -> tuple[bytes, Document]:
        """A whole document, as it came and parsed."""
        data = b"".join([chunk async for chunk in self.fetch(reference, kind, content)])
        return data, json.loads(data)

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The bytes of one of the "manifests" or "blobs" of a repository, by digest or tag."""
        client, path = self.client(reference), f"{kind}/{content['digest']}"
        headers = [*ACCEPT, *answers.headers()]
        response = await client.send(client.build_request("GET", path, headers=headers), stream=True)
        if response.status_code == 401:
            await self.authorize(client, response)
            response = await client.send(client.build_request("GET", path, headers=headers), stream=True)
        async with aclosing(response):
            answers.check(reference, response)
            async for chunk in response.aiter_raw():
                yield chunk

    async def authorize(self, client: "httpx.AsyncClient", refusal: "httpx.Response") -> None:
        """Fetches the token that a registry wants to see, even from anybody (distribution's token authentication)."""
        await refusal.aclose()
        challenge = dict(re.findall(r'(\w+)="([^"]*)"', refusal.headers["WWW-Authenticate"]))
        answer = (await client.get(challenge.pop("realm"), params=challenge)).json()
        client.headers["Authorization"] = f"Bearer {answer.get('token') or answer['access_token']}"

    def client(self, reference: Reference) -> "httpx.AsyncClient":
        """Connections to a repository: HTTPS always, but for loopback and what the administrator named."""
        import httpx  # when it is needed: it takes long

        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        plain = host.partition(":")[0] in ("localhost", "127.0.0.1") or trust.plain(host, self.insecure)
        url = f"{'http' if plain else 'https'}://{host}/v2/{reference.repository}/"
        return httpx.AsyncClient(base_url=url, follow_redirects=True, **trust.options(self, reference, url))

    def get(self, digest: str) -> Image:
        """What is here, by the digest of its manifest. Raises TinyoError IMAGE_NOT_FOUND."""
        manifest = json.loads(self.blob(digest).read_bytes())
        configuration = json.loads(self.blob(manifest["config"]["digest"]).read_bytes())
        layers = [self.folder(diff_id).name for diff_id in reversed(configuration["rootfs"]["diff_ids"])]
        process = configuration.get("config") or {}
        lists = [tuple(process.get(key) or ()) for key in ("Entrypoint", "Cmd", "Env")]
        texts = [process.get(key) or "" for key in ("WorkingDir", "User", "StopSignal")]
        return Image(digest, tuple(layers), ImageConfig._make([*lists, *texts]))

    def blob(self, digest: str) -> Path:
        """Where a blob has its place."""
        return self.root / "images/blobs" / digest.replace(":", "/")

    def folder(self, diff_id: str) -> Path:
        """Where a layer has its place, unpacked.

        128 bits of its diff ID name it: short enough for 100 layers in one page of mount options, and
        long enough that nobody makes two layers of one name.
        """
        return self.root / "layers" / diff_id.partition(":")[2][:32]

    def write(self, path: Path, data: bytes) -> None:
        """A small file, whole or not at all."""
        unfinished = self.root / "pulling" / path.name
        unfinished.write_bytes(data)
        disk.flush(unfinished)
        unfinished.rename(path)


class ImageStore(careful.Careful, Images):
    """Images below `root`, with the registries that may be spoken to without TLS; close it in the end."""

    def __init__(self, root: Path, *, insecure: frozenset[str] = frozenset()) -> None:
        self.root, self.insecure = root, insecure
        for folder in ("images/blobs/sha256", "layers", "pulling"):
            (root / folder).mkdir(0o700, parents=True, exist_ok=True)
        super().__init__()

    async def pull(
        self, reference: str, platform: str = "", *, refresh: bool = False, progress: order.Listener = None
    ) -> Image:
        """Makes an image present; the registry is asked only when it is not, or with `refresh`.

        Raises TinyoError. Cancelled, it stops; layers that are whole by then stay.
        """
        with order.given(refresh, progress):
            wanted = platforms.want(platform) or PLATFORM
            return self.get(await self.image(Reference.parse(reference), wanted))
