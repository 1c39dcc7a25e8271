"""Runs a command in a virtual machine: this machine's files, and a kernel of Debian with pure cgroup v2 and AppArmor.

    python -m scripts.vm KERNEL SECONDS COMMAND…

KERNEL is a folder into which Debian's package of a kernel was unpacked (scripts/kernel). The machine sees the files of
this one, by 9p; what it writes goes to a disk (ext4) that goes with it. Its console is our output; its network is its own
loopback. The exit code is the command's; 124 when it took more than SECONDS, 125 when the machine ended by itself.
Neither KVM nor any privilege in the host's kernel is needed: it is emulated, and everything in it is slow. It has one
processor: a second makes starting programs, which is what tests do, twice as slow. Two machines side by side are faster.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: What it needs to get at its files; all others are found by the kernel itself (modprobe(8)).
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9p", "9pnet_virtio", "overlay")
MEMORY, DISK = "2G", 16 << 30
#: Folders that are on the disk itself, which overlayfs can write on and whose mounts can be id-mapped.
ON_DISK = ("/tmp", "/var/tmp", "/var/lib")
TIMED_OUT, BROKEN = 124, 125

#: Busybox runs it as the first process, with every file below `/`: it comes from our own archive.
INIT = """#!/busybox sh
/busybox mkdir -p /proc /host /disk /root /here
/busybox mount -t proc proc /proc
for module in {modules}; do /busybox insmod /$module || exec /busybox sh; done
/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any host /host
/busybox mount -t devtmpfs devtmpfs /dev
/busybox mount -t ext4 -o noinit_itable /dev/vda /disk
/busybox mkdir /disk/upper /disk/work
/busybox mount -t overlay -o lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work root /root
/busybox umount /proc /dev
cd /root
/busybox mount -t proc proc proc
/busybox mount -t sysfs sysfs sys
/busybox mount -t devtmpfs devtmpfs dev
/busybox mkdir -p dev/pts dev/shm dev/mqueue lib/modules
/busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
/busybox mount -t tmpfs -o mode=1777 shm dev/shm
/busybox mount -t mqueue mqueue dev/mqueue
/busybox mount -t securityfs securityfs sys/kernel/security
/busybox mount -t cgroup2 cgroup2 sys/fs/cgroup
/busybox mount -o bind .{folder} /here # it may be in a folder that is covered now
/busybox mount -t tmpfs -o mode=755 run run
for folder in {on_disk}; do
  /busybox mkdir -p -m 1777 /disk$folder
  /busybox mount -o bind /disk$folder .$folder
done
for folder in /host/var/lib/*/; do
  /busybox mkdir .${{folder#/host}}
  /busybox mount -o bind $folder .${{folder#/host}}
done
/busybox chmod 755 var/lib
/busybox mkdir -p .{folder}
/busybox mount -o bind /here .{folder}
/busybox mount -o bind /host{kernel}/lib/modules lib/modules
/busybox ip link set lo up 2>/dev/null
/busybox hostname vm
exec /busybox switch_root /root /bin/bash -c {script}
"""
#: The second serial line takes the exit code, and a byte for port 0xf4 ends the machine.
SCRIPT = """
cd {folder}; export {environment}
ip link set lo up
stty -echo -onlcr rows 50 cols 120 2>/dev/null
{command}
echo $? >/dev/ttyS1
printf x | dd of=/dev/port bs=1 seek=244 status=none
"""


def main(kernel: str, seconds: str, *command: str) -> int:
    """The command's exit code."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as folder:
        code, archive, disk = (Path(folder, name) for name in ("code", "initramfs", "disk"))
        code.touch()
        disk.touch()
        os.truncate(disk, DISK)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init", disk], check=True)
        unpacked = Path(kernel).resolve()
        (image,) = unpacked.glob("boot/vmlinuz-*")
        archive.write_bytes(b"".join(initramfs(unpacked, list(command))))
        machine = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL",
                "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-machine", "q35,accel=tcg", "-cpu", "max", "-m", MEMORY,
                "-kernel", str(image), "-initrd", str(archive),
                "-append", "console=ttyS0 loglevel=1 panic=-1 mitigations=off tsc=reliable",
                "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe",
                "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
                "-device", "virtio-rng-pci", "-device", "isa-debug-exit,iobase=0xf4",
                "-serial", "stdio", "-serial", f"file:{code}",
            ],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            machine.wait(float(seconds))
        except subprocess.TimeoutExpired:
            print(f"\nvm: {shlex.join(command)} did not end within {seconds} s", file=sys.stderr)
            return TIMED_OUT
        finally:
            with contextlib.suppress(ProcessLookupError):
                machine.kill()
            machine.wait()
        said = code.read_text().split()
        return int(said[0]) if said else BROKEN


def initramfs(kernel: Path, command: list[str]) -> Iterator[bytes]:
    """An archive (cpio, "newc") of what comes up first: busybox, MODULES and what they need, and INIT."""
    modules = list(needed(kernel))
    folder = shlex.quote(os.getcwd())
    script = SCRIPT.format(
        folder=folder,
        environment=f"HOME=/root TERM=dumb PATH={shlex.quote(os.environ['PATH'])}",
        command=shlex.join(command),
    )
    names = " ".join(path.name for path in modules)
    on_disk = " ".join(ON_DISK)
    init = INIT.format(
        modules=names, on_disk=on_disk, kernel=kernel, folder=folder, script=shlex.quote(script)
    )
    busybox = Path("/bin/busybox").read_bytes()
    files = [
        ("init", init.encode()),
        ("busybox", busybox),
        *((path.name, path.read_bytes()) for path in modules),
    ]
    yield member("dev", b"", 0o040755)
    yield member("dev/console", b"", 0o020600, (5, 1))
    for name, content in files:
        yield member(name, content, 0o100755)
    yield member("TRAILER!!!", b"", 0)


def member(name: str, content: bytes, mode: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """One entry of the archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return padded(head) + padded(content)


def padded(data: bytes) -> bytes:
    """To a multiple of four."""
    return data + bytes(-len(data) % 4)


def needed(kernel: Path) -> Iterator[Path]:
    """Files of MODULES, each behind what it needs (modules.dep(5))."""
    (folder,) = kernel.glob("lib/modules/*")
    depends = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        depends[Path(path).name.removesuffix(".ko").replace("-", "_")] = [path, *needs.split()]
    paths = dict.fromkeys(path for name in MODULES for path in reversed(depends[name]))
    return (folder / path for path in paths)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
