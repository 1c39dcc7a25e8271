"""Disks that are full, out of inodes or read-only: one clear error, nothing is left, and work goes on afterwards."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, collector, headroom, resume
from tinyo_runtime.images.collector import collect
from tinyo_runtime.images.marks import Level, Limits, Marks, understood
from tinyo_runtime.images.prune import InUse, prune

from tests.support import crash
from tests.support.images import file, folder, image, layer, push
from tests.support.stores import in_store, sound

MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    with mounted(tmp_path / "disk", "size=32m"):
        yield tmp_path / "disk"


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def remounted(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def filled(path: Path, leave: int = 0) -> Path:
    """Takes all that is free of a disk, but so many bytes."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    with open(path / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - leave)
    return path / "filler"


def random_image(host: str, name: str, size: int) -> str:
    return push(image([layer(file(name, random.Random(name).randbytes(size)))]), f"{host}/{name}:1")


def refused(root: Path, reference: str) -> TinyoError:
    """The error of a pull that leaves nothing."""
    with pytest.raises(TinyoError) as caught:
        in_store(root, lambda store: store.pull(reference))
    for left in ("pulling", "partial", "layers", "images/blobs/sha256"):
        assert os.listdir(root / left) == []
    return caught.value


def test_no_space_at_any_step(host: str, tmp_path: Path) -> None:
    """As a disk says it that somebody else fills at that moment."""
    reference = random_image(host, "step", 2 * MB)
    state = tmp_path / "state"

    def pull() -> Image:
        return in_store(state, lambda store: store.pull(reference))

    def fails() -> None:
        with pytest.raises(TinyoError) as caught:
            pull()
        assert (caught.value.reason, "free some space" in caught.value.message) == ("DISK_FULL", True), str(
            caught.value
        )

    in_store(state, sound)
    # What is deleted takes none, nor does the time of a file.
    steps = "|".join(
        [
            *(f"{event} {state}/p*/*" for event in ("open", "os.mkdir", "os.link")),
            *(f"{event} {state}/*" for event in ("os.rename", "tinyo.*")),
        ]
    )
    with (tmp_path / "noted").open("w") as noted:
        assert crash.outcome(pull, f"{steps}=note:{noted.name}") == 0
    count = len(Path(noted.name).read_text().splitlines())
    assert count > 15
    for number in range(1, count + 1):
        in_store(state, forget)
        assert crash.outcome(fails, f"{steps}#{number}=ENOSPC") == 0
        assert os.listdir(state / "pulling") == os.listdir(state / "partial") == []
        in_store(state, sound)
        pull()
        in_store(state, sound)


async def forget(store: ImageStore) -> None:
    """Takes all images away."""
    await prune(store, InUse, all=True, dry_run=False)


def test_out_of_inodes(host: str, tmp_path: Path) -> None:
    many = [file(f"many/{number}") for number in range(300)]
    reference = push(image([layer(folder("many"), *many)]), f"{host}/many:1")
    with mounted(tmp_path / "disk", "nr_inodes=200"):
        error = refused(tmp_path / "disk", reference)
        assert error.reason == "DISK_FULL" and "inodes" in error.message
        remounted(tmp_path / "disk", "nr_inodes=1000")
        in_store(tmp_path / "disk", lambda store: store.pull(reference))


def test_read_only(host: str, disk: Path) -> None:
    """What is there can be used; what cannot be written is said, and nothing is half gone."""
    there, other = random_image(host, "there", MB), random_image(host, "other", MB)
    pulled = in_store(disk, lambda store: store.pull(there))
    old = disk / "partial/sha256-0.tmp"
    old.write_bytes(bytes(resume.LEAST))
    os.utime(old, (0, 0))
    (disk / "pulling/tmp").mkdir()
    remounted(disk, "ro")

    async def use(store: ImageStore) -> None:
        assert await store.pull(there) == pulled
        for attempt in (store.pull(other), forget(store)):
            with pytest.raises((TinyoError, OSError)) as caught:
                await attempt
            assert isinstance(caught.value, Exception)
            error = TinyoError.of(caught.value)
            assert error.reason == "DISK_READ_ONLY" and "read-only" in error.message
        assert store.list() == [pulled]
        await sound(store)

    in_store(disk, use, tidy=False)
    remounted(disk, "rw")
    in_store(disk, lambda store: store.pull(other))
    in_store(disk, forget)
    assert os.listdir(disk / "layers") == os.listdir(disk / "partial") == os.listdir(disk / "pulling") == []


def test_a_full_disk_can_be_cleared(host: str, disk: Path) -> None:
    """Removing an image writes a file, for which there is always room."""
    one, two = random_image(host, "one", MB), random_image(host, "two", MB)

    async def use(store: ImageStore) -> None:
        await store.pull(one)
        await store.pull(two)
        filled(disk)
        with pytest.raises(OSError):
            (disk / "more").write_bytes(b"x" * 10_000)
        store.remove(one)
        assert [image.references for image in store.list()] == [(two,)]
        store.trash.emptied()
        filled(disk)  # what became free is taken at once
        await store.pull(two)
        await forget(store)
        assert store.list() == []
        await sound(store)

    in_store(disk, use)


def test_pulls_leave_a_reserve(host: str, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the layer says that it is too large, or only becomes so when it is unpacked."""
    monkeypatch.setattr(headroom, "INTERVAL", 0)
    large = random_image(host, "large", 12 * MB)
    bomb = push(image([layer(file("bomb", b"zip bomb" * (31 * MB // 8)))]), f"{host}/bomb:1")

    async def use(store: ImageStore) -> None:
        store.limits = Limits(reserve_percent=60)
        with pytest.raises(TinyoError) as caught:
            await store.pull(large)
        assert caught.value.reason == "DISK_FULL" and "disk_reserve" in caught.value.message
        assert "`tinyo image prune -a`" in caught.value.message
        store.limits = Limits(reserve=1 << 40)  # a twentieth
        with pytest.raises(TinyoError, match="disk_reserve"):
            await store.pull(bomb)
        assert os.listdir(disk / "layers") == os.listdir(disk / "partial") == []
        store.trash.emptied()
        await store.pull(large)

    in_store(disk, use)
    assert Limits(reserve=1 << 30).lacking(Level(0, 100 << 30, 0, 0), 99 << 30) == 0
    assert Limits(reserve=1 << 30).lacking(Level(0, 100 << 30, 0, 0), (99 << 30) + 1) == 1
    assert Limits(reserve=1 << 30).lacking(Level(0, 100 << 30, 991, 1000), 0) == 1


def test_collects_the_longest_unused_first(host: str, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    references = {name: random_image(host, name, 4 * MB) for name in names}

    async def use(store: ImageStore) -> None:
        pulled = {name: await store.pull(references[name]) for name in names}  # 8 MB each

        def age(name: str, seconds: float) -> None:
            when = time.time() - seconds
            os.utime(store.blob(pulled[name].digest), (when, when))

        async def removed(**limits: float | str) -> list[str]:
            store.limits = Limits(**limits)  # type: ignore[arg-type]
            containers = InUse(here={pulled["c"].digest}, elsewhere={references["e"]})
            done = await collect(store, lambda: containers)
            assert bool(done.freed) == bool(done.removed)
            return [name for name in names if pulled[name].digest in {one.digest for one in done.removed}]

        for number, name in enumerate(["b", "e", "c", "a", "d"]):
            age(name, 9000 - number)
        level = Level.of(tmp_path / "disk").percent
        assert await removed(collect="unused", high=level + 1, low=10) == []
        assert await removed(collect="off", high=10, low=10) == []
        assert await removed(collect="unnamed", high=10, low=10) == []
        assert await removed(collect="unused", high=level - 1, low=level - 2) == ["b"]
        age("a", collector.YOUNG - 5)
        with store.lease(pulled["d"].digest):
            assert await removed(collect="unused", high=10, low=10) == []
        assert collector.last_used(store, pulled["c"].digest) > time.time() - 5
        assert await removed(collect="unused", high=10, low=10) == ["d"]
        assert {one.digest for one in store.list()} == {pulled[name].digest for name in "ace"}
        await sound(store)

    with mounted(tmp_path / "disk", "size=64m"):
        in_store(tmp_path / "disk", use)


def test_unnamed_images_and_leftovers_are_collected_by_default(host: str, disk: Path) -> None:
    reference = random_image(host, "named", MB)
    push(image([layer(file("old", b"x"))]), f"{host}/moved:1")

    async def use(store: ImageStore) -> None:
        named = await store.pull(reference)
        old = await store.pull(f"{host}/moved:1")
        push(image([layer(file("new", b"x"))]), f"{host}/moved:1")
        new = await store.pull(f"{host}/moved:1", refresh=True)
        (store.partial / f"sha256-{'0' * 64}.tmp").write_bytes(bytes(2 * MB))
        store.limits = understood(Marks(images_high="1", images_low="1"))
        done = await collect(store, InUse)
        assert [one.digest for one in done.removed] == [old.digest] and done.freed > 2 * MB
        assert {one.digest for one in store.list()} == {named.digest, new.digest}
        assert os.listdir(store.partial) == []

    in_store(disk, use)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"disk_reserve": "much"}, "disk_reserve 'much'"),
        ({"disk_reserve": "101%"}, "0 to 100"),
        ({"images_high": "-1"}, "images_high '-1'"),
        ({"images_high": "70"}, "images_low 80 is more than images_high 70"),
        ({"images_collect": "all"}, "off, unnamed, unused"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        understood(Marks(**settings))


def test_settings() -> None:
    assert understood(Marks()) == Limits(1 << 30, 0, "unnamed", 85, 80)
    assert understood(Marks(disk_reserve="5 %")).reserve_percent == 5
    assert understood(Marks(disk_reserve="20GB", images_high="90%")).reserve == 20 * 10**9
