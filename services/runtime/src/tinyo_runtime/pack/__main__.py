"""The program: reads a folder, writes a compressed layer to a descriptor, prints the verdict."""

import json
import os
import sys

# This very installation, whatever else the interpreter may find.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.pack import output, sealed, walk
from tinyo_runtime.unpack import limits, refusals


def pack(folder: str, compression: str, descriptor: str) -> dict[str, object]:
    """Writes the layer; the verdict. Raises Refused and OSError."""
    compressor = output.COMPRESSORS[compression]()
    sealed.enter(folder)
    layer = output.Output(compressor(output.Counted(int(descriptor))))
    walker = walk.Walk(layer)
    walker.whole()
    return {"diff_id": layer.finish(), "left_out": walker.left_out} | dict(limits.counts.figures())


with refusals.reported():
    print(json.dumps(pack(*sys.argv[1:])), flush=True)
os._exit(0)  # nothing of the interpreter's end may look for files, which would be the container's
