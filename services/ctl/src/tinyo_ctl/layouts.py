"""The folder of an OCI layout (OCI image specification, image-layout.md) as a tar, and back."""

import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator

from tinyo_ctl.failures import Failure
from tinyo_ctl.tell import safe

#: What a layout has; whatever else there is, nobody needs.
DOCUMENTS = ("oci-layout", "index.json")
_ALGORITHM, _BLOB = re.compile(r"[a-z0-9]+"), re.compile(r"[0-9a-zA-Z=_-]{1,256}")
_CHUNK = 512 << 10


def packed(folder: str) -> Iterator[bytes]:
    """A folder as a tar. Raises Failure when it is no layout, or a file changes meanwhile, and OSError."""
    if not os.path.isfile(f"{folder}/oci-layout"):
        raise Failure(
            f"{safe(folder)} is no OCI layout, because it has no file oci-layout; a root file system is imported "
            f"as an archive: tar -C {safe(folder)} -c . | tinyo image import - --name NAME"
        )
    return _packed(folder)


def _packed(folder: str) -> Iterator[bytes]:
    for name in (*DOCUMENTS, *_blobs(folder)):
        descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            if not os.path.isfile(f"/proc/self/fd/{descriptor}"):
                raise Failure(f"{safe(name)} in {safe(folder)} is not a file")
            member = tarfile.TarInfo(name)
            member.size = left = os.fstat(descriptor).st_size
            yield member.tobuf(tarfile.GNU_FORMAT)
            while left:
                piece = file.read(min(left, _CHUNK))
                if not piece:
                    raise Failure(f"{safe(name)} in {safe(folder)} became shorter while it was read")
                left -= len(piece)
                yield piece
            yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _blobs(folder: str) -> Iterator[str]:
    for algorithm in sorted(os.listdir(f"{folder}/blobs")):
        if _ALGORITHM.fullmatch(algorithm):
            names = sorted(filter(_BLOB.fullmatch, os.listdir(f"{folder}/blobs/{algorithm}")))
            yield from (f"blobs/{algorithm}/{name}" for name in names)


def unpack(archive: Iterable[bytes], folder: str) -> None:
    """Makes a folder of what `export` sends, whole or not at all. Raises Failure."""
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise Failure(f"{safe(folder)} is there already: name a folder that is new, or empty")
    path = os.path.realpath(folder)
    try:
        unfinished = tempfile.mkdtemp(prefix=f".{os.path.basename(path)[:200]}.", dir=os.path.dirname(path))
        try:
            _unpack(archive, unfinished)
            os.chmod(unfinished, 0o777 & ~_umask())
            os.rename(unfinished, path)
        except BaseException:
            shutil.rmtree(unfinished)
            raise
    except OSError as error:
        raise Failure(f"{safe(folder)} cannot be written: {error.strerror}") from None
    except tarfile.TarError as error:
        raise Failure(f"what the node sent is no archive: {safe(str(error))}") from None


def _unpack(archive: Iterable[bytes], folder: str) -> None:
    chunks = iter(archive)
    with tarfile.open(fileobj=_Stream(chunks), mode="r|") as members:  # type: ignore[call-overload]
        for member in members:
            place, _, name = member.name.rpartition("/")
            blobs, _, algorithm = place.partition("/")
            is_blob = blobs == "blobs" and _ALGORITHM.fullmatch(algorithm) and _BLOB.fullmatch(name)
            if not member.isfile() or not (is_blob or member.name in DOCUMENTS):
                continue
            os.makedirs(f"{folder}/{place}", exist_ok=True)
            with members.extractfile(member) as source, open(f"{folder}/{member.name}", "xb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
                target.flush()
                os.fsync(target.fileno())
    for _ in chunks:  # the call ends well, or all this is for nothing
        pass


class _Stream:
    """Chunks as tarfile wants to read them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """As many bytes as were asked for, except at the end."""
        parts, missing = [self._rest], size - len(self._rest)
        while missing > 0 and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
