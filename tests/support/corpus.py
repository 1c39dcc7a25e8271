"""Images of everything that a layer may hold, by name: each is a list of archives, the lowest first."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

from tests.support.images import Member, busybox_layer, file, folder, hard_link, layer, member, symlink

CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
#: The root, so that no tree has the time at which it was made.
ROOT = folder(".")

gnu = partial(layer, format=tarfile.GNU_FORMAT)
Layers = list[bytes]


def base(*members: Member) -> bytes:
    """A layer that says everything of its root."""
    return layer(ROOT, *members)


def opaque_folders() -> Layers:
    """Opaque markers first, last, in a folder that only the upper layer has, and in the root of a lower layer."""
    lower = base(
        *(folder(name) for name in ("a", "b", "c", "c/d")),
        *(file(f"{name}/old", b"old") for name in ("a", "b", "c", "c/d")),
    )
    upper = layer(
        folder("a", mode=0o700),
        file("a/.wh..wh..opq"),
        file("a/new", b"new"),
        folder("b"),
        file("b/new", b"new"),
        file("b/.wh..wh..opq"),
        folder("c"),
        folder("c/d"),
        file("c/d/.wh..wh..opq"),
        folder("e"),
        file("e/.wh..wh..opq"),
        file("e/new", b"new"),
    )
    above = layer(folder("a"), file("a/newest", b"newest"), folder("c"), file("c/.wh..wh..opq"))
    return [lower, upper, above]


def opaque_root() -> Layers:
    return [
        base(file("a"), folder("b"), file("b/c")),
        layer(ROOT, file(".wh..wh..opq"), file("d", b"d")),
    ]


def whiteouts_in_every_order() -> Layers:
    """A folder, the whiteout of its name, and what it has in the upper layer, in all orders that make sense of it."""
    members: list[Callable[[str], Member]] = [
        lambda at: folder(f"{at}"),
        lambda at: file(f"{at}/new", b"new"),
        lambda at: file(f"{at}/.wh.old"),
        lambda at: file(f"{at}/.wh.sub"),
    ]
    orders = list(permutations(members))
    lower: list[Member] = [ROOT]
    upper: list[Member] = []
    for number, order in enumerate(orders):
        at = f"d{number}"
        lower += [
            folder(at),
            file(f"{at}/old", b"old"),
            file(f"{at}/stays"),
            folder(f"{at}/sub"),
            file(f"{at}/sub/f"),
        ]
        upper += [make(at) for make in order]
    return [layer(*lower), layer(*upper), layer(ROOT, file(".wh.d0"), folder("d1"), file("d1/.wh.new"))]


def whiteouts_of_all_kinds() -> Layers:
    """And of what is not there, which means nothing; twice, which means the same."""
    lower = base(
        file("file"),
        folder("folder"),
        file("folder/below"),
        symlink("link", "folder"),
        symlink("dangling", "nowhere"),
        member("pipe", tarfile.FIFOTYPE),
        file("one", b"same"),
        hard_link("two", "one"),
        file("stays"),
    )
    names = ("file", "folder", "link", "dangling", "pipe", "one", "absent", "file")
    return [lower, layer(*(file(f".wh.{name}") for name in names)), layer(file("file", b"again"), ROOT)]


def hard_links() -> Layers:
    """Across folders, to links, to pipes, many of one file; over what another layer and the same one has."""
    lower = base(
        folder("a"),
        folder("b"),
        file("a/one", b"one", mode=0o4755, uid=3),
        hard_link("b/two", "a/one"),
        hard_link("three", "b/two"),
        symlink("link", "a/one"),
        hard_link("a/link", "link"),
        member("pipe", tarfile.FIFOTYPE, mode=0o600),
        hard_link("b/pipe", "pipe"),
        file("over", b"over"),
        hard_link("over", "a/one"),
        symlink("over-link", "a"),
        hard_link("over-link", "a/one"),
    )
    upper = layer(
        ROOT,
        folder("a"),
        file("a/one", b"changed", mtime=1_500_000_000),
        folder("b"),
        hard_link("b/two", "a/one"),
        file("lonely", b"lonely"),
        hard_link("./friend", "/lonely"),
    )
    return [lower, upper]


def attributes() -> Layers:
    """Attributes and capabilities of files, of folders, replaced by an upper layer, binary and empty ones."""

    def with_(**records: str) -> dict[str, Any]:
        return {"pax_headers": {f"SCHILY.xattr.{key}": value for key, value in records.items()}}

    lower = base(
        file("capable", b"x", mode=0o755, **with_(**{"security.capability": CAPABILITY})),
        file("given-away", b"x", mode=0o755, uid=7, **with_(**{"security.capability": CAPABILITY})),
        file("colour", b"x", **with_(**{"user.colour": "blue", "user.shape": "round"})),
        folder("folder", **with_(**{"user.colour": "green"})),
        file("binary", **with_(**{"user.binary": "\x01=\n\x7f"})),
        file("set-uid", b"x", mode=0o6755, uid=5, gid=6, **with_(**{"user.a": "b"})),
    )
    upper = layer(file("colour", b"y", **with_(**{"user.colour": "red"})), folder("folder"), ROOT)
    return [lower, upper]


def names() -> Layers:
    """255 bytes, not UTF-8, every byte that a name may have, blanks and escapes, dots."""
    every = b"".join(bytes([byte]) for byte in range(1, 256) if byte != ord("/")).decode(
        "utf-8", "surrogateescape"
    )
    odd = [
        "n" * 255,
        "ü" * 127,
        "\udcff\udcfe",
        every,
        " ",
        "\n",
        "-rf",
        "*",
        "\\",
        "\x1b[31mred",
        "..a",
        "...",
        ".a",
    ]
    return [
        base(
            *(folder(name) for name in odd),
            *(file(f"{name}/{name}", name[:1].encode(errors="replace")) for name in odd),
        ),
        gnu(ROOT, *(symlink(f"link{number}", name) for number, name in enumerate(odd))),
        gnu(
            ROOT,
            *(hard_link(f"hard{number}", f"file{number}") for number in range(0)),
            file("\udc80", b"gnu"),
        ),
    ]


def deep(format: int, length: int = 250) -> Layers:
    """Twenty folders in one another, by default 5,020 bytes of names, where a system call takes 4,096."""
    parts = [f"{number:03}".ljust(length, "d") for number in range(20)]
    path = "/".join(parts)
    members = [folder("/".join(parts[: count + 1]), uid=count) for count in range(20)]
    members += [
        file(f"{path}/file", b"deep"),
        symlink(f"{path}/link", "file"),
        hard_link(f"{path}/hard", f"{path}/file"),
    ]
    hidden = [file(f"{path}/.wh.file"), *members[:20]]
    return [layer(ROOT, *members, format=format), layer(ROOT, *hidden, format=format)]


def numbers(format: int) -> Layers:
    """Owners above 65,535 and to the highest; times with nanoseconds (PAX only), before 1970, after 2038; modes."""
    whole = format == tarfile.GNU_FORMAT
    times = [-1_000_000, 0, 1, 2**31 - 1, 2**31, 2**33] if whole else [1.5, -1.5, 1_600_000_000.25, 0.125]
    return [
        layer(
            ROOT,
            *(
                file(f"uid{uid}", uid=uid, gid=uid)
                for uid in (0, 65_535, 65_536, 2_097_151, 2_097_152, 2**32 - 2)
            ),
            *(file(f"time{number}", mtime=time) for number, time in enumerate(times)),
            *(folder(f"folder{number}", mtime=time) for number, time in enumerate(times)),
            *(
                file(f"mode{mode:o}", b"x", mode=mode)
                for mode in (0, 0o1, 0o777, 0o1777, 0o2755, 0o4711, 0o7777)
            ),
            *(folder(f"folder-mode{mode:o}", mode=mode) for mode in (0, 0o555, 0o1777, 0o2775, 0o7777)),
            format=format,
        )
    ]


def nanoseconds() -> Layers:
    """More digits than a float has."""

    def at(time: str) -> dict[str, Any]:
        return {"pax_headers": {"mtime": time}}

    return [
        base(
            file("file", **at("1600000000.123456789")),
            folder("folder", **at("1600000001.000000001")),
            file("before", **at("-1.123456789")),
            file("short", **at("1600000000.1")),
        )
    ]


def kinds() -> Layers:
    """Everything but sockets, which no archive holds; of devices, nothing is left."""
    return [
        base(
            file("empty"),
            file("file", b"x" * 100_000),
            folder("folder"),
            symlink("link", "folder"),
            symlink("absolute", "/etc/passwd"),
            symlink("up", "../../.."),
            symlink("long", "t" * 4_000),
            member("pipe", tarfile.FIFOTYPE, mode=0o622, uid=1, gid=2),
            member("device", tarfile.CHRTYPE, devmajor=1, devminor=3),
            hard_link("device-link", "device"),
            hard_link("folder/device", "device-link"),
            member("old-style", tarfile.AREGTYPE, b"old"),
        )
    ]


def replacing() -> Layers:
    """A folder becomes a link and a folder again; a file a folder, a link a file, and back, layer by layer."""
    return [
        base(
            folder("d"),
            file("d/first", b"1"),
            file("f", b"file"),
            symlink("l", "d"),
            folder("t"),
            file("t/x"),
        ),
        layer(ROOT, symlink("d", "t"), folder("f"), file("f/below"), file("l", b"no link")),
        layer(
            ROOT, folder("d", mode=0o750), file("d/second", b"2"), file("f", b"file again"), symlink("l", "f")
        ),
        layer(ROOT, folder("l"), file("l/below"), file("d", b"file"), folder("t"), file("t/y")),
        layer(ROOT, folder("d"), file("d/third", b"3")),
    ]


def replacing_within() -> Layers:
    """The same in one layer, where the last entry counts, and what the layers below had is gone."""
    return [
        base(folder("d"), file("d/old"), folder("e"), file("e/old")),
        layer(
            ROOT,
            file("a", b"1"),
            file("a", b"22"),
            symlink("b", "a"),
            file("b", b"3"),
            folder("c", mode=0o700),
            folder("c", mode=0o755, uid=4),
            symlink("d", "c"),
            folder("d"),
            file("d/below"),
            file("e", b"5"),
            symlink("e", "a"),
        ),
    ]


def sparse(*options: str) -> Layers:
    """As GNU tar writes them: holes at the start, the end and between more pieces than a header holds; only holes."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, pieces, size in (("many", 60, 10_000_000), ("one", 1, 5_000_000), ("none", 0, 3_000_000)):
            with open(f"{temporary}/{name}", "wb") as sparse:
                for piece in range(pieces):
                    sparse.seek(100_000 + piece * 100_000)
                    sparse.write(b"piece %d" % piece)
                sparse.truncate(size)
            os.utime(f"{temporary}/{name}", (1_600_000_000, 1_600_000_000))
        long = Path(temporary, "l" * 150)
        long.write_bytes(bytes(200_000) + b"end")
        os.utime(long, (1_600_000_000, 1_600_000_000))
        command = [
            "tar",
            "-C",
            temporary,
            "--sparse",
            "--hole-detection=raw",
            *options,
            "--mode=644",
            "-cf-",
            ".",
        ]
        return [subprocess.run(command, check=True, capture_output=True).stdout]


def contiguous() -> Layers:
    """Files of a kind that no file system knows any more."""
    return [base(member("contiguous", tarfile.CONTTYPE, b"contiguous"))]


def busybox() -> Layers:
    return [busybox_layer()]


def node_modules() -> Layers:
    """Packages in packages, as npm leaves them, with links to programs; half of them removed by the next layer."""

    def package(at: str, left: int) -> Iterator[Member]:
        yield from (folder(at), file(f"{at}/package.json", at.encode()), file(f"{at}/index.js", b"x" * 500))
        yield from (folder(f"{at}/bin"), file(f"{at}/bin/run", b"#!", mode=0o755))
        if left:
            yield folder(f"{at}/node_modules")
            yield folder(f"{at}/node_modules/.bin")
            for name in ("a", "b"):
                yield symlink(f"{at}/node_modules/.bin/{name}", f"../{name}/bin/run")
                yield from package(f"{at}/node_modules/{name}", left - 1)

    lower = base(folder("app"), *package("app/node", 7))
    return [
        lower,
        layer(
            ROOT,
            folder("app"),
            folder("app/node"),
            folder("app/node/node_modules"),
            file("app/node/node_modules/.wh.b"),
        ),
    ]


def undescribed() -> Layers:
    """Folders that upper layers have only because of what is in them: they look as those below say, if any does."""
    lower = base(
        folder("tmp", mode=0o1777),
        folder("home", uid=5),
        folder("home/me", mode=0o700, uid=1000, gid=1000, pax_headers={"SCHILY.xattr.user.a": "b"}),
        folder("home/me/.config", mode=0o711, uid=1000),
        folder("hidden", mode=0o700),
        folder("opaque", mode=0o700, uid=9),
        folder("both", mode=0o500),
        folder("link", mode=0o500),
    )
    upper = layer(
        file("tmp/file"),
        file("home/me/.config/file"),
        file("home/me/.wh.absent"),
        file(".wh.hidden"),
        file("opaque/.wh..wh..opq"),
        file("opaque/new"),
        folder("both", mode=0o511),
        file("both/below/file"),
        symlink("link", "tmp"),
        folder("alone", uid=3),
    )
    above = layer(
        file("tmp/another"),
        file("hidden/new"),
        file("both/another"),
        file("both/below/another"),
        file("alone/file"),
        folder("link"),
        file("link/file"),
    )
    return [lower, upper, above]


CORPUS: dict[str, Callable[[], Layers]] = {
    "busybox": busybox,
    "node modules": node_modules,
    "opaque folders": opaque_folders,
    "opaque root": opaque_root,
    "whiteouts in every order": whiteouts_in_every_order,
    "whiteouts of all kinds": whiteouts_of_all_kinds,
    "hard links": hard_links,
    "attributes": attributes,
    "names": names,
    "numbers, pax": partial(numbers, tarfile.PAX_FORMAT),
    "numbers, gnu": partial(numbers, tarfile.GNU_FORMAT),
    "nanoseconds": nanoseconds,
    "undescribed folders": undescribed,
    "kinds": kinds,
    "contiguous": contiguous,
    "replacing": replacing,
    "replacing within a layer": replacing_within,
    "sparse, gnu": partial(sparse, "--format=gnu"),
    "sparse, 0.0": partial(sparse, "--format=pax", "--sparse-version=0.0"),
    "sparse, 0.1": partial(sparse, "--format=pax", "--sparse-version=0.1"),
    "sparse, 1.0": partial(sparse, "--format=pax", "--sparse-version=1.0"),
}
