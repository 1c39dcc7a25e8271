"""What can be set: every key of `/etc/INSTANCE/node.toml`, with its default.

A value comes from, in this order: a flag, the environment (`TINYO_NODE_STATE`), the file, the default.
INSTANCE is `$TINYO_INSTANCE`, or "tinyo".
"""

import argparse
import os
import re
import tomllib
from pathlib import Path

from tinyo_node import metrics
from tinyo_node.events import EventLog


def override(places: dict[str, str], argv: list[str] | None = None) -> None:
    """Sets what flags, environment or file say; SystemExit(2) with one sentence when any is wrong.

    `places` are the keys whose defaults come from the instance's name; `events_kept`, how many events are
    kept, belongs to the log, and `metrics`, where they are on TCP, to those.
    """
    instance = os.environ.get("TINYO_INSTANCE", "tinyo")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", instance):
        raise SystemExit(f"TINYO_INSTANCE={instance!r}: use at most 15 of a-z, 0-9 and -, a letter first")
    file = Path(f"/etc/{instance}/node.toml")
    try:
        found = tomllib.loads(file.read_text()) if file.exists() else {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"{file}: {error}") from error
    parser = argparse.ArgumentParser(prog="tinyo-node", description="Keeps containers as they should be.")
    for key, default in {**places, "events_kept": EventLog.kept, "metrics": ""}.items():
        value = os.environ.get(f"TINYO_NODE_{key.upper()}", str(found.pop(key, default)))
        parser.add_argument(f"--{key.replace('_', '-')}", default=value, help=f"default: {default or 'none'}")
    if found:
        raise SystemExit(f"{file}: unknown key {min(found)!r}")
    values = {key: value.format(instance=instance) for key, value in vars(parser.parse_args(argv)).items()}
    kept = values.pop("events_kept")
    if not kept.isdecimal():
        raise SystemExit(f"events_kept={kept!r}: must be a whole number")
    EventLog.kept = int(kept)
    metrics.address = metrics.parsed(values.pop("metrics"))
    places.update(values)
