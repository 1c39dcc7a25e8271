"""What root of a container tries with a shell: files, mounts and devices."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tinyo_ctl.attacks import Attack, Outcome, broken, held, impossible
from tinyo_ctl.attacks.ground import Refused

if TYPE_CHECKING:
    from tinyo_ctl.attacks.ground import Ground

#: Exit codes: what a script says when something is not here, and what a shell says when it has no such program.
ABSENT, UNKNOWN = 77, (126, 127)


def script(text: str) -> "Callable[[Ground], Outcome]":
    """An attack that has succeeded when the script ends well. $OUTSIDE is a file of the host, $DISK its disk."""

    def run(ground: "Ground") -> Outcome:
        setting = f"OUTSIDE={ground.outside} DISK='{disk()}'"
        code, said = ground.run("sh", "-c", f"{setting}; {text}")
        last = (said.strip().splitlines() or [""])[-1]
        if code == 0:
            return broken(last or "it succeeded")
        if code == ABSENT or code in UNKNOWN:
            return impossible(last)
        return held()

    return run


def on(path: str, text: str) -> "Callable[[Ground], Outcome]":
    """The same, about a file ($0) that not every kernel has."""
    return script(
        f"[ -e {path} ] || {{ echo this kernel has none; exit {ABSENT}; }}; {text.replace('$0', path)}"
    )


def disk() -> str:
    """Major and minor number of what the host's root is on, or else of its memory (mem(4))."""
    device = os.stat("/").st_dev
    return f"b {os.major(device)} {os.minor(device)}" if os.major(device) else "c 1 1"


def working_directory(ground: "Ground") -> Outcome:
    """A descriptor that the host left open would be a way out (it was, by this very path)."""
    for number in range(3, 16):
        with suppress(Refused):
            there = f"[ -e ../../../../../../..{ground.outside} ]"
            code, _ = ground.run("sh", "-c", there, workdir=f"/proc/self/fd/{number}")
            if code == 0:
                return broken(f"descriptor {number} leads out")
    return held()


def descriptors(ground: "Ground") -> Outcome:
    """Of the first process and of a further one, which looks by itself and so has one more."""
    for process, own in (("1", ()), ("self", ("3",))):
        code, said = ground.run("ls", f"/proc/{process}/fd")
        if code:
            return impossible(said)
        if more := set(said.split()) - {"0", "1", "2", *own}:
            return broken(f"process {process} has {', '.join(sorted(more))}")
    return held()


ATTACKS = (
    Attack("have the host run a program (core_pattern)", "", on("/proc/sys/kernel/core_pattern", ": >>$0")),
    Attack("reboot the host (sysrq-trigger)", "", on("/proc/sysrq-trigger", ": >>$0")),
    Attack(
        "read the kernel's memory (/proc/kcore)",
        "",
        on("/proc/kcore", '[ "$(head -c 1 $0 | wc -c)" -gt 0 ]'),
    ),
    Attack(
        "read the list of keys (/proc/keys)",
        "",
        on("/proc/keys", "grep -q . $0"),
    ),
    Attack("read the kernel's log (dmesg)", "", script("dmesg >/dev/null")),
    Attack(
        "change the host's null device",
        "CVE-2025-31133",
        on("/proc/interrupts", "chmod $(stat -c %a $0) $0"),
    ),
    Attack("mount a file system", "", script("mount -t tmpfs none /mnt")),
    Attack("uncover what is masked in /proc", "", on("/proc/interrupts", "umount $0")),
    Attack("write to /sys", "", script("mount -o remount,rw /sys")),
    Attack(
        "have the host run a program (release_agent)",
        "CVE-2022-0492",
        script("mount -t cgroup -o pids none /mnt"),
    ),
    Attack(
        "open the host's disk",
        "",
        script("mknod /tmp/disk $DISK && head -c 1 /tmp/disk >/dev/null"),
    ),
    Attack("read the host's memory (/dev/mem)", "", script("mknod /tmp/mem c 1 1 && : </tmp/mem")),
    Attack(
        "find a file of the host through /proc",
        "",
        script(
            'for way in /proc/[0-9]*/root /proc/[0-9]*/cwd; do [ ! -e "$way/$OUTSIDE" ] || exit 0; done; exit 1'
        ),
    ),
    Attack(
        "find a file of the host by ..",
        "",
        script('[ -e "/../../../../../../..$OUTSIDE" ]'),
    ),
    Attack("enter a descriptor that the host left open", "CVE-2024-21626", working_directory),
    Attack(
        "have a descriptor that the host left open",
        "CVE-2016-9962",
        descriptors,
    ),
    Attack(
        "see processes of the host",
        "",
        script("grep -qls tinyo-nod[e] /proc/[0-9]*/cmdline"),
    ),
    Attack(
        "have capabilities that programs inherit",
        "CVE-2022-24769",
        script("grep -q 'Cap\\(Inh\\|Amb\\):.*[1-9a-f]' /proc/self/status"),
    ),
    Attack(
        "live on when memory runs out (oom_score_adj)",
        "",
        script("echo -1000 >/proc/self/oom_score_adj"),
    ),
)
