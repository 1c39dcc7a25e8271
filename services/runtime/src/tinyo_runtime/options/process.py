"""What a spec asks of a container's processes besides their command: docs/statefile.md."""

import os

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start
from tinyo_runtime.spawner import syscalls

#: Where distributions and podman keep the reaper; it is static, so that it needs nothing of the image.
REAPERS = ("/usr/bin/catatonit", "/usr/libexec/podman/catatonit", "/usr/libexec/catatonit/catatonit")


async def part(start: Start) -> None:
    """Groups, limits and score hold for further processes as well. Raises TinyoError REAPER_MISSING."""
    spec, plan = start.container.config.spec, start.plan
    plan["groups"] = list(spec.groups)
    plan["ulimits"] = {name: (limit.soft, limit.hard) for name, limit in spec.ulimits.items()}
    plan["oom_score_adj"] = spec.oom_score_adj
    if start.joins:
        return
    plan["hostname"] = spec.hostname or spec.name
    plan["sysctls"] = dict(spec.sysctls)
    if spec.init:
        plan["init"] = start.hand(reaper())


def reaper() -> int:
    """Descriptor of the program on a mount of its own, attached nowhere, through which nobody can write to it: the
    container can open what its first process runs (CVE-2019-5736). Raises TinyoError REAPER_MISSING."""
    for path in REAPERS:
        if os.path.isfile(path):
            fd = syscalls.open_tree(syscalls.AT_FDCWD, path)
            syscalls.make_private(fd, read_only=True)
            return fd
    message = "`init` needs the program catatonit: install the package catatonit, or leave `init` out"
    raise TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "REAPER_MISSING", message, {}, "init")
