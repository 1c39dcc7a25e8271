"""What can be set: every key of `/etc/INSTANCE/node.toml`, with its default.

A value comes from, in this order: a flag, the environment (`TINYO_NODE_STATE`), the file, the default.
INSTANCE is `$TINYO_INSTANCE`, or "tinyo".
"""

import argparse
import os
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Settings of the node; each field is a key of the file."""

    instance: str
    #: What must outlive a reboot: the Store and the node's id.
    state: str = "/var/lib/{instance}"
    #: Sockets.
    run: str = "/run/{instance}"
    #: Where the runtime answers (a gRPC address).
    runtime: str = "unix:/run/{instance}/runtime.sock"
    #: Events that are kept.
    events_kept: str = "10000"


def load(argv: list[str] | None = None) -> Settings:
    """Settings from flags, environment, file and defaults; SystemExit(2) with one sentence when any is wrong."""
    instance = os.environ.get("TINYO_INSTANCE", "tinyo")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", instance):
        raise SystemExit(f"TINYO_INSTANCE={instance!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    file = Path(f"/etc/{instance}/node.toml")
    try:
        found = tomllib.loads(file.read_text()) if file.exists() else {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"{file}: {error}") from error
    parser = argparse.ArgumentParser(prog="tinyo-node", description="Keeps containers as they should be.")
    for key, default in {field.name: field.default for field in fields(Settings)[1:]}.items():
        value = os.environ.get(f"TINYO_NODE_{key.upper()}", str(found.pop(key, default)))
        parser.add_argument(f"--{key.replace('_', '-')}", default=value, help=f"default: {default}")
    if found:
        raise SystemExit(f"{file}: unknown key {min(found)!r}")
    values = {key: value.format(instance=instance) for key, value in vars(parser.parse_args(argv)).items()}
    if not values["events_kept"].isdecimal():
        raise SystemExit(f"events_kept={values['events_kept']!r}: must be a whole number")
    return Settings(instance, **values)
