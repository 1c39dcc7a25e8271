"""What every Store does, whatever is behind it. A new implementation joins `STORES`, and passes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyo_node.sqlitestore import SqliteStore
from tinyo_node.store import Compacted, Conflict, Delete, Entry, Put, Store

STORES: list[Callable[[Path], Store]] = [lambda folder: SqliteStore(folder / "store.db")]


@pytest.fixture(params=STORES, ids=["sqlite"])
def with_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[Callable[[Store], Awaitable[None]]], None]:
    """Runs a coroutine with a store that is opened for it; the same data each time."""

    async def whole(test: Callable[[Store], Awaitable[None]]) -> None:
        store = request.param(tmp_path)
        try:
            await asyncio.wait_for(test(store), 30)
        finally:
            await store.close()

    return lambda test: asyncio.run(whole(test))


def test_what_is_put_is_there_also_after_a_restart(with_store: Callable[..., None]) -> None:
    async def write(store: Store) -> None:
        assert await store.get("a") is None
        assert await store.revision() == 0
        assert await store.transact([Put(key="a", value=b"1"), Put(key="b", value=b"2")]) == 2
        assert await store.transact([Put(key="a", value=b"3"), Delete(key="b")]) == 4

    async def read(store: Store) -> None:
        assert await store.get("a") == Entry("a", b"3", 3)
        assert await store.get("b") is None
        assert await store.revision() == 4

    with_store(write)
    with_store(read)


def test_list_is_by_prefix_in_order_and_in_pages(with_store: Callable[..., None]) -> None:
    async def check(store: Store) -> None:
        names = ["x/2", "x/1", "x/10", "xx", "x", "y/1", "x/ü"]
        await store.transact([Put(key=name, value=name.encode()) for name in names])
        keys = [entry.key for entry in await store.list("x/")]
        assert keys == ["x/1", "x/10", "x/2", "x/ü"]
        assert [e.key for e in await store.list("x/", after="x/10", limit=1)] == ["x/2"]
        assert await store.list("nothing") == []

    with_store(check)


def test_conditions_make_all_or_nothing(with_store: Callable[..., None]) -> None:
    async def check(store: Store) -> None:
        revision = await store.transact([Put(key="a", value=b"1", if_revision=0)])
        for wrong in (
            Put(key="a", value=b"2", if_revision=0),
            Put(key="a", value=b"2", if_revision=revision + 1),
            Delete(key="a", if_revision=revision + 1),
            Delete(key="none", if_revision=7),
        ):
            with pytest.raises(Conflict):
                await store.transact([Put(key="b", value=b"x"), wrong, Put(key="c", value=b"x")])
        assert [entry.key for entry in await store.list("")] == ["a"]
        assert await store.revision() == revision
        await store.transact([Put(key="a", value=b"2", if_revision=revision)])

    with_store(check)


def test_one_of_many_wins_a_race(with_store: Callable[..., None]) -> None:
    async def check(store: Store) -> None:
        attempts = [store.transact([Put(key="claim", value=b"%d" % n, if_revision=0)]) for n in range(20)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 19 + ["int"]

    with_store(check)


def test_watch_tells_the_past_and_the_future_of_a_prefix(with_store: Callable[..., None]) -> None:
    async def check(store: Store) -> None:
        await store.transact(
            [Put(key="a/1", value=b"1"), Put(key="b/1", value=b"1"), Put(key="a/2", value=b"2")]
        )
        changes = store.watch("a/", 1)
        assert await anext(changes) == Entry("a/2", b"2", 3)
        following = asyncio.ensure_future(anext(changes))
        await store.transact([Put(key="b/2", value=b""), Delete(key="a/1")])
        assert await following == Entry("a/1", None, 5)
        with pytest.raises(Compacted):
            await anext(store.watch("", 99))

    with_store(check)


def test_a_lease_ends_unless_it_is_renewed(with_store: Callable[..., None]) -> None:
    async def check(store: Store) -> None:
        await store.transact([Put(key="lease", value=b"1", ttl=60)])
        assert await store.get("lease")
        revision = await store.transact([Put(key="lease", value=b"2", ttl=0.05), Put(key="kept", value=b"")])
        changes = store.watch("lease", revision)
        assert (await anext(changes)).value is None
        assert await store.get("lease") is None
        assert await store.get("kept")

    with_store(check)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    transactions=st.lists(
        st.lists(
            st.one_of(
                st.builds(lambda k, v: Put(key=k, value=v), st.sampled_from("abcd"), st.binary(max_size=4)),
                st.builds(lambda k: Delete(key=k), st.sampled_from("abcd")),
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=8,
    )
)
def test_it_is_a_dictionary_with_a_history(
    tmp_path_factory: pytest.TempPathFactory, transactions: list[list[Put | Delete]]
) -> None:
    async def check() -> None:
        for make in STORES:
            store = make(tmp_path_factory.mktemp("store"))
            model: dict[str, bytes] = {}
            for ops in transactions:
                for op in ops:
                    if isinstance(op, Put):
                        model[op.key] = op.value
                    else:
                        model.pop(op.key, None)
            await asyncio.gather(*(store.transact(ops) for ops in transactions))  # queued in order
            assert {entry.key: entry.value for entry in await store.list("")} == model
            replayed: dict[str, bytes] = {}
            changes = store.watch("", 0)
            for expected in range(1, await store.revision() + 1):
                change = await anext(changes)
                assert change.revision == expected
                if change.value is None:
                    del replayed[change.key]
                else:
                    replayed[change.key] = change.value
            assert replayed == model
            await store.close()

    asyncio.run(check())


WRITER = """
import asyncio, sys
from pathlib import Path
from tinyo_node.sqlitestore import SqliteStore
from tinyo_node.store import Put
async def main():
    store = SqliteStore(Path(sys.argv[1]) / "store.db")
    for number in range(100000):
        await store.transact([Put(key=f"n/{number:06}", value=b"x" * 500), Put(key="last", value=b"%d" % number)])
        print(number, flush=True)
asyncio.run(main())
"""


def test_what_was_acknowledged_survives_sigkill(with_store: Callable[..., None], tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()

    async def check(store: Store) -> None:
        numbers = [int(entry.key.removeprefix("n/")) for entry in await store.list("n/")]
        last = await store.get("last")
        assert last and last.value
        assert numbers == list(range(int(last.value) + 1)), "a transaction is whole"
        assert int(last.value) >= acknowledged

    with_store(check)
