"""What can be set: every key of `/etc/INSTANCE/runtime.toml`, with its default.

A value comes from, in this order: a flag (`--pool 10.9.0.0/16`), the environment
(`TINYO_RUNTIME_POOL`), the file, the default. INSTANCE is `$TINYO_INSTANCE`, or "tinyo"; everything
that this service makes on the machine carries its name, so that instances do not see each other.
"""

import argparse
import hashlib
import os
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Settings of the runtime; each field is a key of the file."""

    instance: str
    #: What must outlive a reboot: images, writable layers.
    state: str = "/var/lib/{instance}"
    #: What is true for this boot only: sockets, records.
    run: str = "/run/{instance}"
    #: Containers get their addresses from here; "auto" takes the first free /16 from 10.77.0.0 on.
    pool: str = "auto"
    #: Network namespaces that are made ahead of need; 0: nothing is, nor is the next container's process.
    ready: str = "4"
    #: Registries that are spoken to without TLS, "host" or "host:port", separated by commas.
    insecure_registries: str = ""

    @property
    def prefix(self) -> str:
        """What the names of this instance's interfaces begin with (at most 6 of 15 characters)."""
        if self.instance == "tinyo":
            return "ty-"
        return f"t{hashlib.sha256(self.instance.encode()).hexdigest()[:4]}-"


def load(argv: list[str] | None = None) -> Settings:
    """Settings from flags, environment, file and defaults; SystemExit(2) with one sentence when any is wrong."""
    instance = os.environ.get("TINYO_INSTANCE", "tinyo")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", instance):
        raise SystemExit(f"TINYO_INSTANCE={instance!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    keys = {field.name: str(field.default) for field in fields(Settings) if field.name != "instance"}
    file = Path(f"/etc/{instance}/runtime.toml")
    try:
        found = tomllib.loads(file.read_text()) if file.exists() else {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"{file}: {error}") from error
    if unknown := sorted(set(found) - set(keys)):
        raise SystemExit(f"{file}: unknown key {unknown[0]!r}; there are: {', '.join(keys)}")
    parser = argparse.ArgumentParser(prog="tinyo-runtime", description="Runs containers on one machine.")
    for key, default in keys.items():
        value = os.environ.get(f"TINYO_RUNTIME_{key.upper()}", str(found.get(key, default)))
        parser.add_argument(f"--{key.replace('_', '-')}", default=value, help=f"default: {default or 'none'}")
    values = {key: value.format(instance=instance) for key, value in vars(parser.parse_args(argv)).items()}
    return Settings(instance=instance, **values)
