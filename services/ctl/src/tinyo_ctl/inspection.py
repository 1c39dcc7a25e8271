"""`tinyo image inspect` and `history`: what an image says of itself, which is shown and never obeyed."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.image_pb2 import ImageDetails, ImageLayer

from tinyo_ctl.failures import Failure
from tinyo_ctl.render import ago, size, table
from tinyo_ctl.services import node

#: Characters of a command that a terminal is shown.
WIDTH = 60


def inspect(options: argparse.Namespace) -> int:
    """`tinyo image inspect`."""
    details, configuration = look(options)
    image = details.image
    document = {
        "digest": image.digest,
        "references": list(image.references),
        "platform": image.platform,
        "created": configuration.get("created"),
        "size": image.size_bytes,
        "complete": not image.incomplete,
        "config": configuration.get("config"),
        "layers": [
            {
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "media_type": layer.media_type,
                "size": layer.size_bytes,
                "unpacked_size": layer.unpacked_bytes if layer.HasField("unpacked_bytes") else None,
            }
            for layer in details.layers
        ],
    }
    try:
        print(json.dumps(document, indent=2))  # in ASCII: no terminal obeys it
    except RecursionError:
        raise Failure("the configuration of the image is nested too deeply to be shown") from None
    return 0


def history(options: argparse.Namespace) -> int:
    """`tinyo image history`."""
    details, configuration = look(options)
    rows = [*steps(configuration.get("history"), list(details.layers))]
    print(table([("CREATED", "SIZE", "COMMAND"), *reversed(rows)]))
    return 0


def look(options: argparse.Namespace) -> tuple[ImageDetails, dict[str, Any]]:
    """What the node knows of an image, and its configuration."""
    with node(options.host) as calls:
        details = calls.InspectImage(api.InspectImageRequest(reference=options.reference)).details
    # There is no NaN in JSON, though Python reads it.
    return details, json.loads(details.configuration, parse_constant=lambda _: None)


def steps(entries: Any, layers: list[ImageLayer]) -> Iterator[tuple[str, str, str]]:
    """A row for each step of its making, the oldest first; layers that no step names come at the end."""
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            layer = layers.pop(0) if not entry.get("empty_layer") and layers else None
            made_by = entry.get("created_by") or entry.get("comment") or ""
            yield when(entry.get("created")), unpacked(layer), shortened(str(made_by))
    for layer in layers:
        yield "", unpacked(layer), ""


def when(created: Any) -> str:
    """How long ago that was; empty when nobody knows."""
    try:
        return f"{ago(time.time() - datetime.fromisoformat(created).timestamp())} ago"
    except (TypeError, ValueError, OverflowError):
        return ""


def unpacked(layer: ImageLayer | None) -> str:
    """What a layer takes on the disk; "-" while it is not unpacked."""
    if layer is None:
        return size(0)
    return size(layer.unpacked_bytes) if layer.HasField("unpacked_bytes") else "-"


def shortened(text: str) -> str:
    """A command on one line, as much of it as a terminal has room for; all of it elsewhere."""
    line = " ".join(text.split())
    return f"{line[: WIDTH - 1]}…" if len(line) > WIDTH and sys.stdout.isatty() else line
