"""The program: every check, one after the other. See the package."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator

from google.protobuf.json_format import MessageToJson
from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.doctor import Check, Machine, cgroups, host, kernel, leftovers, network, off, walls
from tinyo_runtime.spawner import syscalls

#: By which it may be ended.
STOP = {signal.SIGTERM, signal.SIGINT}
CHECKS: tuple[tuple[str, Check], ...] = (
    ("kernel", kernel.release),
    ("system calls", kernel.calls),
    ("overlayfs", kernel.overlay),
    ("id-mapped mounts", kernel.mapped),
    ("user namespaces", walls.user_namespaces),
    ("seccomp", walls.seccomp),
    ("AppArmor", walls.apparmor),
    ("Landlock", walls.landlock),
    ("keyrings", walls.keyrings),
    ("cgroups", cgroups.controllers),
    ("device filter", cgroups.devices),
    ("nftables", network.library),
    ("firewall rules", network.rules),
    ("forwarding", network.forwarding),
    ("route_localnet", network.loopback),
    ("FORWARD of others", network.forward),
    ("INPUT of others", network.arriving),
    ("disk", host.disk),
    ("clock", host.clock),
    ("/proc", host.processes),
    ("who may read", host.modes),
    ("leftovers", leftovers.everything),
)


def findings(ids: frozenset[str] | None, argv: list[str]) -> Iterator[Finding]:
    """All of them; a check that cannot look says why, and the others go on."""
    try:
        from tinyo_runtime import options, settings  # in this order: one needs the other
    except OSError as error:  # a library that the runtime does not start without
        yield off(f"{error}: the runtime does not start", "apt install libnftables1", name="libraries")
        return
    machine = Machine(settings.load(argv), ids)
    assert options
    for name, check in CHECKS:
        try:
            for finding in check(machine):
                finding.name = finding.name or name
                yield finding
        except (OSError, ImportError) as error:
            yield off(f"cannot be looked at: {error}", "see what the message is about", name=name)


def main() -> None:
    """What is mounted to find out what can be is seen by nobody else, and ends with this process."""
    parser = argparse.ArgumentParser(prog="tinyo_runtime.doctor")
    parser.add_argument("--ids", help="all containers that there are, separated by commas")
    parser.add_argument("settings", nargs="*", help="as tinyo-runtime was given them, after --")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("tinyo_runtime.doctor needs root: it tries mounts and namespaces")
    ids = None if options.ids is None else frozenset(options.ids.split(",")) - {""}
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # files that are tried with go first
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    for finding in findings(ids, options.settings):
        if signal.sigpending() & STOP:
            sys.exit("interrupted")
        print(MessageToJson(finding, indent=None), flush=True)


if __name__ == "__main__":
    main()
