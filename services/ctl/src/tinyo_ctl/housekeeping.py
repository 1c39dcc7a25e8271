"""`tinyo image tag`, `prune`, `du` and `verify`."""

import argparse
import sys

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.image_pb2 import Image

from tinyo_ctl.render import fail, size, succeed, table
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe, say


def tag(options: argparse.Namespace) -> int:
    """`tinyo image tag`."""
    with node(options.host) as calls:
        request = api.TagImageRequest(reference=options.reference, new_reference=options.new)
        tagged = calls.TagImage(request)
    succeed(safe(tagged.reference), safe(tagged.image.digest))
    return 0


def prune(options: argparse.Namespace) -> int:
    """`tinyo image prune`."""
    with node(options.host) as calls:
        if not options.force and sys.stdin.isatty():
            plan = calls.PruneImages(api.PruneImagesRequest(all=options.all, dry_run=True))
            if not plan.removed and not plan.freed_bytes:
                say("nothing to remove")
                return 0
            for image in plan.removed:
                say(called(image))
            count = len(plan.removed)
            what = f"{count} image{'' if count == 1 else 's'}" if count else "what is left of others"
            if not agreed(f"remove {what} and free {size(plan.freed_bytes)}?"):
                print("nothing was removed", file=sys.stderr)
                return 1
        done = calls.PruneImages(api.PruneImagesRequest(all=options.all))
    for image in done.removed:
        succeed(called(image), "removed")
    say(f"{size(done.freed_bytes)} freed")
    return 0


def usage(options: argparse.Namespace) -> int:
    """`tinyo image du`."""
    with node(options.host) as calls:
        all = calls.MeasureImages(api.MeasureImagesRequest())
    rows = [
        (
            ", ".join(one.image.references) or "<none>",
            one.image.digest[:19],
            size(one.own_bytes),
            size(one.shared_bytes),
            "yes" if one.in_use else "no",
        )
        for one in all.images
    ]
    if rows:
        print(table([("IMAGE", "DIGEST", "OWN", "SHARED", "IN USE"), *rows]), end="\n\n")
    blobs, layers = all.blob_bytes, all.layer_bytes
    say(f"{size(blobs + layers)} on the disk: {size(blobs)} in blobs, {size(layers)} in unpacked layers")
    say(f"`tinyo image prune` would free {size(all.prunable_bytes)}, with -a {size(all.prunable_all_bytes)}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """`tinyo image verify`."""
    code = 0
    with node(options.host) as calls:
        for one in calls.VerifyImages(api.VerifyImagesRequest(references=options.references)):
            name = called(one.image)
            if not one.problems:
                succeed(name, "intact", *(["not unpacked yet"] if one.image.incomplete else []))
                continue
            code = 1
            for problem in one.problems:
                fail(name, safe(problem.message))
            print(f"  {remedy(one.image)}", file=sys.stderr, flush=True)
    return code


def called(image: Image) -> str:
    """The names of an image; its digest when it has none."""
    return safe(", ".join(image.references) or image.digest)


def remedy(image: Image) -> str:
    """What makes an image whole again."""
    if image.references:
        return f"`tinyo image pull {safe(image.references[0])}` fetches again what is wrong"
    return "it has no reference: `tinyo image prune` removes it, unless a container needs it"


def agreed(question: str) -> bool:
    """Whether somebody at the terminal says yes; the end of input means no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
