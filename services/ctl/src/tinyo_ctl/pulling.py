"""`tinyo image pull`: lines and bars for people, or objects for programs."""

import argparse
import sys
from typing import Self

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.image_pb2 import Image, LayerProgress, LayerState, PullProgress

from tinyo_ctl import objects
from tinyo_ctl.progress import showing
from tinyo_ctl.refusals import NodeError, node_errors
from tinyo_ctl.render import fail, size, succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe
from tinyo_ctl.together import Stream


def pull(options: argparse.Namespace) -> int:
    """`tinyo image pull`: all at the same time, and each by itself, so that one that fails does not keep the others."""
    code, showing.detailed = 0, True
    asked = dict.fromkeys(options.references)
    tellers = [Objects(one) if options.output == "json" else Lines(one) for one in asked]
    with node(options.host) as calls, showing:
        requests = [api.PullImageRequest(reference=one, platform=options.platform) for one in asked]
        streams = [
            Stream(calls.PullImage(request), teller.shown)
            for request, teller in zip(requests, tellers, strict=True)
        ]
        try:
            for teller, stream in zip(tellers, streams, strict=True):
                code = max(code, follow(teller, stream))
        except KeyboardInterrupt:
            showing.close()
            kept = "layers that are complete are kept, and the next pull takes them"
            print(f"interrupted: {kept}", file=sys.stderr)
            raise
    return code


def follow(teller: "Lines | Objects", stream: Stream[api.PullImageResponse]) -> int:
    """Says what became of one image; the exit code for it."""
    try:
        with node_errors():
            for answer in stream:
                if answer.HasField("image"):
                    teller.pulled(answer.image, stream)
    except NodeError as error:
        return teller.failed(error)
    return 0


class Lines:
    """For people."""

    shown = showing

    def __init__(self, asked: str) -> None:
        self.asked = asked

    def pulled(self, image: Image, stream: Stream[api.PullImageResponse]) -> None:
        """It is here."""
        facts = showing.facts(next(iter(stream.titles), ""))
        succeed(safe(self.asked), safe(image.digest), size(image.size_bytes), f"({facts})")

    def failed(self, error: NodeError) -> int:
        """It could not be had; the exit code for that."""
        fail(safe(self.asked), str(error))
        return error.exit_code


class Objects(objects.Objects[LayerProgress]):
    """For programs."""

    @property
    def shown(self) -> Self:
        """Who is told how far it is."""
        return self

    def show(self, pulled: PullProgress) -> None:
        """Tells of layers that are not as they were."""
        for layer in pulled.layers:
            if self.is_news(layer):
                self.tell(
                    "layer",
                    digest=layer.digest,
                    state=LayerState.Name(layer.state).removeprefix("LAYER_STATE_").lower(),
                    shared=layer.shared,
                    total_bytes=layer.total_bytes,
                    received_bytes=layer.received_bytes,
                    resumed_bytes=layer.resumed_bytes,
                    unpacked_bytes=layer.unpacked_bytes if layer.HasField("unpacked_bytes") else None,
                )

    def drop(self, title: str) -> None:
        """Nothing was shown that would have to go."""

    def pulled(self, image: Image, stream: Stream[api.PullImageResponse]) -> None:
        """It is here."""
        self.tell(
            "image",
            digest=image.digest,
            references=list(image.references),
            platform=image.platform,
            size_bytes=image.size_bytes,
        )
