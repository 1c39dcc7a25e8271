"""Digests of content (OCI image specification, descriptor.md): sha256, and sha512 where somebody names it."""

import hashlib
from pathlib import Path

_USUAL = "sha256"
_CHUNK = 1 << 20


class Digest:
    """What bytes come to, in the algorithm of the digest that they should have; sha256 when that is none."""

    def __init__(self, expected: str) -> None:
        self._algorithm = "sha512" if expected.startswith("sha512:") else _USUAL
        self._hash = hashlib.new(self._algorithm)

    def update(self, data: bytes) -> None:
        """More of them."""
        self._hash.update(data)

    def __str__(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


def of(data: bytes, expected: str = _USUAL) -> str:
    """The digest of these bytes."""
    digest = Digest(expected)
    digest.update(data)
    return str(digest)


def of_file(path: Path, expected: str = _USUAL) -> str:
    """The digest of a file's content. Raises OSError."""
    digest = Digest(expected)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return str(digest)
