"""Attacks by an image or a Statefile, while a container is made: whether they succeeded is seen on the host."""

import os
from typing import TYPE_CHECKING

from tinyo.v1.container_pb2 import Mount
from tinyo.v1.resources_pb2 import Resources

from tinyo_ctl.attacks import Attack, Outcome, broken, held, impossible
from tinyo_ctl.attacks.ground import Refused
from tinyo_ctl.attacks.shell import UNKNOWN

if TYPE_CHECKING:
    from tinyo_ctl.attacks.ground import Ground

MEMORY, PROCESSES, TRIED = 32 << 20, 64, 200


def link(ground: "Ground") -> Outcome:
    """The image has a link where something is to be mounted; it leads to a folder of the host."""
    try:
        ground.up("link", mounts=[Mount(source=ground.folder("gift"), target="/escape/hit")])
    except Refused:
        pass
    return broken("it was made on the host") if os.listdir(ground.folder("trap")) else held()


def part(ground: "Ground") -> Outcome:
    """A folder that is mounted has a link in it, which is asked for as a part of it."""
    os.symlink(os.path.dirname(ground.outside), f"{ground.folder('shared')}/part")
    try:
        shown = ground.up(
            "part", mounts=[Mount(source=ground.folder("shared"), sub_path="part", target="/shown")]
        )
    except Refused:
        return held()
    code, _ = ground.run("sh", "-c", f"[ -e /shown/{os.path.basename(ground.outside)} ]", container=shown)
    return held() if code else broken("it shows a folder of the host")


def dots(ground: "Ground") -> Outcome:
    """A Statefile wants its mount above the container's root."""
    try:
        ground.up("dots", mounts=[Mount(source=ground.folder("gift"), target="/../../../tmp/hit")])
    except Refused:
        return held()
    return broken("such a target is taken")


def first_directory(ground: "Ground") -> Outcome:
    """A Statefile wants to work in a descriptor."""
    for number in range(3, 10):
        try:
            container = ground.up("directory", workdir=f"/proc/self/fd/{number}")
        except Refused:
            continue
        code, _ = ground.run(
            "sh", "-c", f"[ -e /proc/1/cwd/../../../../../..{ground.outside} ]", container=container
        )
        if code == 0:
            return broken(f"descriptor {number} leads out")
        ground.down("directory")
    return held()


def layer(ground: "Ground") -> Outcome:
    """A layer has files that lie above its root, by .. and behind a link of its own."""
    ground.import_hostile(ground.folder("layer"))
    return broken("it wrote on the host") if os.listdir(ground.folder("layer")) else held()


def memory(ground: "Ground") -> Outcome:
    """200 MB are taken by somebody who may have 32 MiB."""
    return bomb(
        ground, "memory", Resources(memory_bytes=MEMORY), "head -c 200000000 /dev/zero | tail >/dev/null"
    )


def fork(ground: "Ground") -> Outcome:
    """200 processes are made by somebody who may have 64."""
    text = f"i=0; while [ $i -lt {TRIED} ]; do sleep 60 </dev/null >/dev/null 2>&1 & i=$((i+1)); done"
    return bomb(ground, "fork", Resources(pids=PROCESSES), text)


def bomb(ground: "Ground", name: str, resources: Resources, text: str) -> Outcome:
    """It has an end, should it go off."""
    try:
        container = ground.up(name, resources=resources)
    except Refused as error:
        return impossible(str(error))
    code, said = ground.run("sh", "-c", text, container=container)
    if code in UNKNOWN:
        return impossible(said.strip())
    return held() if code else broken("it went off: the limit does not count")


ATTACKS = (
    Attack("mount through a link of the image", "CVE-2021-30465", link),
    Attack("show a folder of the host through a link in a mount", "CVE-2023-28642", part),
    Attack("mount above the root (..)", "", dots),
    Attack("begin in a descriptor that the host left open", "CVE-2024-21626", first_directory),
    Attack("write on the host by a layer with .. and links", "CVE-2014-6407", layer),
    Attack("take more memory than allowed", "", memory),
    Attack("run more processes than allowed (fork bomb)", "", fork),
)
