"""What reads text and bytes of strangers, as functions of bytes. Whatever they are given, one of these ends a call:

- it returns, and what it made of the bytes holds what it promises;
- it raises what its callers turn into one clear error.

Anything else is a finding: `make fuzz` looks for one, and keeps it in `findings/`, which the tests try again.
"""

import io
import os
from collections.abc import Callable, Iterator

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import challenges, choice, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.unpack import extensions, limits, refusals, sparse, tar

Target = Callable[[bytes], None]


def archive(data: bytes) -> None:
    """The reader of layers, less what writes them. Headers get their checksums here, which chance would not find."""
    stream = io.BytesIO(data)

    def read(size: int) -> bytes:
        piece = stream.read(size)
        if size == len(piece) == tar.BLOCK:
            total = sum(piece) - sum(piece[148:156]) + 8 * ord(" ")
            piece = piece[:148] + b"%06o\0 " % total + piece[156:]
        return piece

    limits.counts.__init__()  # type: ignore[misc]
    file = os.memfd_create("sparse")
    try:
        for entry, pieces in tar.entries(read, extensions.Extensions(read).takes):
            assert b".." not in tar.beneath(entry.name).split(b"/") and b"\0" not in entry.name + entry.link
            assert entry.size >= 0 and 0 <= entry.mode <= 0o7777
            assert sum(map(len, sparse.placed(file, entry, pieces) or pieces)) <= len(data)
    except Exception as error:
        if refusals.verdict(error) is None:
            raise
    finally:
        os.close(file)


def reference(data: bytes) -> None:
    """Names of images, as people write them. A complete name means itself."""
    try:
        name = Reference.parse(data.decode(errors="surrogateescape"))
    except TinyoError as error:
        assert error.reason == "IMAGE_REFERENCE_INVALID" and error.message.isprintable()
        return
    assert Reference.parse(str(name)) == name
    assert ".." not in f"{name.registry}/{name.repository}".split("/") and str(name).isascii()


def manifest(data: bytes) -> None:
    """Documents of a registry: manifests, indexes, configurations."""
    for check in (_manifest, _index, _configuration):
        try:
            check(data)
        except (Malformed, TinyoError) as error:
            assert str(error)


def _manifest(data: bytes) -> None:
    document = verify.manifest(verify.load(data))
    assert all(layer["size"] >= 0 and layer["digest"].startswith("sha") for layer in document["layers"])


def _index(data: bytes) -> None:
    offered = choice.offers(verify.load(data))
    platform = {"os": "linux", "architecture": "amd64"}
    found = [choice.best(offered, platform), *choice.nested(offered, platform)]
    assert all(entry in offered for entry in found if entry)
    assert len(choice.names(offered)) <= len(offered)


def _configuration(data: bytes) -> None:
    verify.configured(verify.load(data))


def challenge(data: bytes) -> None:
    """The header by which a registry asks for a token."""
    for scheme, fields in challenges.parse(data.decode("latin-1")).items():
        assert scheme == scheme.lower() and all(key == key.lower() for key in fields)


TARGETS: dict[str, Target] = {target.__name__: target for target in (archive, reference, manifest, challenge)}


def seeds(name: str) -> Iterator[bytes]:
    """Good and bad examples to begin with."""
    from tests.support import corpus, images

    match name:
        case "archive":
            for key in (
                "kinds",
                "attributes",
                "hard links",
                "nanoseconds",
                "numbers, gnu",
                "whiteouts of all kinds",
            ):
                yield corpus.CORPUS[key]()[0].rstrip(b"\0")
            for key in ("sparse, gnu", "sparse, 0.0", "sparse, 0.1", "sparse, 1.0"):
                yield corpus.CORPUS[key]()[0].rstrip(b"\0")[:8192]
        case "reference":
            yield from (b"alpine", b"docker.io/library/alpine:3.20", b"[::1]:5000/a/b-c__d:t", b"localhost/x")
            yield b"host.test:443/team/app:1@sha256:" + b"0" * 64
        case "manifest":
            built = images.index([images.busybox()], attested=True)
            yield from (blob for blob in built.blobs.values() if blob.startswith(b"{"))
        case "challenge":
            yield b'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a:pull"'
            yield b'Basic realm="a \\"quoted\\" one", Bearer realm=plain , error=insufficient_scope'


def findings(name: str) -> Iterator[bytes]:
    """What was found once."""
    folder = os.path.join(os.path.dirname(__file__), "findings")
    for file in sorted(os.listdir(folder)):
        if file.startswith(f"{name}-"):
            with open(os.path.join(folder, file), "rb") as found:
                yield found.read()
