"""The unpacker as a program: hostile archives, odd archives, and what overlayfs needs."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import (
    GZIP,
    Member,
    digest,
    file,
    folder,
    hard_link,
    layer,
    member,
    symlink,
)

TAR = "application/vnd.oci.image.layer.v1.tar"
ZSTD = TAR + "+zstd"


#: The program with other limits, which are reached sooner.
LIMITED = (
    "import runpy, sys; from tinyo_runtime.unpack import limits; {}; runpy.run_module('tinyo_runtime.unpack')"
)


def unpack(data: bytes, target: Path, media_type: str = TAR, limit: str = "") -> dict[str, Any]:
    """Runs the program; its verdict."""
    target.mkdir(exist_ok=True)
    program = ["-c", LIMITED.format(limit)] if limit else ["-m", "tinyo_runtime.unpack"]
    command = [sys.executable, "-I", *program, str(target), media_type]
    done = subprocess.run(command, input=data, capture_output=True, env={})
    assert done.returncode == 0, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def unpacked(target: Path, *members: Member, **options: Any) -> Path:
    data = layer(*members, **options)
    verdict = unpack(data, target)
    assert verdict["diff_id"] == digest(data), verdict
    assert verdict["size"] == len(data)
    return target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The layer's folder; beside it a file that nobody may touch."""
    (tmp_path / "outside").write_text("untouched")
    return tmp_path / "layer"


@pytest.fixture(autouse=True)
def untouched(tmp_path: Path) -> Any:
    yield
    outside = tmp_path / "outside"
    if outside.exists():
        assert outside.read_text() == "untouched" and outside.stat().st_nlink == 1
        assert sorted(os.listdir(tmp_path)) == ["layer", "outside"]


@pytest.mark.parametrize(
    "members",
    [
        [file("../outside", b"x")],
        [file("a/../../outside", b"x")],
        [folder("..")],
        [symlink("out", ".."), file("out/outside", b"x")],
        [symlink("out", "/"), file("out/outside", b"x")],
        [symlink("a", "b"), symlink("b", ".."), file("a/outside", b"x")],
        [symlink("../outside", "x")],
        [hard_link("in", "../outside")],
        [hard_link("in", "/proc/self/exe")],
        [symlink("out", ".."), hard_link("in", "out/outside")],
        [hard_link("in", "missing")],
        [folder("d"), hard_link("in", "d")],
        [symlink("empty", "")],
        [symlink("s", "x\0y" * 50)],
        [file("f", b"", pax_headers={"path": "a\0b"})],
        [file("f", b"", pax_headers={"SCHILY.xattr.user.a\0b": "c"})],
        [file(".wh...", b"")],
        [file(".wh..", b"")],
        [file(".wh.", b"")],
        [file("a/.wh...", b"")],
        [file("../.wh.outside", b"")],
        [file("../.wh..wh..opq", b"")],
        [symlink("out", ".."), file("out/.wh.outside")],
        [file("x" * 256, b"")],
        [file("/".join("d" * 300), b"")],
        [file("plain", b""), file("plain/below", b"")],
        [symlink(".", "elsewhere")],
        [file("f", b"", pax_headers={"path": "../outside"})],
        [file("f", b"", pax_headers={"GNU.sparse.map": "0,5", "GNU.sparse.size": "3"})],
        [file("f", b"", pax_headers={"uid": "-1"})],
        [file("f", b"", pax_headers={"mtime": "1e400"})],
        [member("odd", b"Q")],
        [folder("d"), file("d/f"), hard_link("d", "d/f")],
        [file("plain"), hard_link("in", "plain/below")],
        [file(".wh.gone"), hard_link("in", "gone")],
        [hard_link(".", ".")],
        [member(".", tarfile.FIFOTYPE)],
        [member(".", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE), file("pipe/below")],
        [folder("d"), file("d/f"), symlink("d", ".."), file("d/outside", b"x")],
        [folder("d/e"), symlink("d/e", "../.."), folder("d/e/new")],
        [folder("d"), symlink("d", ".."), file("d/.wh.outside")],
        [symlink("d", ".."), hard_link("in", "d/outside")],
        [member("././@LongLink", b"L", b"../outside\0"), file("f", b"x")],
        [member("././@LongLink", b"K", b"../outside\0"), hard_link("in", "f")],
        [member("././@LongLink", b"L", b".wh...\0"), file("f")],
        [file("f", b"", pax_headers={"path": "a/../.wh.outside"})],
        [file("f", b"x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 20})],
        [file("f", b"x", pax_headers={"GNU.sparse.map": "9" * 20 + ",1", "GNU.sparse.size": "9" * 20})],
        [
            file(
                "f",
                b"x",
                pax_headers={
                    "GNU.sparse.map": "0,1",
                    "GNU.sparse.size": "1",
                    "GNU.sparse.name": "../outside",
                },
            )
        ],
        [
            file(
                "f",
                b"1\n0\n9\n".ljust(512, b"\0"),
                pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"},
            )
        ],
        [file("f", b"9" * 4096, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"})],
        [member("pax", b"x", b"x" * (2 << 20)), file("f")],
        [file("f", b"x", pax_headers={"linkpath": "a\0b"})],
        [file("f", b"x", pax_headers={"size": "-1"})],
        [file("f", b"x", pax_headers={"size": "9" * 19})],
        [file("f", b"", pax_headers={"GNU.sparse.map": "5,1,2,1", "GNU.sparse.size": "9"})],
        [file("f", b"xy", pax_headers={"GNU.sparse.map": "2,1,2,1", "GNU.sparse.size": "9"})],
        [file("f", b"x", pax_headers={"GNU.sparse.map": "0,1,2", "GNU.sparse.size": "9"})],
        [file("f", b"x", pax_headers={"GNU.sparse.map": "-1,1", "GNU.sparse.size": "9"})],
        [file("f", b"x", pax_headers={"GNU.sparse.map": f"{3 << 40},1", "GNU.sparse.size": f"{4 << 40}"})],
        [file("f", b"", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": f"{3 << 40}"})],
        [member("sparse", b"S", b"x" * 512)],
    ],
)
def test_hostile(root: Path, members: list[Member]) -> None:
    assert unpack(layer(*members), root)["error"] in ("corrupt", "unsupported", "system")


def test_absolute_names_are_below_the_root(root: Path) -> None:
    unpacked(root, file("/etc/motd", b"x"), hard_link("/motd", "/etc/motd"))
    assert (root / "etc/motd").samefile(root / "motd")


def test_links_are_replaced_and_not_written_through(root: Path) -> None:
    unpacked(
        root,
        symlink("f", "../outside"),
        file("f", b"new"),
        file("g", b"old"),
        hard_link("h", "g"),
        file("h", b"new"),
    )
    assert (root / "f").read_bytes() == b"new" and not (root / "f").is_symlink()
    assert (root / "g").read_bytes() == b"old"


def test_later_entries_replace_folders(root: Path) -> None:
    unpacked(
        root, folder("d", mode=0o700), file("d/f", b"x"), file("d", b"file"), file("d2/f"), symlink("d2", "d")
    )
    assert (root / "d").read_bytes() == b"file"
    assert os.readlink(root / "d2") == "d"


def test_whatever_follows_a_replaced_folder_stays_beneath(root: Path, tmp_path: Path) -> None:
    """Nothing that was said of a folder is done to what a link in its place leads to."""
    before = tmp_path.stat()
    unpacked(root, folder("d", mode=0o777, uid=5), folder("d/e", mode=0o777, uid=5), symlink("d", ".."))
    assert os.readlink(root / "d") == ".."
    after = tmp_path.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    assert after.st_mtime >= before.st_mtime


def test_folders_replace_links(root: Path) -> None:
    unpacked(root, symlink("d", ".."), folder("d", mode=0o750), file("d/f", b"x"), file(".wh.w"), folder("w"))
    assert (root / "d").lstat().st_mode == 0o40750 and (root / "d/f").read_bytes() == b"x"
    assert is_opaque(root / "w")


def test_sparse_files_are_not_written_through_links(root: Path) -> None:
    sparse = {"GNU.sparse.map": "2,1,5,1", "GNU.sparse.size": "9", "GNU.sparse.name": "f"}
    unpacked(root, symlink("f", "../outside"), file("g", b"xy", pax_headers=sparse))
    assert (root / "f").read_bytes() == b"\0\0x\0\0y\0\0\0" and not (root / "f").is_symlink()


def test_content_is_never_taken_for_headers(root: Path) -> None:
    """Not that of entries that have none to keep, and a size where no content is means nothing."""
    evil = layer(file("evil", b"x"))
    link = symlink("link", "f")[0]
    link.size = 512
    data = layer(
        file(".wh.gone", evil), file(".wh..wh.aufs", evil), file("a/.wh..wh..opq", evil), hard_link("g", "g")
    )
    data = data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512) + link.tobuf() + layer(file("f", b"x"))
    assert unpack(data, root)["entries"] == 6
    assert sorted(os.listdir(root)) == ["a", "f", "gone", "link"]


@pytest.mark.parametrize("fields", [{"uid": -2}, {"gid": 2**40}, {"mtime": 2**40}])
def test_numbers_beyond_octal_are_checked(root: Path, fields: dict[str, int]) -> None:
    """Base 256 can say more than the system can hold."""
    data = layer(file("f", b"x", **fields), format=tarfile.GNU_FORMAT)
    assert unpack(data, root)["error"] == "corrupt"


def test_more_folders_than_are_kept_open(root: Path) -> None:
    """Links between them, so that two of them are needed at a time."""
    count = 700
    members = [folder(f"d{number}", uid=number) for number in range(count)]
    members += [file(f"d{number}/a/f", b"%d" % number) for number in range(count)]
    members += [hard_link(f"d{number}/b/l", f"d{number * 17 % count}/a/f") for number in range(count)]
    unpacked(root, *members)
    for number in range(count):
        assert (root / f"d{number}/b/l").read_bytes() == b"%d" % (number * 17 % count)
        assert (root / f"d{number}").stat().st_uid == number


def test_device_nodes_are_skipped(root: Path) -> None:
    data = layer(
        member("dev/sda", tarfile.BLKTYPE, devmajor=8), member("dev/null", tarfile.CHRTYPE, devmajor=1)
    )
    assert unpack(data, root)["skipped"] == 2
    assert list(root.iterdir()) == [root / "dev"]


def test_attributes(root: Path) -> None:
    unpacked(
        root,
        folder(".", mode=0o711, uid=7, gid=8, mtime=5),
        folder("d", mode=0o2770, uid=70_000, gid=9, mtime=1_600_000_000.5),
        file("d/suid", b"x", mode=0o6755, uid=1, gid=2, mtime=1_600_000_000.123),
        file("below/without/parents", b"x"),
        file(
            "x",
            b"",
            pax_headers={"SCHILY.xattr.user.a": "b", "SCHILY.xattr.trusted.overlay.redirect": "/etc"},
        ),
        file(
            "y",
            b"",
            pax_headers={"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y"},
        ),
    )
    for path, mode, uid, gid, mtime in (
        (root, 0o40711, 7, 8, 5 * 10**9),
        (root / "d", 0o42770, 70_000, 9, 1_600_000_000_500_000_000),
        (root / "d/suid", 0o106755, 1, 2, 1_600_000_000_123_000_000),
    ):
        found = path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns) == (mode, uid, gid, mtime)
    assert (root / "below").stat().st_mode == 0o40755
    assert os.listxattr(root / "x") == ["user.a"]
    assert os.listxattr(root / "y") == []


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_whiteouts(root: Path) -> None:
    unpacked(
        root,
        file(".wh.gone"),
        file("a/.wh..wh..opq"),
        file("a/new"),
        file(".wh.b"),
        file("b/new"),
        folder("c"),
        file(".wh.c"),
        file("f", b"new"),
        file(".wh.f"),
        file(".wh.g"),
        file("g", b"new"),
        file(".wh..wh.plnk/1.2", b"aufs"),
    )
    assert is_whiteout(root / "gone")
    assert is_opaque(root / "a") and is_opaque(root / "b") and is_opaque(root / "c")
    assert (root / "f").read_bytes() == (root / "g").read_bytes() == b"new"
    assert sorted(os.listdir(root)) == ["a", "b", "c", "f", "g", "gone"]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(root: Path, format: int) -> None:
    """Names beyond 100 bytes, numbers beyond octal fields, times before 1970."""
    long = "d" * 120 + "/" + "f" * 200
    unpacked(
        root,
        file(long, b"x", uid=3_000_000),
        symlink("s", "t" * 300),
        hard_link("h", long),
        file("t", mtime=-5),
        format=format,
    )
    assert (root / long).stat().st_uid == 3_000_000
    assert (root / long).samefile(root / "h")
    assert os.readlink(root / "s") == "t" * 300
    assert (root / "t").stat().st_mtime == -5


def test_ustar_prefix(root: Path) -> None:
    name = "p" * 90 + "/" + "n" * 90
    unpacked(root, file(name, b"x"), format=tarfile.USTAR_FORMAT)
    assert (root / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    "format",
    [
        ["gnu"],
        ["pax", "--sparse-version=0.0"],
        ["pax", "--sparse-version=0.1"],
        ["pax", "--sparse-version=1.0"],
    ],
)
def test_sparse_files(tmp_path: Path, format: list[str]) -> None:
    """As GNU tar writes them, with more pieces than a header holds."""
    with open(tmp_path / "sparse", "wb") as sparse:
        for piece in range(60):
            sparse.seek(piece * 100_000)
            sparse.write(b"piece %d" % piece)
        sparse.truncate(10_000_000)
    command = [
        "tar",
        "-C",
        str(tmp_path),
        "--sparse",
        "--hole-detection=raw",
        f"--format={format[0]}",
        *format[1:],
    ]
    data = subprocess.run([*command, "-cf-", "sparse"], check=True, capture_output=True).stdout
    assert len(data) < 1_000_000
    assert unpack(data, tmp_path / "layer")["diff_id"] == digest(data)
    result = tmp_path / "layer/sparse"
    assert result.read_bytes() == (tmp_path / "sparse").read_bytes()
    assert result.stat().st_blocks * 512 < 1_000_000


def test_global_headers(root: Path) -> None:
    with tarfile.open(
        fileobj=(buffer := io.BytesIO()), mode="w", pax_headers={"comment": "x", "uid": "77"}
    ) as archive:
        archive.addfile(*_pair(file("f", b"x")))
    assert unpack(buffer.getvalue(), root)["entries"] == 1
    assert (root / "f").stat().st_uid == 77


def _pair(one: Member) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return one[0], io.BytesIO(one[1])


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD, "application/vnd.docker.image.rootfs.diff.tar.gzip"])
def test_compression(root: Path, media_type: str) -> None:
    data = layer(file("f", os.urandom(3_000_000)))
    assert unpack(compress(data, media_type), root, media_type)["diff_id"] == digest(data)
    assert (root / "f").stat().st_size == 3_000_000


def compress(data: bytes, media_type: str, level: int = 1) -> bytes:
    if media_type == ZSTD:
        import zstandard

        return zstandard.compress(data)
    return gzip.compress(data, level) if media_type.endswith("gzip") else data


def test_gzip_in_several_members(root: Path) -> None:
    data = layer(file("f", b"x" * 10_000))
    compressed = gzip.compress(data[:700]) + gzip.compress(data[700:])
    assert unpack(compressed, root, GZIP)["diff_id"] == digest(data)


def test_on_one_processor(root: Path) -> None:
    """Nothing is read ahead there."""
    data = layer(file("f", os.urandom(3_000_000)), file("g", b"x"))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert unpack(gzip.compress(data), root, GZIP)["diff_id"] == digest(data)
    finally:
        os.sched_setaffinity(0, allowed)
    assert (root / "f").stat().st_size == 3_000_000


def test_what_is_damaged_is_named(root: Path) -> None:
    """The compression, not the file that was being written."""
    compressed = bytearray(gzip.compress(layer(file("f", os.urandom(3_000_000))), 1))
    compressed[-8] ^= 1
    verdict = unpack(bytes(compressed), root, GZIP)
    assert verdict["error"] == "corrupt" and "None" not in verdict["message"]


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_cut_off(root: Path, media_type: str, keep: float) -> None:
    data = compress(layer(file("f", os.urandom(100_000)), file("g", os.urandom(100_000))), media_type)
    verdict = unpack(data[: int(len(data) * keep)], root, media_type)
    assert verdict.get("error") == "corrupt" or (media_type == TAR and keep > 0.9)


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
def test_garbage(root: Path, media_type: str) -> None:
    magic = {TAR: b"", GZIP: b"\x1f\x8b\x08\0", ZSTD: b"\x28\xb5\x2f\xfd"}[media_type]
    assert unpack(magic + b"garbage" * 10_000, root, media_type)["error"] == "corrupt"


@pytest.mark.parametrize(("said", "is_"), [(GZIP, TAR), (TAR, GZIP), (ZSTD, GZIP), (GZIP, ZSTD)])
def test_media_type_must_match(root: Path, said: str, is_: str) -> None:
    verdict = unpack(compress(layer(file("f", b"x")), is_), root, said)
    assert verdict["error"] == "corrupt" and not list(root.iterdir())


def test_unknown_media_type(root: Path) -> None:
    assert unpack(b"", root, "application/vnd.oci.image.layer.v1.tar+encrypted")["error"] == "unsupported"


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_bomb(root: Path, media_type: str) -> None:
    """More than a quarter of a GiB out of some kB."""
    data = layer(file("zeros", bytes(400 << 20)))
    verdict = unpack(compress(data, media_type, level=9), root, media_type)
    assert verdict["error"] == "corrupt" and "unpacks to more than" in verdict["message"]


def test_bomb_of_entries(root: Path) -> None:
    data = layer(*(folder(f"{number}") for number in range(100)))
    verdict = unpack(data, root, limit="limits.MAX_ENTRIES = 99")
    assert verdict["error"] == "corrupt" and "more than 99 entries" in verdict["message"]


def test_bomb_of_extended_headers(root: Path) -> None:
    """They are no entries; each is small, and together they would fill the memory."""
    for kind in (b"x", b"g"):
        headers = [
            member("pax", kind, b"%d %04d=%s\n" % (60_012, number, b"x" * 60_000)) for number in range(20)
        ]
        verdict = unpack(layer(*headers, file("f")), root)
        assert verdict["error"] == "corrupt" and "extended headers of" in verdict["message"]


def test_bomb_of_memory(root: Path) -> None:
    verdict = unpack(
        layer(file("f", bytes(100 << 20))),
        root,
        limit="from tinyo_runtime.unpack import tar, confine; tar.CHUNK = 1 << 33; confine._MEMORY = 64 << 20",
    )
    assert verdict == {"error": "corrupt", "message": "the layer needs too much memory"}


@pytest.mark.parametrize("size", [-1, -512, -(2**62), 2**63])
def test_sizes_that_nothing_has(root: Path, size: int) -> None:
    data = bytearray(layer(file("f", b"x"), format=tarfile.GNU_FORMAT))
    data[124:136] = b"\xff" * 4 + size.to_bytes(8, signed=True) if size < 0 else b"\x80" + size.to_bytes(11)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert unpack(bytes(data), root)["error"] == "corrupt"


def test_replacing_many_among_many(root: Path) -> None:
    """What is replaced costs what it is, not what there is: 20,000 folders are gone through once, not each time."""
    many = [folder(f"d/{number}") for number in range(20_000)]
    unpacked(root, *many, *(file(f"d/{number}") for number in range(0, 20_000, 2)))
    assert sum(path.is_file() for path in (root / "d").iterdir()) == 10_000


def test_replacing_more_folders_than_are_kept_open(root: Path) -> None:
    unpacked(root, *(folder(f"d/{number}/below") for number in range(700)), file("d", b"x"))
    assert (root / "d").read_bytes() == b"x"


def test_names_are_told_as_data(root: Path) -> None:
    """Whatever a name holds, the verdict is one line, and a terminal could show it."""
    for name in ("a\nb", "\x1b[31m", "\udcff", "\u202e"):
        verdict = unpack(layer(file(name), file(f"{name}/below")), root)
        assert verdict["error"] == "corrupt" and verdict["message"].isprintable()
        (root / name).unlink()


def test_empty_layer(root: Path) -> None:
    assert unpack(b"", root)["entries"] == 0
    assert unpack(bytes(1024), root)["entries"] == 0


def test_confined(root: Path) -> None:
    """What the program still is once it has read more than a pipe holds, and waits for the rest."""
    root.mkdir()
    command = [sys.executable, "-I", "-m", "tinyo_runtime.unpack", str(root), TAR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(layer(file("f", bytes(1 << 20)))[:200_000])
        process.stdin.flush()
        proc = Path(f"/proc/{process.pid}")
        assert os.readlink(proc / "root") == str(root)
        assert os.readlink(proc / "ns/net") != os.readlink("/proc/self/ns/net")
        for task in (proc / "task").iterdir():  # what decompresses the layer is a thread of its own
            status = dict(
                line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
            )
            assert status["NoNewPrivs"] == "1"
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0x8020001B
            assert status["Seccomp"] == "2"
        opened = {os.readlink(link) for link in (proc / "fd").iterdir() if link.name not in "012"}
        assert opened <= {str(root)}
        process.stdin.close()
        assert json.loads(process.stdout.readline())["error"] == "corrupt"
