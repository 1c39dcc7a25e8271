"""`tinyo image push`: lines and bars for people, or objects for programs."""

import argparse
import sys

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.push_pb2 import PushedImage, PushProgress, UploadProgress

from tinyo_ctl import objects
from tinyo_ctl.progress import WAITING, Part, Progress
from tinyo_ctl.refusals import NodeError, node_errors
from tinyo_ctl.render import size, succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe


def push(options: argparse.Namespace) -> int:
    """`tinyo image push`."""
    teller = Objects(options.reference) if options.output == "json" else Lines()
    request = api.PushImageRequest(reference=options.reference, target=options.target)
    try:
        with node(options.host) as calls, node_errors():
            for answer in calls.PushImage(request):
                if answer.HasField("progress"):
                    teller.show(answer.progress)
                else:
                    teller.pushed(answer.pushed)
    except KeyboardInterrupt:
        teller.close()
        kept = "what has arrived stays in the registry, and the next push need not send it"
        print(f"interrupted: the image was not pushed; {kept}", file=sys.stderr)
        raise
    except NodeError as error:
        teller.close()
        return teller.failed(error)
    return 0


class Lines:
    """For people."""

    def __init__(self) -> None:
        self._progress = Progress("pushing")

    def show(self, progress: PushProgress) -> None:
        """How far its layers are; configurations are too small to be seen."""
        layers = [upload for upload in progress.uploads if upload.layer]
        self._progress.update(progress.reference, [*map(part, layers)])

    def pushed(self, image: PushedImage) -> None:
        """It is there."""
        self.close()
        item = self._progress.items.get(image.reference)
        facts = item.facts() if item and item.came else "nothing to send"
        succeed(safe(image.reference), safe(image.digest), size(image.size_bytes), f"({facts})")

    def failed(self, error: NodeError) -> int:
        """Whoever called says why."""
        raise error

    def close(self) -> None:
        """Nothing is shown any more."""
        self._progress.close()


class Objects(objects.Objects[UploadProgress]):
    """For programs."""

    def show(self, progress: PushProgress) -> None:
        """Tells of blobs that are not as they were."""
        for upload in progress.uploads:
            if self.is_news(upload):
                self.tell(
                    "blob",
                    digest=upload.digest,
                    layer=upload.layer,
                    complete=upload.complete,
                    present=upload.present,
                    mounted_from=upload.mounted_from or None,
                    total_bytes=upload.total_bytes,
                    sent_bytes=upload.sent_bytes,
                )

    def pushed(self, image: PushedImage) -> None:
        """It is there."""
        self.tell("pushed", reference=image.reference, digest=image.digest, size_bytes=image.size_bytes)

    def close(self) -> None:
        """Nothing stays shown."""


def part(upload: UploadProgress) -> Part:
    """A layer that is pushed."""
    came_by_itself = upload.present or upload.mounted_from
    if upload.present:
        state = "exists already"
    elif upload.mounted_from:
        state = f"mounted from {upload.mounted_from}"
    elif upload.complete:
        state = "sent"
    else:
        state = "sending" if upload.sent_bytes else WAITING
    return Part(
        name=upload.digest.partition(":")[2][:12],
        state=state,
        done=upload.total_bytes if upload.complete else upload.sent_bytes,
        total=upload.total_bytes,
        here=upload.total_bytes if came_by_itself else 0,
        ended=upload.complete,
    )
