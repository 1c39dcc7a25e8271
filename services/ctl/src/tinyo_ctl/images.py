"""`tinyo image …`."""

import argparse
import sys

from tinyo.node.v1 import node_pb2 as api

from tinyo_ctl.refusals import NodeError, node_errors
from tinyo_ctl.render import fail, size, succeed, table
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe


def show(options: argparse.Namespace) -> int:
    """`tinyo image ls`."""
    with node(options.host) as calls:
        images = calls.ListImages(api.ListImagesRequest()).images
    rows = [
        (
            reference,
            one.digest[:19],
            one.platform,
            size(one.size_bytes) + (", not unpacked" if one.incomplete else ""),
        )
        for one in images
        for reference in (one.references or ["<none>"])
    ]
    if options.output == "name":
        sys.stdout.writelines(f"{safe(reference)}\n" for reference, *_ in rows)
    elif rows:
        print(table([("REFERENCE", "DIGEST", "PLATFORM", "SIZE"), *rows]))
    else:
        print("no image is here; `tinyo image pull IMAGE` fetches one", file=sys.stderr)
    return 0


def remove(options: argparse.Namespace) -> int:
    """`tinyo image rm`: each by itself, so that one that is in use does not keep the others."""
    code = 0
    with node(options.host) as calls:
        for reference in options.references:
            try:
                with node_errors():
                    removed = calls.RemoveImage(api.RemoveImageRequest(reference=reference)).removed
            except NodeError as error:
                fail(safe(reference), str(error))
                code = max(code, error.exit_code)
            else:
                for name in removed or [reference]:
                    succeed(safe(name), "removed")
    return code
