"""Takes in an archive that somebody sends, by a confined process that reads and writes it (`unpack/scan.py`)."""

import asyncio
import errno
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import child, kinds, verify
from tinyo_runtime.images.archive import Archive, unusable
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.trash import Trash

SCAN = [sys.executable, "-I", str(Path(__file__).parents[1] / "unpack/scan.py")]
#: How an archive begins that is compressed in a way that is not known here.
_REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"LZIP": "lzip", b"\x04\x22\x4d\x18": "lz4"}
_LONGEST = 6
#: Bytes of what the confined process says.
_MAX_ANSWER = 64 << 20


async def receive(folder: Path, chunks: AsyncIterator[bytes], trash: Trash) -> Archive:
    """Takes in what comes, compressed or not, below a folder. Raises TinyoError and OSError."""
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _LONGEST:
            break
    media_type = _media_type(head)
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        scanner = await asyncio.create_subprocess_exec(
            *SCAN, str(place), media_type, stdin=PIPE, stdout=PIPE, env={}, limit=_MAX_ANSWER // 2
        )
        assert scanner.stdin and scanner.stdout
        async with child.ended(scanner):
            scanner.stdin.write(head)
            async for chunk in chunks:
                scanner.stdin.write(chunk)
                await scanner.stdin.drain()
        answer = b""
        while len(answer) < _MAX_ANSWER and (piece := await scanner.stdout.read(_MAX_ANSWER)):
            answer += piece
        return Archive(place, _judged(answer, folder), trash)
    except child.Died as error:
        trash.discard(place)
        raise _unread(str(error)) from None
    except BaseException:
        trash.discard(place)
        raise


def _media_type(head: bytes) -> str:
    """How an archive is packed that begins so."""
    if not head:
        raise unusable("it is empty")
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise unusable(f"it is compressed by {name}: unpack it, or use gzip or zstd")
    packed = kinds.compression(head)
    return f"tar+{packed}" if packed else "tar"


def _unread(why: str) -> TinyoError:
    message = f"reading the archive ended without a verdict: {why}"
    return TinyoError(grpc.StatusCode.INTERNAL, "INTERNAL", message)


def _judged(answer: bytes, folder: Path) -> dict[str, Any]:
    """What the confined process found. Raises TinyoError and OSError."""
    try:
        facts = verify.load(answer)
    except Malformed:
        raise _unread(f"it said {answer[:200]!r}") from None
    if not (error := facts.get("error")):
        return facts
    if error == "system":
        number = facts.get("errno")
        raise OSError(
            number if isinstance(number, int) else errno.EIO, str(facts.get("message")), str(folder)
        )
    # The words of unpacking, where everything is a layer.
    raise unusable(str(facts.get("message")).replace("the layer", "it"))
