"""AppArmor: the profile that a process runs under once it has exec'd its program."""

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan

#: Where it is chosen; before Linux 5.8 all security modules shared one file.
FILES = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")


def choose_apparmor_profile(plan: "Plan") -> None:
    """With `apparmor` in the plan. While /proc is the host's: that of a container could lead elsewhere, and what is
    written go nowhere (CVE-2019-19921, CVE-2025-52881)."""
    if name := plan.message.get("apparmor"):
        with contextlib.suppress(FileNotFoundError):
            write(FILES[0], name)
            return
        write(FILES[1], name)


def write(file: str, name: str) -> None:
    """aa_change_onexec(2), which writes all at once."""
    with open(file, "wb", buffering=0) as opened:
        opened.write(f"exec {name}".encode())
