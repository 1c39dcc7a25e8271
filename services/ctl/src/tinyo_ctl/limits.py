"""`tinyo update`: other limits for containers, while they run."""

import argparse
from typing import Any

from tinyo.node.v1.node_pb2 import UpdateRequest
from tinyo.v1.resources_pb2 import Resources

from tinyo_ctl.client import correlation_id
from tinyo_ctl.failures import UsageError
from tinyo_ctl.keys import limits
from tinyo_ctl.options import LIMITS
from tinyo_ctl.render import succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe


def update(options: argparse.Namespace) -> int:
    """Changes what is said, and nothing else; "none" takes a limit away."""
    request = UpdateRequest(names=options.names, correlation_id=correlation_id())
    values: dict[str, Any] = {}
    for name in [limit.key for limit in LIMITS]:
        if (text := getattr(options, name)) is not None:
            field = limits.KEYS[name].field.removeprefix("resources.")
            values[field] = ("" if name == "cpuset" else 0) if text == "none" else parsed(name, text)
    if not values:
        raise UsageError("say what to change, as in `tinyo update web --memory 512m`")
    request.resources.CopyFrom(Resources(**values))
    request.fields.extend(values)
    with node(options.host) as calls:
        for one in calls.Update(request).containers:
            succeed(safe(one.spec.name), "updated")
    return 0


def parsed(name: str, text: str) -> Any:
    """A value as in a Statefile. UsageError."""
    try:
        return limits.KEYS[name].kind.made(text)
    except ValueError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
