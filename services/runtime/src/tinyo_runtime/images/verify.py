"""Everything in an image is hostile: what is read of it is checked before anybody relies on it."""

import errno
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyo_runtime.images import answers, child, choice, digests, failures, kinds, order, platforms
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Manifests, indexes and configurations are no larger than this (OCI distribution asks for 4 MiB).
MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 500
#: What the kernel says to names, links and attributes that nobody can make.
_BLAMED_ON_THE_LAYER = (
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EINVAL,
    errno.E2BIG,
    errno.ERANGE,
    errno.EMLINK,
    errno.EFBIG,
)
#: Bytes of what the confined process says when it should not.
_MAX_WORDS = 200
_DESCRIPTOR: tuple[tuple[str, type], ...] = (("mediaType", str), ("digest", str), ("size", int))


class Verified(Base):
    """Fetches, reads and unpacks only what is as it was promised."""

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes; at their end, if not before, IMAGE_CORRUPT when they are others than their digest's."""
        digest, count = digests.Digest(content["digest"]), 0
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                count += len(chunk)
                if kind == "manifests" and count > MAX_DOCUMENT:
                    raise failures.too_large(reference, MAX_DOCUMENT)
                if count > content.get("size", MAX_DOCUMENT):
                    why = f"{content['digest']} is larger than {content['size']} bytes"
                    raise failures.corrupt(reference, why)
                yield chunk
        if kind == "blobs" or DIGEST.fullmatch(content["digest"]):
            _same(reference, content["digest"], str(digest))

    async def read(self, reference: Reference, kind: str, content: Document) -> tuple[bytes, Document]:
        """The same document, which can be relied on. Raises TinyoError and Malformed."""
        if kind == "blobs" and content["size"] > MAX_DOCUMENT:
            why = f"a document of {content['size']} bytes is more than {MAX_DOCUMENT}"
            raise failures.corrupt(reference, why)
        pull = order.current()
        data, document = await self._read(reference, kind, content)
        if kind == "blobs":
            configuration(reference, document, pull)
        elif "manifests" in document and not pull.chosen:
            document = await self._choose(reference, document, pull)
        else:
            pull.manifest = manifest(document)
            kinds.check_config(reference, document["config"]["mediaType"])
            for layer in document["layers"]:
                kinds.check_layer(reference, layer["mediaType"])
        return data, document

    async def _read(self, reference: Reference, kind: str, content: Document) -> tuple[bytes, Document]:
        """A JSON object of the kind that its media type says."""
        answers.promised.set(answers.Promise())
        try:
            data, document = await super().read(reference, kind, content)
        except (ValueError, RecursionError) as error:
            raise Malformed("it is not JSON") from error
        if not isinstance(document, dict):
            raise Malformed("it is not a JSON object")
        if kind == "manifests":
            promise, pull = answers.promised.get(), order.current()
            if promise.digest:
                _same(reference, promise.digest, digests.of(data, promise.digest))
            pull.resolved = pull.resolved or promise.digest or digests.of(data)
            kinds.check_content(reference, document, promise.media_type)
        return data, document

    async def _choose(self, reference: Reference, document: Document, pull: order.Order) -> Document:
        """An index with nothing but what is to be pulled. Raises Malformed and IMAGE_PLATFORM_MISSING."""
        pull.chosen = True  # the next one is to be a manifest
        offered = choice.offers(document)
        found = choice.best(offered, pull.platform)
        if not found:
            for entry in choice.nested(offered, pull.platform):
                _descriptor(entry)
                offered += choice.offers((await self._read(reference, "manifests", entry))[1])
            found = choice.best(offered, pull.platform)
        if not found:
            raise failures.platform_missing(reference, platforms.name(pull.platform), choice.names(offered))
        _descriptor(found)
        pull.offered = found.get("platform") or {}
        return {"manifests": [found | {"platform": pull.platform}]}

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word, when it is a good one."""
        try:
            answer = await super().unpack(reference, layer, diff_id, folder)
        except child.Died as error:
            raise failures.not_unpacked(reference, layer["digest"], str(error)) from None
        _judge(reference, layer, diff_id, answer, self.root / "layers")
        size = (folder / "blob").stat().st_size
        if size != layer["size"]:
            why = f"layer {layer['digest']} ends after {size} of {layer['size']} bytes"
            raise failures.corrupt(reference, why)
        return answer


def manifest(document: Document) -> Document:
    """A manifest of one image. Raises Malformed."""
    if "manifests" in document:
        raise Malformed("it is a manifest and an index at the same time, or an index in an index")
    layers = member(document, "layers", list)
    if len(layers) > MAX_LAYERS:
        raise Malformed(f"{len(layers)} layers are more than {MAX_LAYERS}")
    for descriptor in (member(document, "config", dict), *layers):
        _descriptor(descriptor)
    return document


def configuration(reference: Reference, document: Document, pull: order.Order) -> None:
    """The configuration of the image that is pulled. Raises Malformed and IMAGE_PLATFORM_MISSING."""
    configured(document)
    if pull.offered:  # the variant is the index's to say: configurations often lack it
        suits = platforms.normal(pull.offered)[:2] == platforms.normal(document)[:2]
    else:
        suits = platforms.rank(pull.platform, document) is not None
    if not suits:
        offered = [platforms.name(document)]
        raise failures.platform_missing(reference, platforms.name(pull.platform), offered)
    layers, diff_ids = pull.manifest["layers"], document["rootfs"]["diff_ids"]
    if len(layers) != len(diff_ids):
        raise Malformed(f"{len(layers)} layers, but {len(diff_ids)} diff IDs")


def configured(document: Document) -> Document:
    """The configuration of an image. Raises Malformed."""
    root = member(document, "rootfs", dict)
    member(root, "diff_ids", list)
    if not all(map(DIGEST.fullmatch, _strings(root, "diff_ids"))):
        raise Malformed("a diff ID is not a digest")
    for key in ("os", "architecture", "variant", "created"):
        member(document, key, str, "")
    process = member(document, "config", dict, {})
    for key in ("Entrypoint", "Cmd", "Env"):
        _strings(process, key)
    for key in ("WorkingDir", "User", "StopSignal"):
        member(process, key, str, "")
    return document


def load(data: bytes) -> Document:
    """A JSON object. Raises Malformed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("it is not JSON") from error
    if not isinstance(document, dict):
        raise Malformed("it is not a JSON object")
    return document


def _descriptor(document: Any) -> None:
    _, digest, size = (member(document, key, kind) for key, kind in _DESCRIPTOR)
    if not DIGEST.fullmatch(digest) or size < 0:
        raise Malformed(f"a descriptor has digest {digest[:80]!r} and size {size}")


def _strings(document: Document, key: str) -> list[str]:
    values: list[str] = member(document, key, list, [])
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise Malformed(f"{key!r} is not a list of texts")
    return values


def _same(reference: Reference, expected: str, actual: str) -> None:
    if actual != expected:
        why = f"expected {expected}, got {actual}"
        raise failures.corrupt(reference, why, expected=expected, actual=actual)


def _judge(reference: Reference, layer: Document, diff_id: str, answer: bytes, folder: Path) -> None:
    """What the confined process says, which is believed only where it cannot do harm."""
    try:
        verdict = load(answer)
    except Malformed:
        why = f"it ended without a verdict, but with {answer[:_MAX_WORDS]!r}"
        raise failures.not_unpacked(reference, layer["digest"], why) from None
    if not (error := verdict.get("error")):
        _same(reference, diff_id, str(verdict.get("diff_id")))
    elif error == "unsupported":
        raise failures.unsupported(reference, layer["mediaType"], str(verdict.get("message")))
    elif error == "system" and verdict.get("errno") not in _BLAMED_ON_THE_LAYER:
        number = verdict.get("errno")
        text = str(verdict.get("message"))
        raise OSError(number if isinstance(number, int) else errno.EIO, text, str(folder))
    else:
        raise failures.corrupt(reference, f"layer {layer['digest']}: {verdict.get('message')}")
