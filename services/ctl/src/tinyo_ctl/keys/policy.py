"""The key `restart`: whether a container is started again when its process ended."""

import re
from typing import Any

from tinyo_ctl.keys.kinds import Key, One

#: What can be written, and what it is in the contract.
RESTARTS = {
    "no": "RESTART_KIND_NO",
    "never": "RESTART_KIND_NO",
    "on-failure": "RESTART_KIND_ON_FAILURE",
    "always": "RESTART_KIND_ALWAYS",
    "unless-stopped": "RESTART_KIND_UNLESS_STOPPED",
}


def restart(text: str) -> dict[str, Any]:
    """A restart policy: "always", "on-failure:5". ValueError."""
    if text in RESTARTS:
        return {"kind": RESTARTS[text]}
    if match := re.fullmatch("on-failure:([1-9][0-9]{0,8})", text):
        return {"kind": RESTARTS["on-failure"], "max_restarts": int(match[1])}
    raise ValueError(
        f"{text!r} is no restart policy: write no, on-failure, on-failure:5, always or unless-stopped"
    )


KEYS: dict[str, Key] = {"restart": Key("restart", One(restart))}
