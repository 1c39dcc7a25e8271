"""A spawner says what it knows, and is asked for nothing else: it may be older than its runtime."""

import re
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start, known
from tinyo_runtime.spawner import fields

from tests.support.box import Box, Exit, InBox

PAGE = Path(__file__).parents[2] / "docs/spawner-protocol.md"


def test_what_it_knows_is_what_is_written_down() -> None:
    table = PAGE.read_text().partition("## From the runtime")[2].partition("| field | what |")[2]
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[2:]]
    written = [name for row in rows for name in re.findall("`([a-z_]+)`", row)]
    assert {*written, "bundle"} == set(fields.PLAN)


def test_nothing_is_asked_for_that_would_be_left_out(box: InBox) -> None:
    """A field that it has not heard of is one error, and is ignored where nobody looks; what it knows is none."""

    async def check(box: Box) -> None:
        assert box.client.keeper.fields == set(fields.PLAN)
        containers = type("Containers", (), {"spawner": box.client})()
        start = Start.__new__(Start)
        start.containers = containers
        start.plan = box.plan("c", "true", stdin=0)
        await known.part(start)
        start.plan |= {"brakes": True, "anchor": 7}
        with pytest.raises(TinyoError) as caught:
            await known.part(start)
        assert caught.value.reason == "SPAWNER_TOO_OLD"
        assert "of an earlier version, and knows no anchor, brakes: stop all containers once" in str(
            caught.value
        )
        assert (await box.run("true", brakes=True, anchor=7))[0] == Exit(0, 0), "in silence"

    box(check)


def test_a_new_connection_is_another_spawner_perhaps(box: InBox) -> None:
    """One that does not say what it knows is of before it could; a connection that was lost says nothing."""

    async def check(box: Box) -> None:
        keeper = box.client.keeper
        keeper.met({"op": "ready", "id": "", "fields": ["argv"]}, [])
        assert keeper.fields == {"argv"}
        keeper.met({}, [])
        assert keeper.fields == {"argv"}
        keeper.met({"op": "ready", "id": ""}, [])
        assert keeper.fields == set(fields.PLAN)

    box(check)
