"""What can be set: every key of `/etc/INSTANCE/runtime.toml`, with its default.

INSTANCE is `$TINYO_INSTANCE`, or "tinyo"; everything that this service makes on the machine carries its
name, so that instances do not see each other.
"""

import hashlib
import os
from dataclasses import dataclass, replace

from tinyo_runtime import configuration, parts


@dataclass(frozen=True)
class Settings(parts.Parts):
    """Settings of the runtime; each field is a key of the file."""

    instance: str
    #: What must outlive a reboot: images, writable layers. By default "/var/lib/INSTANCE".
    state: str
    #: What is true for this boot only: sockets, records. By default "/run/INSTANCE".
    run: str
    #: Containers get their addresses from here; "auto" takes the first free /16 from 10.77.0.0 on.
    pool: str = "auto"
    #: Whether containers reach 169.254.169.254, where clouds tell machines their secrets: "closed" or "open".
    metadata: str = "closed"
    #: Network namespaces that are made ahead of need; 0: nothing is, nor is the next container's process.
    ready: str = "4"
    #: Registries that are spoken to without TLS, "host" or "host:port", separated by commas.
    insecure_registries: str = ""

    #: Bytes of one file of a container's log ("64k", "10m", "1g"), and how many files there are, unless its spec says.
    log_max_size: str = "10m"
    log_max_files: str = "3"

    @property
    def prefix(self) -> str:
        """What the names of this instance's interfaces begin with (at most 6 of 15 characters)."""
        digest = hashlib.sha256(self.instance.encode()).hexdigest()
        return "ty-" if self.instance == "tinyo" else f"t{digest[:4]}-"


def load(argv: list[str] | None = None) -> Settings:
    """The defaults, and what was chosen instead; SystemExit(2) with one sentence when any of that is wrong."""
    instance = os.environ.get("TINYO_INSTANCE", "tinyo")
    defaults = Settings(instance, f"/var/lib/{instance}", f"/run/{instance}")
    return replace(defaults, **configuration.chosen(defaults, argv))
