"""How much a layer may be: what was counted of the one that is unpacked, and where that ends."""

import os

from tinyo_runtime.unpack.refusals import Refused

MAX_ENTRIES = 2_000_000
MAX_DEPTH = 256
#: Bytes that a layer may unpack to: in all, and for each byte that was read, beyond a first allowance.
MAX_SIZE = 256 << 30
MAX_RATIO, ALLOWANCE = 250, 256 << 20
#: Folders that are kept open; the path of one more may be opened beside them.
_MAX_OPEN = 256


class Counts:
    """Of the layer that this process unpacks."""

    def __init__(self) -> None:
        #: Bytes of the layer as it came, and of the archive in it.
        self.received = self.size = 0
        self.entries = 0
        #: Device nodes, and attributes that this file system cannot hold.
        self.skipped = 0

    def unpacked(self, data: bytes) -> None:
        """Bytes that the archive goes on with."""
        self.size += len(data)
        if self.size > min(MAX_SIZE, ALLOWANCE + MAX_RATIO * self.received):
            raise Refused(f"the layer unpacks to more than {self.size} bytes from {self.received}")

    def entry(self) -> None:
        """One more."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise Refused(f"the layer has more than {MAX_ENTRIES} entries")

    def figures(self) -> dict[str, int]:
        """For the verdict."""
        return {"size": self.size, "entries": self.entries, "skipped": self.skipped}


counts = Counts()


def folders(opened: dict[bytes, int], path: bytes) -> None:
    """Before one more is opened: neither too deep, nor too many at a time."""
    if path.count(b"/") >= MAX_DEPTH:
        raise Refused(f"{path.count(b'/') + 1} folders deep is more than {MAX_DEPTH}")
    if len(opened) > _MAX_OPEN:
        for known in [known for known in opened if known]:
            os.close(opened.pop(known))
