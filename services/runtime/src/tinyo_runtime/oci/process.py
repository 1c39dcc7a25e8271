"""`process` of a bundle, or of a file for `exec`, as a plan for the spawner has it."""

import resource
from typing import Any

from tinyo_runtime.oci.names import CAPABILITIES, RLIMITS
from tinyo_runtime.oci.parts import Part
from tinyo_runtime.spawner.credentials import permitted
from tinyo_runtime.spawner.harden import LAST_CAPABILITY

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def plan(process: Part) -> dict[str, Any]:
    """What is the same for the first process and for further ones. OciError."""
    for key in ("selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity", "commandLine"):
        process.refuse(key)
    argv, env, cwd = process.texts("args"), process.texts("env"), process.needed("cwd")
    if not argv or not argv[0]:
        raise process.wrong("args", "must name a program")
    if not cwd.startswith("/"):
        raise process.wrong("cwd", f"must be an absolute path, and is {cwd!r}")
    for entry in env:
        if "=" not in entry:
            raise process.wrong("env", f"has {entry!r}, which is no NAME=VALUE")
    user = process.part("user")
    user.refuse("username")
    umask = user.number("umask", 0, 0o777)
    ids = {key: user.number(key, 0, (1 << 32) - 2) or 0 for key in ("uid", "gid")}
    return {
        "argv": argv,
        "env": env,
        "cwd": cwd,
        "user": "",
        "apparmor": process.text("apparmorProfile"),
        "process": ids
        | {
            "groups": _groups(user),
            "umask": 0o022 if umask is None else umask,
            "capabilities": _capabilities(process.part("capabilities")),
            "rlimits": _limits(process),
            "no_new_privileges": process.flag("noNewPrivileges"),
            "oom_score_adj": process.number("oomScoreAdj", -1000, 1000),
        },
    }


def _groups(user: Part) -> list[int]:
    found = user._list("additionalGids")
    for one in found:
        if not isinstance(one, int) or not 0 <= one < (1 << 32) - 1:
            raise user.wrong("additionalGids", f"has {one!r}, which is no number of a group")
    return found


def _capabilities(part: Part) -> dict[str, int]:
    """Masks by set; a bundle that says nothing wants none."""
    masks = dict.fromkeys(SETS, 0)
    for kind in SETS:
        for name in part.texts(kind):
            number = CAPABILITIES.get(name)
            if number is None:
                raise part.wrong(kind, f"has {name!r}, which is no capability (capabilities(7))")
            if number > LAST_CAPABILITY:
                raise part.wrong(kind, f"has {name}, which this kernel does not know")
            if not permitted() >> number & 1:
                raise part.wrong(kind, f"has {name}, which we do not have ourselves")
            masks[kind] |= 1 << number
    if masks["effective"] & ~masks["permitted"]:
        raise part.wrong("effective", "has capabilities that are not permitted")
    if masks["ambient"] & ~(masks["permitted"] & masks["inheritable"]):
        raise part.wrong("ambient", "has capabilities that are not both permitted and inheritable")
    return masks


def _limits(process: Part) -> list[tuple[int, int, int]]:
    """Those of the bundle; open files, which the spawner changes for itself, are otherwise what we have."""
    found = {resource.RLIMIT_NOFILE: resource.getrlimit(resource.RLIMIT_NOFILE)}
    seen = set[str]()
    for entry in process.parts("rlimits"):
        name = entry.needed("type")
        if name not in RLIMITS or name in seen:
            raise entry.wrong("type", f"is {name!r}, which is no limit of getrlimit(2), or stands here twice")
        seen.add(name)
        soft, hard = (entry.number(key) for key in ("soft", "hard"))
        if soft is None or hard is None or soft > hard:
            raise entry.wrong("soft", "and hard must be there, and soft must not be more than hard")
        found[RLIMITS[name]] = (_limit(soft), _limit(hard))
    return [(number, soft, hard) for number, (soft, hard) in found.items()]


def _limit(value: int) -> int:
    """Whatever a signed number of the kernel cannot be is no limit."""
    return resource.RLIM_INFINITY if value > (1 << 63) - 1 else value
