"""The program: reads a compressed layer from standard input, fills a folder, prints the verdict."""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import BinaryIO, cast

from isal import igzip, isal_zlib

if __name__ == "__main__":  # of this very installation, whatever else the interpreter may find
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.unpack import tar
from tinyo_runtime.unpack.confine import confine
from tinyo_runtime.unpack.tar import Refused, Stream, Unsupported
from tinyo_runtime.unpack.tree import Tree

CHUNK = 1 << 20
#: Bytes that a layer may unpack to: in all, and for each byte that was read, beyond a first allowance.
MAX_SIZE = 256 << 30
MAX_RATIO, ALLOWANCE = 250, 256 << 20

Read = Callable[[int], bytes]

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Layer(io.RawIOBase):
    """Standard input: how it begins, and how many bytes came from it."""

    def __init__(self) -> None:
        self.start = b""
        while len(self.start) < 4 and (more := os.read(0, 4 - len(self.start))):
            self.start += more
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.count < len(self.start):  # the first read gives back what was looked at
            read = len(self.start)
            buffer[:read] = self.start
        else:
            read = os.readv(0, [buffer])
        self.count += read
        return read


def decompressed(layer: Layer, media_type: str) -> Read:
    """How to read the archive; Refused when it is not compressed as its media type says."""
    found = "gzip" if layer.start.startswith(_GZIP) else "zstd" if layer.start == _ZSTD else "tar"
    said = media_type.replace("+", ".").rpartition(".")[2]
    if said not in ("tar", "gzip", "zstd"):
        raise Unsupported(f"layers of type {media_type!r} are not known")
    if said != found:
        raise Refused(f"the layer is said to be {said}, but is {found}")
    compressed = cast(BinaryIO, io.BufferedReader(layer, CHUNK))
    if found == "gzip":
        return igzip.IGzipFile(fileobj=compressed).read  # type: ignore[no-untyped-call]
    if found == "zstd":
        return _zstd(compressed)
    return compressed.read


def _zstd(compressed: BinaryIO) -> Read:
    import zstandard  # rare, and slow to load

    reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(
        compressed, read_across_frames=True
    )

    def read(size: int) -> bytes:
        try:
            return reader.read(size)
        except zstandard.ZstdError as error:
            raise Refused(f"zstd: {error}") from error

    return read


def unpack(read: Read, layer: Layer) -> dict[str, object]:
    """Fills the current root. Raises Refused and OSError."""
    digest = hashlib.sha256()
    size = 0

    def fill() -> bytes:
        nonlocal size
        chunk = read(CHUNK)
        digest.update(chunk)
        size += len(chunk)
        if size > min(MAX_SIZE, ALLOWANCE + MAX_RATIO * layer.count):
            raise Refused(f"the layer unpacks to more than {size} bytes from {layer.count}")
        return chunk

    stream = Stream(fill)
    tree = Tree(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    for entry in tar.entries(stream):
        tree.add(entry, stream)
    while fill():
        pass
    tree.finish()
    diff_id = f"sha256:{digest.hexdigest()}"
    return {"diff_id": diff_id, "size": size, "entries": tree.entries, "skipped": tree.skipped}


def main() -> None:
    """Every way to end prints one line; exit code 0 means that the line can be relied on."""
    folder, media_type = sys.argv[1:]
    verdict: dict[str, object]
    try:
        layer = Layer()
        read = decompressed(layer, media_type)
        confine(folder)
        verdict = unpack(read, layer)
    except Unsupported as error:
        verdict = {"error": "unsupported", "message": str(error)}
    except (Refused, EOFError, isal_zlib.IsalError, igzip.BadGzipFile) as error:  # type: ignore[misc]
        verdict = {"error": "corrupt", "message": str(error)}
    except MemoryError:
        verdict = {"error": "corrupt", "message": "the layer needs too much memory"}
    except OSError as error:
        name = f" for {error.filename!r}" if error.filename else ""
        verdict = {"error": "system", "errno": error.errno, "message": f"{error.strerror or error}{name}"}
    os.write(1, json.dumps(verdict).encode() + b"\n")
    os._exit(0)  # nothing of the interpreter's end may look for files, which would be the layer's


if __name__ == "__main__":
    main()
