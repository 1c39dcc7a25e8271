"""`mounts`, `root` and `linux.devices` of a bundle. What the host lends is opened here, once, and detached; what is of
the container's own namespaces is made in them by the spawner, from what a plan says of it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyo_runtime.oci import mappings
from tinyo_runtime.oci.cgroups import Cgroup
from tinyo_runtime.oci.errors import OciError
from tinyo_runtime.oci.names import ATTRIBUTES, NODEV, NOEXEC, NOSUID, PROPAGATIONS, RO, TAKEN
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.spawner import filesystems, system
from tinyo_runtime.spawner import syscalls as sys

#: File systems that a container may have of its own.
KINDS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "overlay")
#: Options that say what is so anyway: of every mount, and of terminals since Linux 4.7.
NOTHING = ("defaults", "newinstance", "nodefaults", "silent", "loud", "async", "nomand", "noiversion")
#: Gives a descriptor to the spawner; its place among them.
Hand = Callable[[int], int]


class Options:
    """What the options of one mount come to."""

    def __init__(self, mount: Part) -> None:
        self.attributes, self.recursive = 0, 0
        self.propagation, self.deep = PROPAGATIONS["private"], True
        self.bind = self.whole = self.copy_up = False
        #: What is left is for the file system.
        self.rest: list[tuple[str, str | None]] = []
        for option in mount.texts("options"):
            self._take(mount, option)

    def _take(self, mount: Part, option: str) -> None:
        short = option[1:] if option.startswith("r") else ""
        if option in ("bind", "rbind"):
            self.bind, self.whole = True, option == "rbind"
        elif option in PROPAGATIONS or short in PROPAGATIONS:
            self.deep = option not in PROPAGATIONS
            self.propagation = PROPAGATIONS[short if self.deep else option]
        elif option in ATTRIBUTES:
            self.attributes |= ATTRIBUTES[option]
        elif option in TAKEN:
            self.attributes &= ~TAKEN[option]
        elif short in ATTRIBUTES:
            self.recursive |= ATTRIBUTES[short]
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in ("idmap", "ridmap"):
            raise mount.wrong("options", f"has {option!r}, which is not supported")
        elif option not in NOTHING:
            key, equals, value = option.partition("=")
            self.rest.append((key, value if equals else None))


def root(bundle: Path, config: Part, hand: Hand) -> dict[str, Any]:
    """The folder that becomes the container's root, and how its mount propagates. OciError."""
    part, linux = config.part("root"), config.part("linux")
    path = bundle / part.needed("path")
    name = linux.text("rootfsPropagation")
    short = name.removeprefix("r") if name not in PROPAGATIONS else name
    if name and short not in PROPAGATIONS:
        raise linux.wrong(
            "rootfsPropagation", f"is {name!r}: there are {', '.join(PROPAGATIONS)}, with an r or without"
        )
    if not path.is_dir():
        raise part.wrong("path", f"is {path}, which is no folder")
    fd = sys.open_tree(sys.AT_FDCWD, str(path), sys.AT_RECURSIVE)
    place = hand(fd)
    inward = PROPAGATIONS["slave" if short in ("slave", "shared") else "private"]
    filesystems.set_attributes(fd, str(path), 0, inward, sys.AT_RECURSIVE)
    if any(os.path.normpath(mount.text("destination")) == "/dev" for mount in config.parts("mounts")):
        filesystems.set_attributes(
            fd, str(path), NODEV, 0
        )  # no device of an image is one (CVE-2020-15257's kind)
    flags = PROPAGATIONS[short] | (sys.MS_REC if name != short else 0) if name else 0
    return {"root": place, "propagation": flags, "read_only": part.flag("readonly")}


def mounts(bundle: Path, config: Part, cgroup: Cgroup, hand: Hand) -> list[dict[str, Any]]:
    """All of a bundle, in their order. OciError."""
    found = []
    for mount in config.parts("mounts"):
        for key in ("uidMappings", "gidMappings"):
            mount.refuse(key)
        target, options = mount.needed("destination"), Options(mount)
        kind = mount.text("type")
        if not target.startswith("/"):
            raise mount.wrong("destination", f"must be an absolute path, and is {target!r}")
        if options.bind or kind in ("bind", "rbind"):
            found.append(_bound(bundle, mount, target, options, hand))
        elif kind in ("cgroup", "cgroup2"):
            found += _cgroups(target, options, cgroup, hand)
        elif kind in KINDS:
            found.append(_new(mount, target, kind, options))
        else:
            raise mount.wrong("type", f"is {kind!r}: there are bind, cgroup, {', '.join(KINDS)}")
    return found


def _bound(bundle: Path, mount: Part, target: str, options: Options, hand: Hand) -> dict[str, Any]:
    """What a path of the host leads to now. Read-only is so for all that is mounted below."""
    source = bundle / mount.needed("source")
    if options.rest or options.copy_up:
        raise mount.wrong(
            "options", f"has {options.rest[0][0] if options.rest else 'tmpcopyup'!r}, no option of a bind"
        )
    whole = options.whole or mount.text("type") == "rbind"
    try:
        fd = sys.open_tree(sys.AT_FDCWD, str(source), sys.AT_RECURSIVE if whole else 0)
    except OSError as error:
        raise mount.wrong("source", f"is {source}, which cannot be opened: {error.strerror}") from None
    place = hand(fd)
    recursive = options.recursive | options.attributes & RO
    filesystems.set_attributes(fd, str(source), recursive, 0, sys.AT_RECURSIVE)
    filesystems.set_attributes(fd, str(source), options.attributes & ~recursive, 0)
    flags = sys.AT_RECURSIVE if options.deep else 0
    filesystems.set_attributes(fd, str(source), 0, options.propagation, flags)
    return {"target": target, "fd": place, "folder": stat.S_ISDIR(os.fstat(fd).st_mode)}


def _new(mount: Part, target: str, kind: str, options: Options) -> dict[str, Any]:
    if options.copy_up and kind != "tmpfs":
        raise mount.wrong("options", "has 'tmpcopyup', which is for tmpfs")
    source = mount.text("source")
    return {
        "target": target,
        "kind": kind,
        "attributes": options.attributes | options.recursive,
        "propagation": options.propagation,
        "options": [*([("source", source)] if source else []), *options.rest],
        "copy_up": options.copy_up,
    }


def _cgroups(target: str, options: Options, cgroup: Cgroup, hand: Hand) -> list[dict[str, Any]]:
    """The container's own part of each hierarchy and nothing above it, at the places that programs look at."""
    attributes = options.attributes | options.recursive | NOSUID | NODEV | NOEXEC
    places = {folder: hierarchy_name(folder, cgroup) for folder, v2 in cgroup.folders.items() if not v2}
    found: list[dict[str, Any]] = []
    if places:
        tmpfs = {"target": target, "kind": "tmpfs", "attributes": attributes, "copy_up": False}
        tmpfs["options"] = [("mode", "755"), ("size", "64k"), ("source", "tmpfs")]
        tmpfs["folders"] = [*places.values()]
        tmpfs["links"] = [(one, name) for name in places.values() if "," in name for one in name.split(",")]
        found.append(tmpfs | {"propagation": PROPAGATIONS["private"]})
    for folder in places or cgroup.folders:
        fd = sys.open_tree(sys.AT_FDCWD, str(folder))
        filesystems.set_attributes(fd, str(folder), attributes, PROPAGATIONS["private"])
        place = f"{target}/{places[folder]}" if places else target
        found.append({"target": place, "fd": hand(fd), "folder": True})
    return found


def hierarchy_name(folder: Path, cgroup: Cgroup) -> str:
    """As its mount point is called: "memory", "cpu,cpuacct", "systemd"."""
    return folder.parents[len(Path(cgroup.path.lstrip("/")).parts) - 1].name


def devices(config: Part) -> dict[str, Any]:
    """What /dev lacks: the devices and links of the specification, and those of the bundle. A bundle that binds the
    host's /dev has them all."""
    nodes = {
        f"/dev/{name}": (f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0)
        for name, major, minor in system.DEVICES
    }
    links = [(f"/dev/{name}", to) for name, to in system.DEVICE_LINKS]
    for mount in config.parts("mounts"):
        if os.path.normpath(mount.text("destination")) == "/dev" and Options(mount).bind:
            nodes, links = {}, []
    for device in config.part("linux").parts("devices"):
        path, kind = device.needed("path"), device.needed("type")
        kinds = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}
        if kind not in kinds or not path.startswith("/"):
            raise OciError(f"{device.where} must have an absolute path, and a type of 'b', 'c', 'u' or 'p'")
        mode = device.number("fileMode", 0, 0o177777)  # some tools say the kind here as well
        number = os.makedev(device.number("major") or 0, device.number("minor") or 0) if kind != "p" else 0
        nodes[os.path.normpath(path)] = (
            *(path, kinds[kind] | (0o666 if mode is None else stat.S_IMODE(mode)), number),
            *(device.number("uid") or 0, device.number("gid") or 0),
        )
    return {"devices": [*nodes.values()], "links": links}


def lent_devices(config: Part, hand: Hand) -> dict[str, Any]:
    """The same for a bundle with a user namespace: the host's own nodes, and no others. OciError."""
    made, lent = devices(config), []
    for path, mode, number, _, _ in made["devices"]:
        try:
            fd = mappings.device(path, mode, number)
        except OSError:
            fd = None
        if fd is None:
            raise config.part("linux").wrong(
                "devices",
                f"has {path}, which is no such device of the host: there are no others in a user namespace",
            )
        lent.append({"target": path, "fd": hand(fd), "folder": False})
    return {"mounts": lent, "links": made["links"]}
