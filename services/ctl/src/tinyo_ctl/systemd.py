"""The services as units of systemd, where `make install` put them."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from tinyo_ctl.failures import ServicesError


def has_units(instance: str) -> bool:
    """Whether systemd runs here and has units for this instance: they are for "tinyo" alone."""
    if instance != "tinyo" or not Path("/run/systemd/system").exists():
        return False
    command = ["systemctl", "cat", "tinyo-node.service", "tinyo-runtime.service"]
    return subprocess.run(command, capture_output=True).returncode == 0


def control(verb: str, services: Iterable[str]) -> None:
    """Starts or stops services, and returns when that is done. ServicesError with systemd's words."""
    command = ["systemctl", verb, *(f"tinyo-{service}.service" for service in services)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ServicesError(f"systemd could not {verb} the services: {done.stderr.strip()}")
