"""Attacks by way of a bundle's root file system, which is hostile while its config.json is not."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.support.bundles import Bundle

#: A device that opens for whoever has a node of it.
FUSE = os.makedev(10, 229)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def test_a_device_of_an_image_is_none(bundle: Bundle) -> None:
    """A node that an image brings opens nothing: its root is nodev. Where /dev is none of our mounts it cannot be, and
    the same node works; which devices there are is then up to the cgroup alone."""
    os.mknod(bundle.folder / "rootfs/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    attack = "busybox head -c 3 /zero | busybox wc -c 2>&1"
    assert bundle.run(attack).strip() == "0"
    mounts = [one for one in bundle.config["mounts"] if not one["destination"].startswith("/dev")]
    bundle.change(mounts=mounts, root={"readonly": False})
    assert bundle.run(attack).strip() == "3"


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no /dev/fuse")
def test_a_device_that_nobody_allows_is_refused(bundle: Bundle) -> None:
    """By the cgroup, also where the root is not nodev; allowed by the bundle, the same node opens."""
    os.mknod(bundle.folder / "rootfs/fuse", stat.S_IFCHR | 0o666, FUSE)
    mounts = [one for one in bundle.config["mounts"] if not one["destination"].startswith("/dev")]
    bundle.change(mounts=mounts, root={"readonly": False})
    attack = "(exec 3</fuse) 2>&1 && echo open; true"
    assert bundle.run(attack).strip() == "sh: can't open /fuse: Operation not permitted"
    allowed = {"allow": True, "type": "c", "major": os.major(FUSE), "minor": os.minor(FUSE), "access": "r"}
    rules = [*bundle.config["linux"]["resources"]["devices"], allowed]
    assert bundle.run(attack, linux={"resources": {"devices": rules}}).strip() == "open"


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_a_link_in_place_of_the_kernels_files_is_refused(bundle: Bundle, place: str) -> None:
    """What is mounted somewhere else would neither be masked nor be what programs trust (CVE-2019-16884)."""
    (bundle.folder / "rootfs" / place).symlink_to("/tmp")
    bundle.shell("true")
    done = bundle.oci("run", "a")
    assert (done.returncode, "a mount failed" in done.stderr) == (1, True)
    assert "Too many levels of symbolic links" in done.stderr
    assert bundle.nothing_left()


@pytest.mark.parametrize("number", range(3, 12))
def test_no_descriptor_of_the_host_is_a_working_directory(bundle: Bundle, number: int) -> None:
    """CVE-2024-21626: a folder of the host that stayed open would be entered by its number."""
    bundle.shell("pwd; ls", process={"cwd": f"/proc/self/fd/{number}"}, root={"readonly": False})
    done = bundle.oci("run", "a")
    assert (done.returncode, done.stdout) == (1, ""), "nowhere that it could be"
    assert bundle.nothing_left()


def test_what_is_copied_into_memory_is_of_the_image_alone(bundle: Bundle, tmp_path: Path) -> None:
    """`tmpcopyup` copies with the host's privileges: a link to a file of the host is copied as a link, and one in place
    of the folder leads back into the root."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    data = bundle.folder / "rootfs/data"
    data.mkdir()
    (data / "link").symlink_to(secret)
    os.mkfifo(data / "pipe")
    tmpfs = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    bundle.change(mounts=[*bundle.config["mounts"], tmpfs])
    out = bundle.run("readlink /data/link; cat /data/link 2>&1; ls /data")
    assert out.splitlines() == [
        str(secret),
        "cat: can't open '/data/link': No such file or directory",
        "link",
    ]
    shutil.rmtree(data)
    data.symlink_to(tmp_path)
    (bundle.folder / f"rootfs{tmp_path}").mkdir(parents=True)
    assert "of the host" not in bundle.run("cat /data/secret 2>&1; true")


def test_a_program_never_has_what_its_last_step_needed(bundle: Bundle) -> None:
    """CAP_SYS_ADMIN is there while the process waits, to load a filter without no_new_privs, and nobody in the container
    can reach for it then; the program does not have it, nor can it get it."""
    bundle.shell("grep -E 'Cap(Prm|Eff|Amb|Bnd)' /proc/self/status", process={"noNewPrivileges": False})
    pid = bundle.create("a", bundle.folder / "out")
    waiting = dict(
        line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert int(waiting["CapPrm"], 16) & 1 << 21, "that is what this test is about"
    assert int(waiting["CapBnd"], 16) & 1 << 21 == 0
    look = bundle.oci("exec", "a", "sh", "-c", "ls -l /proc/1/cwd /proc/1/root /proc/1/fd 2>&1; true")
    assert look.stdout.count("cannot read link: Permission denied") >= 3
    assert "->" not in look.stdout
    assert bundle.oci("start", "a").returncode == 0
    os.waitpid(pid, 0)
    assert {line.split()[1] for line in (bundle.folder / "out").read_text().splitlines()} == {
        "00000000800405fb",
        "0000000000000000",
    }
    bundle.oci("delete", "a")
