"""The program: reads a compressed layer from standard input, fills a folder, prints the verdict."""

import hashlib
import json
import os
import sys

from isal import igzip

# This very installation, whatever else the interpreter may find.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.unpack import ahead, confine, extensions, formats, limits, nursery, refusals, tar, tree


def unpack(folder: str, media_type: str, algorithm: str = "sha256") -> dict[str, object]:
    """Fills the folder; the verdict. Raises Refused and OSError."""
    formats.watch_input(media_type)
    content = formats.opened(media_type) or igzip.IGzipFile(fileobj=sys.stdin.buffer)  # type: ignore[no-untyped-call]
    digest = hashlib.new(algorithm)

    def read(size: int) -> bytes:
        """The next bytes of the archive: as many as were asked for, except at its end."""
        data: bytes = content.read(size)
        digest.update(data)
        limits.counts.unpacked(data)
        return data

    target = tree.Tree(folder)
    confine.confine(folder)
    archive = ahead.reader(read) or read
    for entry, data in tar.entries(archive, extensions.Extensions(archive).takes):
        target.add(entry, data)
    target.finish()
    return {"diff_id": f"{algorithm}:{digest.hexdigest()}"} | dict(limits.counts.figures())


arguments = nursery.child() or sys.argv[1:]
with refusals.reported():
    print(json.dumps(unpack(*arguments)), flush=True)
os._exit(0)  # nothing of the interpreter's end may look for files, which would be the layer's
