"""Makes an image present: documents first, then every layer that is missing, several at a time.

A layer is hashed, kept and unpacked while it streams, and gets its place only when its digest, size and
diff ID are those that the image promised and everything has reached the disk. What is whole stays even
when the pull fails later, so that the next one goes on from there.
"""

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import os
import platform as machine
import sys
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tinyo.v1.image_pb2 import LayerProgress, PullProgress

from tinyo_runtime import unpack
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MAX_DOCUMENT,
    Configuration,
    Descriptor,
    Malformed,
    Manifest,
    check_digest,
    choose,
    corrupt,
    digest_of,
    load,
    suits,
    unsupported,
)
from tinyo_runtime.images.layout import Layout, name_of
from tinyo_runtime.images.once import Listener, Once
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.registry import Registry

#: Layers that are fetched and unpacked at the same time.
PARALLEL = 4
#: What the kernel says to names, links and attributes that nobody can make.
_BLAMED_ON_THE_LAYER = (
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EINVAL,
    errno.E2BIG,
    errno.ERANGE,
    errno.EMLINK,
)
#: Seconds between two reports of progress.
INTERVAL = 0.1
_CHUNK = 1 << 18
_UNPACK = [sys.executable, "-I", str(Path(unpack.__file__).with_name("__main__.py"))]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PLATFORM = f"linux/{_ARCHITECTURES.get(machine.machine(), machine.machine())}"


class Puller:
    """Pulls into one layout; the same image or layer that is asked for twice at a time is fetched once."""

    def __init__(self, layout: Layout, insecure: frozenset[str]) -> None:
        self._layout = layout
        self._insecure = insecure
        self._registries: dict[str, Registry] = {}
        self._images: Once[str, PullProgress] = Once()
        self._layers: Once[None, int] = Once()
        self._limit = asyncio.Semaphore(PARALLEL)
        self._disk = _Disk(layout.pulling)
        #: Digests and diff IDs that pulls under way rely on; they must not be swept.
        self.wanted: list[str] = []

    async def close(self) -> None:
        """Ends every connection."""
        for registry in self._registries.values():
            await registry.close()

    async def pull(
        self, reference: Reference, platform: str, refresh: bool, progress: Listener[PullProgress]
    ) -> str:
        """Digest of the manifest of the image, which is complete then. Raises TinyoError."""
        work = partial(self._pull, reference, platform or PLATFORM, refresh)
        try:
            return await self._images.join((reference, platform, refresh), work, progress)
        except Malformed as error:
            raise corrupt(reference, str(error)) from error
        except OSError as error:
            raise TinyoError.of(error) from error

    async def _pull(
        self, reference: Reference, platform: str, refresh: bool, tell: Listener[PullProgress]
    ) -> str:
        descriptor, data = await self._resolve(reference, platform, refresh)
        manifest = Manifest.parse(data)
        if manifest.config.media_type not in CONFIG_TYPES:
            raise unsupported(reference, manifest.config.media_type)
        document = self._local(manifest.config)
        if document is None:
            document = await self._registry(reference).document(reference, manifest.config)
        configuration = Configuration.parse(document)
        if not suits(configuration.platform, platform):
            raise _platform_missing(reference, platform, [configuration.platform])
        if len(manifest.layers) != len(configuration.diff_ids):
            raise Malformed(f"{len(manifest.layers)} layers, but {len(configuration.diff_ids)} diff IDs")
        relied = [descriptor.digest, manifest.config.digest, *configuration.diff_ids]
        relied += [layer.digest for layer in manifest.layers]
        self.wanted.extend(relied)
        try:
            await self._pull_layers(reference, manifest, configuration, tell)
            for digest, content in ((descriptor.digest, data), (manifest.config.digest, document)):
                if not self._layout.blob(digest).exists():
                    self._layout.write(self._layout.blob(digest), content)
            self._layout.tag(str(reference), descriptor, configuration.platform)
        finally:
            for name in relied:
                self.wanted.remove(name)
        return descriptor.digest

    async def _resolve(self, reference: Reference, platform: str, refresh: bool) -> tuple[Descriptor, bytes]:
        """The manifest for the platform: what is here already, or what the registry says now."""
        if not refresh and (present := self._present(reference, platform)):
            return present
        descriptor, data = await self._registry(reference).manifest(reference)
        if descriptor.media_type not in INDEX_TYPES:
            return descriptor, data
        chosen, available = choose(data, platform)
        if chosen is None:
            raise _platform_missing(reference, platform, available)
        exact = Reference(reference.registry, reference.repository, digest=chosen.digest)
        return await self._registry(reference).manifest(exact)

    def _present(self, reference: Reference, platform: str) -> tuple[Descriptor, bytes] | None:
        """The manifest that has the reference or digest here, if its documents are here and suit the platform."""
        for entry in self._layout.entries():
            if reference.digest != entry.get("digest") and str(reference) != name_of(entry):
                continue
            descriptor = Descriptor.parse(entry)
            if (data := self._local(descriptor)) and descriptor.media_type in INDEX_TYPES:
                chosen, _ = choose(data, platform)
                descriptor = chosen or descriptor
                data = self._local(chosen) if chosen else None
            document = self._local(Manifest.parse(data).config) if data else None
            if data and document and suits(Configuration.parse(document).platform, platform):
                return descriptor, data
        return None

    def _local(self, descriptor: Descriptor) -> bytes | None:
        """A document that is here; None when it is not, or not as it should be."""
        path = self._layout.blob(descriptor.digest)
        if descriptor.size > MAX_DOCUMENT or not path.exists():
            return None
        data = path.read_bytes()
        return data if digest_of(data) == descriptor.digest else None

    def _registry(self, reference: Reference) -> "Registry":
        from tinyo_runtime.images.registry import Registry  # httpx takes long to import

        if reference.registry not in self._registries:
            self._registries[reference.registry] = Registry(reference.registry, self._insecure)
        return self._registries[reference.registry]

    async def _pull_layers(
        self,
        reference: Reference,
        manifest: Manifest,
        configuration: Configuration,
        tell: Listener[PullProgress],
    ) -> None:
        """Returns when every layer is in its place."""
        states = [LayerProgress(digest=layer.digest, total_bytes=layer.size) for layer in manifest.layers]
        reported = 0.0

        def report() -> None:
            nonlocal reported
            reported = time.monotonic()
            tell(PullProgress(reference=str(reference), layers=states))

        async def pull(descriptor: Descriptor, diff_id: str, state: LayerProgress) -> None:
            def received(count: int) -> None:
                state.received_bytes = count
                if time.monotonic() - reported >= INTERVAL:
                    report()

            present = self._layout.layer(diff_id).exists()
            state.shared = present or diff_id in self._layers
            if not present:
                work = partial(self._pull_layer, reference, descriptor, diff_id)
                await self._layers.join(diff_id, work, received)
            state.complete = True

        parts = zip(manifest.layers, configuration.diff_ids, states, strict=True)
        tasks = [asyncio.create_task(pull(*part)) for part in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        report()

    async def _pull_layer(
        self, reference: Reference, descriptor: Descriptor, diff_id: str, tell: Listener[int]
    ) -> None:
        with self._layout.temporary() as folder:
            async with self._limit:
                await self._unpack(reference, descriptor, diff_id, folder, tell)
            await self._disk.sync()
            if (folder / "blob").exists():
                (folder / "blob").rename(self._layout.blob(descriptor.digest))
            (folder / "tree").rename(self._layout.layer(diff_id))

    async def _unpack(
        self, reference: Reference, descriptor: Descriptor, diff_id: str, folder: Path, tell: Listener[int]
    ) -> None:
        """Streams a layer from here or from the registry through the confined process into `folder`/tree."""
        blob = self._layout.blob(descriptor.digest)
        if blob.exists():
            source, copy_to = _read(blob), os.devnull
        else:
            source, copy_to = self._registry(reference).blob(reference, descriptor), str(folder / "blob")
        (folder / "tree").mkdir()
        process = await asyncio.create_subprocess_exec(
            *_UNPACK,
            str(folder / "tree"),
            descriptor.media_type,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={},
        )
        assert process.stdin and process.stdout
        digest = hashlib.sha256()
        count = 0
        try:
            async with contextlib.aclosing(source):
                with open(copy_to, "wb") as copy, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    async for chunk in source:
                        digest.update(chunk)
                        copy.write(chunk)
                        count += len(chunk)
                        tell(count)
                        process.stdin.write(chunk)
                        await process.stdin.drain()  # a broken pipe means that the verdict is there already
            process.stdin.close()
            answer = await process.stdout.read(1 << 16)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if count == descriptor.size:
            check_digest(reference, descriptor.digest, f"sha256:{digest.hexdigest()}")
        _judge(reference, descriptor, diff_id, answer, self._layout.layers)


class _Disk:
    """syncfs(2), shared by all who wait for it at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def sync(self) -> None:
        """Returns when everything that was written before the call has reached the disk. Raises OSError."""
        if self._next is None:
            self._next = asyncio.create_task(self._sync(self._running))
        await asyncio.shield(self._next)

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._syncfs)

    def _syncfs(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd) == -1:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self._folder))
        finally:
            os.close(fd)


_libc = ctypes.CDLL(None, use_errno=True)


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _judge(reference: Reference, descriptor: Descriptor, diff_id: str, answer: bytes, folder: Path) -> None:
    """What the confined process says, which is believed only where it cannot do harm."""
    try:
        verdict = load(answer)
    except Malformed:
        raise TinyoError(
            grpc.StatusCode.INTERNAL,
            "INTERNAL",
            f"unpacking layer {descriptor.digest} of {reference} ended without a verdict",
        ) from None
    if not (error := verdict.get("error")):
        check_digest(reference, diff_id, str(verdict.get("diff_id")))
    elif error == "unsupported":
        raise unsupported(reference, descriptor.media_type, str(verdict.get("message")))
    elif error == "system" and verdict.get("errno") not in _BLAMED_ON_THE_LAYER:
        number = verdict.get("errno")
        text = str(verdict.get("message"))
        raise OSError(number if isinstance(number, int) else errno.EIO, text, str(folder))
    else:
        raise corrupt(reference, f"layer {descriptor.digest}: {verdict.get('message')}")


def _platform_missing(reference: Reference, platform: str, available: list[str]) -> TinyoError:
    offered = ", ".join(available) or "none"
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_PLATFORM_MISSING",
        f"image {reference} is not made for {platform}, but for {offered}",
        {"reference": str(reference), "platform": platform, "available": offered},
    )
