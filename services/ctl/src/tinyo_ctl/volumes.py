"""`tinyo volume`: folders that outlive the containers that use them."""

import argparse
import json
import sys

from tinyo.node.v1 import node_pb2 as api

from tinyo_ctl.housekeeping import agreed
from tinyo_ctl.render import age, size, succeed, table
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe, say


def show(options: argparse.Namespace) -> int:
    """`tinyo volume ls`."""
    with node(options.host) as calls:
        found = calls.ListVolumes(api.ListVolumesRequest()).volumes
    if options.output == "name":
        for volume in found:
            say(volume.name)
        return 0
    rows = [(one.name, age(one.created_at), ", ".join(one.containers) or "-") for one in found]
    if rows or sys.stdout.isatty():
        print(table([("NAME", "AGE", "USED BY"), *rows]))
    return 0


def create(options: argparse.Namespace) -> int:
    """`tinyo volume create`."""
    with node(options.host) as calls:
        for name in options.names:
            made = calls.CreateVolume(api.CreateVolumeRequest(name=name))
            succeed(safe(made.volume.name), "created" if made.created else "is there already")
    return 0


def remove(options: argparse.Namespace) -> int:
    """`tinyo volume rm`."""
    with node(options.host) as calls:
        for name in calls.RemoveVolumes(api.RemoveVolumesRequest(names=options.names)).removed:
            succeed(safe(name), "removed")
    return 0


def inspect(options: argparse.Namespace) -> int:
    """`tinyo volume inspect`."""
    with node(options.host) as calls:
        volume = calls.InspectVolume(api.InspectVolumeRequest(name=options.name)).volume
    document = {
        "name": volume.name,
        "path": volume.path,
        "created": volume.created_at.ToJsonString(),
        "size": volume.size_bytes,
        "containers": list(volume.containers),
    }
    print(json.dumps(document, indent=2))  # in ASCII: no terminal obeys it
    return 0


def prune(options: argparse.Namespace) -> int:
    """`tinyo volume prune`."""
    with node(options.host) as calls:
        if not options.force and sys.stdin.isatty():
            plan = calls.PruneVolumes(api.PruneVolumesRequest(dry_run=True)).removed
            if not plan:
                say("nothing to remove")
                return 0
            for volume in plan:
                say(volume.name)
            count, freed = len(plan), sum(volume.size_bytes for volume in plan)
            if not agreed(f"remove {count} volume{'' if count == 1 else 's'} and free {size(freed)}?"):
                print("nothing was removed", file=sys.stderr)
                return 1
        done = calls.PruneVolumes(api.PruneVolumesRequest()).removed
    for volume in done:
        succeed(safe(volume.name), "removed")
    say(f"{size(sum(volume.size_bytes for volume in done))} freed")
    return 0
