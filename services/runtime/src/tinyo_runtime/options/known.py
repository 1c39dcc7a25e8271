"""A plan says nothing that the spawner which runs would not hear: it may be of an earlier version."""

from typing import TYPE_CHECKING

from tinyo_runtime import failures

if TYPE_CHECKING:
    from tinyo_runtime.options import Start

#: What the client makes of itself when it sends the plan.
OWN = {"stdin"}


async def part(start: "Start") -> None:
    """Raises TinyoError, SPAWNER_TOO_OLD."""
    if unknown := start.plan.keys() - start.containers.spawner.keeper.fields - OWN:
        raise failures.unheard(unknown)
