"""The node's table and state: what is written together, what a full disk undoes, what an Apply changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo_node import history, replacing
from tinyo_node.cluster import State
from tinyo_node.errors import TinyoError
from tinyo_node.lookup import find, resolve
from tinyo_node.sqlite import Table

Test = Callable[[State], Awaitable[None]]


@pytest.fixture
def with_state(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a coroutine with the state of a node; the same data each time."""

    async def whole(test: Test) -> None:
        state = State(Table(tmp_path / "store.db"))
        state.touch = lambda key: None
        try:
            await asyncio.wait_for(test(state), 30)
        finally:
            await history.close(state.table)

    return lambda test: asyncio.run(whole(test))


def fill_disk(table: Table) -> int:
    """No page more than there are."""
    (pages,) = table.writer.execute("PRAGMA page_count").fetchone()
    table.writer.execute(f"PRAGMA max_page_count = {pages}")
    return int(pages)


def asked(*names: str, image: str = "alpine", origin: str = "/a.yml") -> pb.ApplyRequest:
    specs = [v1.ContainerSpec(name=name, image=image) for name in names]
    return pb.ApplyRequest(cluster="default", origin=origin, containers=specs, correlation_id="c")


def test_who_waits_shares_a_write_and_its_error(with_state: Callable[[Test], None]) -> None:
    async def check(state: State) -> None:
        table = state.table
        await asyncio.gather(*(table.write([(f"k/{number}", b"")]) for number in range(20)))
        await table.write([("k/0", None), ("k/none", None)])
        assert len(table.read("k/*")) == 19
        fill_disk(table)
        writes = [table.write([(f"full/{number}", b"x" * 100_000)]) for number in range(3)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [OSError] * 3
        assert table.read("full/*") == []

    with_state(check)


def test_an_apply_that_cannot_be_written_changes_nothing(with_state: Callable[[Test], None]) -> None:
    async def check(state: State) -> None:
        _, (before,) = await state.apply(asked("web"))
        fill_disk(state.table)
        with pytest.raises(OSError):
            await state.apply(asked("web", "other", image="x" * 50_000))
        assert state.containers == {("default", "web"): before}
        assert state.containers["default", "web"] is before

    with_state(check)


def test_what_was_accepted_is_there_after_a_restart(with_state: Callable[[Test], None]) -> None:
    async def write(state: State) -> None:
        accepted, (web, other) = await state.apply(asked("web", "other"))
        assert accepted.revision == 1
        assert (web.correlation_id, web.status.node_id) == ("c", state.log.node_id)
        await state.remove([other])

    async def read(state: State) -> None:
        assert [name for _, name in state.containers] == ["web"]
        accepted, (web,) = await state.apply(asked("web"))
        assert (accepted.revision, accepted.changes[0].action) == (1, pb.CHANGE_ACTION_NONE)
        assert web is state.containers["default", "web"]
        accepted, (web,) = await state.apply(asked("web", image="busybox"))
        assert (accepted.revision, list(accepted.changes[0].fields)) == (2, ["image"])
        assert [event.sequence for event in state.log.read(0)] == list(range(1, 8))

    with_state(write)
    with_state(read)


def test_containers_are_found_by_name_id_and_statefile(with_state: Callable[[Test], None]) -> None:
    async def check(state: State) -> None:
        _, (web,) = await state.apply(asked("web"))
        await state.apply(asked("other", origin="/b.yml"))
        assert find(state, "", web.id[:6]) is find(state, "default", "web") is web
        request = pb.RemoveRequest(names=[web.id], origin="/b.yml")
        resolve(state, request)
        assert list(request.names) == ["web", "other"]
        for nothing in (pb.RemoveRequest(names=["nothing"]), pb.RemoveRequest(origin="/c.yml")):
            with pytest.raises(TinyoError) as caught:
                resolve(state, nothing)
            assert caught.value.reason == "CONTAINER_NOT_FOUND"

    with_state(check)


def test_events_that_are_gone_are_said_to_be(with_state: Callable[[Test], None]) -> None:
    async def check(state: State) -> None:
        state.log.kept = 3
        await state.apply(asked("web", "other"))
        await state.apply(asked("more"))
        assert [event.sequence for event in state.log.read(0)] == [4, 5, 6]
        assert [event.sequence for event in state.log.read(3)] == [4, 5, 6]
        assert state.log.read(6) == []
        for after in (2, 7):
            with pytest.raises(TinyoError) as caught:
                state.log.read(after)
            assert caught.value.metadata == {"oldest": "4"}

    with_state(check)


def test_a_status_that_cannot_be_written_is_told_again(with_state: Callable[[Test], None]) -> None:
    async def check(state: State) -> None:
        _, (web,) = await state.apply(asked("web"))
        pages = fill_disk(state.table)
        web.status.phase = v1.PHASE_RUNNING
        with pytest.raises(OSError):
            await state.write([web], ev.Event(reason=ev.EVENT_REASON_RUNNING, message="x" * 100_000))
        assert web.status.phase == v1.PHASE_PENDING, "else nobody would see that it is to be told"
        state.table.writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
        web.status.phase = v1.PHASE_RUNNING
        await state.write([web], ev.Event(reason=ev.EVENT_REASON_RUNNING))
        told = state.log.read(0)
        assert told[-1].reason == ev.EVENT_REASON_RUNNING
        assert state.log.read(told[-2].sequence) == [told[-1]], "the number that was lost is not missed"

    with_state(check)


def test_every_address_is_every_address(with_state: Callable[[Test], None]) -> None:
    def publish(name: str, host_ip: str) -> pb.ApplyRequest:
        request = asked(name)
        request.containers[0].ports.add(host_port=80, container_port=80, host_ip=host_ip)
        return request

    async def check(state: State) -> None:
        await state.apply(publish("one", "0.0.0.0"))
        accepted, _ = await state.apply(publish("one", ""))
        assert accepted.changes[0].action == pb.CHANGE_ACTION_NONE
        with pytest.raises(TinyoError, match="container 'one'"):
            await state.apply(publish("two", "127.0.0.1"))

    with_state(check)


@pytest.mark.parametrize("name", [field.name for field in v1.ContainerSpec.DESCRIPTOR.fields])
def test_every_field_of_a_spec_can_be_changed(with_state: Callable[[Test], None], name: str) -> None:
    async def check(state: State) -> None:
        state.containers["default", "web"] = v1.Container(
            cluster="default", spec=v1.ContainerSpec(name="web")
        )
        new = v1.Container(cluster="default", spec=v1.ContainerSpec(name="web"))
        touch(new.spec, name)
        change = pb.Change()
        kept = replacing.kept(state, new, change)
        assert (kept, [*change.fields]) == ((None, [name]) if name != "name" else (None, []))

    with_state(check)


def touch(message: Message, name: str) -> None:
    """Sets a field, or one in it."""
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    text = field.type == field.TYPE_STRING
    if field.message_type and field.message_type.GetOptions().map_entry:
        of_messages = field.message_type.fields_by_name["value"].message_type
        touch(value.get_or_create("a"), "hard") if of_messages else value.update({"a": "b"})
    elif field.is_repeated and field.message_type:
        touch(value.add(), field.message_type.fields[0].name)
    elif field.is_repeated:
        value.append("a" if text else 1)
    elif field.message_type:
        touch(value, field.message_type.fields[0].name)
    else:
        setattr(message, name, "a" if text else 1)
