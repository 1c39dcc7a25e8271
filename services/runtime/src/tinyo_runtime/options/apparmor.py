"""AppArmor (https://apparmor.net): under which profile a container runs, where the kernel has it."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start

#: Whether the kernel has it; which profiles it knows, a line each: "docker-default (enforce)".
ENABLED, LOADED = (
    Path("/sys/module/apparmor/parameters/enabled"),
    Path("/sys/kernel/security/apparmor/profiles"),
)
PARSER = "apparmor_parser"
#: The profile of containers that ask for none.
DEFAULT = "tinyo-default"
#: What the mounts and capabilities of a container keep from it already, once more: nobody mounts, or writes where the
#: settings of the kernel are; signals and traces stay among containers.
TEXT = f"""\
profile {DEFAULT} flags=(attach_disconnected, mediate_deleted) {{
  file,
  network,
  capability,
  unix,
  umount,
  deny mount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer={DEFAULT},
  ptrace (trace, read, tracedby, readby) peer={DEFAULT},
  deny /proc/{{acpi,bus,fs,irq,scsi}}/** w,
  deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwklx,
  deny /proc/sys/kernel/{{core_pattern,hotplug,modprobe,poweroff_cmd}} w,
  deny /proc/sys/{{fs,vm}}/** w,
  deny /sys/** wklx,
}}
"""
#: Seconds.
PATIENCE = 30


async def part(start: Start) -> None:
    """For its first process and further ones alike. Raises TinyoError APPARMOR_UNUSABLE."""
    asked = start.container.config.spec.security.apparmor
    if asked == "unconfined":
        return
    if not asked:
        if there() and shutil.which(PARSER):
            if DEFAULT not in loaded():
                await asyncio.to_thread(load)
            start.plan["apparmor"] = DEFAULT
        return
    if not there():
        raise unusable(asked, "this kernel has no AppArmor; leave `apparmor` out")
    if asked not in loaded():
        raise unusable(asked, f"it is not loaded; load it with {PARSER}(8)")
    start.plan["apparmor"] = asked


def there() -> bool:
    """Whether this kernel has it."""
    return ENABLED.exists() and ENABLED.read_text().strip() == "Y" and LOADED.exists()


def loaded() -> set[str]:
    """Names of the profiles that the kernel knows."""
    return {line.rpartition(" (")[0] for line in LOADED.read_text().splitlines()}


def load() -> None:
    """Tells the kernel the default profile."""
    try:
        command = [PARSER, "--replace", "--skip-cache"]
        done = subprocess.run(command, input=TEXT, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise unusable(DEFAULT, f"{error}; or say `apparmor: unconfined`") from None
    if done.returncode:
        why = done.stderr.strip() or f"{PARSER} ended with {done.returncode}"
        raise unusable(DEFAULT, f"{why}; or say `apparmor: unconfined`")


def unusable(name: str, why: str) -> TinyoError:
    """APPARMOR_UNUSABLE."""
    message = f"the AppArmor profile {name} cannot be used: {why}"
    failed = grpc.StatusCode.FAILED_PRECONDITION
    return TinyoError(failed, "APPARMOR_UNUSABLE", message, {"profile": name}, "security.apparmor")
