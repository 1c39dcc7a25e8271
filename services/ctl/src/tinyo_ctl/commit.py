"""`tinyo commit`."""

import argparse
import sys

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.image_pb2 import LAYER_COMPRESSION_GZIP, LAYER_COMPRESSION_ZSTD, CommitOptions

from tinyo_ctl.render import succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

COMPRESSIONS = {"gzip": LAYER_COMPRESSION_GZIP, "zstd": LAYER_COMPRESSION_ZSTD}


def commit(options: argparse.Namespace) -> int:
    """Makes an image of a container; what is not in it is said on standard error."""
    wanted = CommitOptions(
        author=options.author,
        message=options.message,
        changes=options.change,
        no_pause=options.no_pause,
        compression=COMPRESSIONS[options.compression],
    )
    with node(options.host) as calls:
        request = api.CommitContainerRequest(name=options.name, reference=options.image, options=wanted)
        made = calls.CommitContainer(request)
    for note in made.notes:
        print(f"note: {safe(note)}", file=sys.stderr)
    succeed(safe(made.reference), safe(made.image.digest))
    return 0
