"""Keys of a Statefile that the first example does without: what may be written there, and what that stands for.

Each module of this package has the keys of one subject; `kinds` has what they are made of.
"""

from typing import Any

from tinyo_ctl.keys import (
    devices,
    envfile,
    health,
    limits,
    log,
    network,
    policy,
    process,
    security,
    storage,
    streams,
    userns,
)
from tinyo_ctl.keys.kinds import Key

#: By the name that people write.
KEYS: dict[str, Key] = {
    **devices.KEYS,
    **envfile.KEYS,
    **health.KEYS,
    **limits.KEYS,
    **log.KEYS,
    **network.KEYS,
    **policy.KEYS,
    **process.KEYS,
    **security.KEYS,
    **storage.KEYS,
    **streams.KEYS,
    **userns.KEYS,
}


def spell_out(values: dict[str, Any]) -> None:
    """Changes these keys of a Statefile to fields of the contract. ValueError with a sentence for people."""
    for name in [name for name in values if name in KEYS]:
        key = KEYS[name]
        *path, field = key.field.split(".")
        message, made = values, key.kind.made(values.pop(name))
        for part in path:
            message = message.setdefault(part, {})
        message[field] = made
