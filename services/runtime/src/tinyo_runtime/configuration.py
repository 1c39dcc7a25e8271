"""Where settings come from: a flag (`--pool 10.9.0.0/16`), else the environment (`TINYO_RUNTIME_POOL`),
else the instance's file."""

import argparse
import os
import re
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime import logs

if TYPE_CHECKING:
    from tinyo_runtime.settings import Settings


def chosen(settings: "Settings", argv: list[str] | None) -> dict[str, str]:
    """The value of each key of the settings, chosen or default, in which "{instance}" stands for the instance;
    SystemExit(2) with one sentence when any is wrong. The command line of the process stands for `argv` None."""
    defaults = asdict(settings)
    instance = defaults.pop("instance")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", instance):
        raise SystemExit(f"TINYO_INSTANCE={instance!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    file = Path(f"/etc/{instance}/runtime.toml")
    try:
        found = tomllib.loads(file.read_text()) if file.exists() else {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"{file}: {error}") from error
    if unknown := sorted(set(found) - set(defaults)):
        raise SystemExit(f"{file}: unknown key {unknown[0]!r}; there are: {', '.join(defaults)}")
    parser = argparse.ArgumentParser(prog="tinyo-runtime", description="Runs containers on one machine.")
    for key, default in defaults.items():
        value = os.environ.get(f"TINYO_RUNTIME_{key.upper()}", str(found.get(key, default)))
        parser.add_argument(f"--{key.replace('_', '-')}", default=value, help=f"default: {default or 'none'}")
    chosen = vars(parser.parse_args(argv))
    try:
        logs.check(chosen["log_max_size"], chosen["log_max_files"])
    except ValueError as error:
        raise SystemExit(f"{file}: log_max_size, log_max_files: {error}") from None
    return {key: value.format(instance=instance) for key, value in chosen.items()}
