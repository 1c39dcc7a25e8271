"""Who may give commands, and to which node."""

import os
import re

from tinyo_ctl.failures import Failure, UsageError
from tinyo_ctl.services import INSTANCE, answers


def check(host: str) -> None:
    """Failure unless there can be a node to talk to: at `host`, at a socket that is open to this user, or as root."""
    if host and not host.startswith("unix:"):
        raise UsageError(f"{host!r} is no host: write unix:PATH, the path of a node's socket")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", INSTANCE):
        raise UsageError(f"TINYO_INSTANCE={INSTANCE!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    if not host and not answers("node"):
        need_root()


def need_root() -> None:
    """Failure when this is not root."""
    if os.geteuid() != 0:
        raise Failure("tinyo needs root: run it with sudo")
