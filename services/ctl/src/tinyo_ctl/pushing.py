"""`tinyo image push`: a bar for each blob that is sent, at the foot of a terminal; and a line for each that is there."""

import argparse
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.push_pb2 import PushProgress, UploadProgress

from tinyo_ctl.render import size, succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe, say

if TYPE_CHECKING:
    from rich import progress


def push(options: argparse.Namespace) -> int:
    """`tinyo image push`."""
    with node(options.host) as calls, Uploads() as uploads:
        request = api.PushImageRequest(reference=options.reference, target=options.target)
        for answer in calls.PushImage(request):
            if answer.HasField("progress"):
                uploads.show(answer.progress)
            else:
                uploads.close()
                pushed = answer.pushed
                succeed(safe(pushed.reference), safe(pushed.digest), size(pushed.size_bytes))
    return 0


class Uploads:
    """Shows how far a push is until it is closed."""

    def __init__(self) -> None:
        self.bars: progress.Progress | None = None
        self.tasks: dict[str, progress.TaskID] = {}
        #: Digests of blobs of which it was told that they are there.
        self.told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, KeyboardInterrupt):
            kept = "what has arrived stays in the registry, and the next push need not send it"
            print(f"interrupted: the image was not pushed; {kept}", file=sys.stderr)

    def show(self, pushed: PushProgress) -> None:
        """Brings everything to where it is."""
        for upload in pushed.uploads:
            if upload.complete and upload.digest not in self.told:
                self.told.add(upload.digest)
                if self.bars and upload.digest in self.tasks:
                    self.bars.remove_task(self.tasks.pop(upload.digest))
                say(name(upload), outcome(upload))
            elif upload.sent_bytes and not upload.complete:
                self.advance(upload)

    def advance(self, upload: UploadProgress) -> None:
        """Brings the bar of a blob to where it is, if there are bars."""
        if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            return
        # Its import takes long: only when there is something to show.
        from rich import progress

        if self.bars is None:
            self.bars = progress.Progress(
                progress.TextColumn("  {task.description}", markup=False),
                progress.BarColumn(30),
                progress.DownloadColumn(),
                transient=True,
            )
        if upload.digest not in self.tasks:
            self.tasks[upload.digest] = self.bars.add_task(name(upload), total=upload.total_bytes)
        self.bars.update(self.tasks[upload.digest], completed=upload.sent_bytes)
        self.bars.start()

    def close(self) -> None:
        """Takes the bars away."""
        if self.bars:
            self.bars.stop()
            self.bars, self.tasks = None, {}


def name(upload: UploadProgress) -> str:
    """What a blob is, and enough of its digest to find it."""
    digest = safe(upload.digest.partition(":")[2][:12])
    return f"{'layer' if upload.layer else 'config'} {digest}"


def outcome(upload: UploadProgress) -> str:
    """How a blob came to be there."""
    if upload.present:
        return "exists already"
    if upload.mounted_from:
        return f"mounted from {upload.mounted_from}"
    return f"{size(upload.total_bytes)} sent"
