"""What a pull tells of its layers, with a registry that stops in the middle until it may go on."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tinyo.runtime.v1.runtime_pb2 import PullImageRequest
from tinyo.v1 import image_pb2 as v1
from tinyo_runtime.images import ImageStore, sharing
from tinyo_runtime.pulls import Reports as Reporting

from tests.support.images import Built, file, image, layer, push
from tests.support.slow import Slow, slow
from tests.support.stores import in_store

MIB = 1 << 20
HELD = 3 * MIB


@pytest.fixture
def slowly(host: str) -> Iterator[Slow]:
    """It gives only so many bytes of each blob, until it may go on."""
    with slow(host) as state:
        state.held = HELD
        yield state


class Reports:
    """What somebody is told of a pull."""

    def __init__(self) -> None:
        self.all: list[v1.PullProgress] = []
        self._more = asyncio.Event()

    def take(self, report: v1.PullProgress) -> None:
        self.all.append(report)
        self._more.set()

    async def until(self, is_so: Callable[[list[v1.LayerProgress]], bool]) -> list[v1.LayerProgress]:
        """Waits for a report of which this is so."""
        async with asyncio.timeout(30):
            while not (self.all and is_so(list(self.all[-1].layers))):
                self._more.clear()
                await self._more.wait()
        return list(self.all[-1].layers)


def large(number: int = 1) -> Built:
    """Layers of 5 MiB that no compression makes smaller."""
    return image([layer(file(f"{at}", os.urandom(5 * MIB))) for at in range(number)])


def states(layers: list[v1.LayerProgress]) -> list[str]:
    return [v1.LayerState.Name(one.state).removeprefix("LAYER_STATE_") for one in layers]


def test_each_layer_says_what_happens_to_it(slowly: Slow, host: str, tmp_path: Path) -> None:
    """In the order of the manifest; so many at a time; how much has come, and how much is written."""
    count = sharing.PARALLEL + 2
    push(large(count), f"{host}/states:1")
    reports = Reports()

    async def use(store: ImageStore) -> None:
        pull = asyncio.create_task(store.pull(f"{slowly.address}/states:1", progress=reports.take))
        layers = await reports.until(
            lambda layers: (
                sum(one.received_bytes == HELD and one.unpacked_bytes > 0 for one in layers)
                == sharing.PARALLEL
            )
        )
        assert sorted(states(layers)) == ["DOWNLOADING"] * sharing.PARALLEL + ["WAITING"] * 2
        assert all(0 < one.unpacked_bytes <= HELD for one in layers if one.received_bytes)
        assert not any(one.HasField("unpacked_bytes") for one in layers if not one.received_bytes)
        slowly.go_on()
        await pull

    in_store(tmp_path, use)
    first, last = list(reports.all[0].layers), list(reports.all[-1].layers)
    assert [one.digest for one in first] == [one.digest for one in last]
    assert {one.received_bytes for one in first} == {0}  # told before anything came
    assert states(last) == ["DONE"] * count and all(one.complete for one in last)
    assert all(one.received_bytes == one.total_bytes > 5 * MIB for one in last)
    assert not any(one.shared or one.resumed_bytes or one.HasField("unpacked_bytes") for one in last)
    before = [one.received_bytes for report in reports.all for one in report.layers[:1]]
    assert before == sorted(before)


def test_what_was_here_is_told(slowly: Slow, host: str, tmp_path: Path) -> None:
    """Layers in their place; and bytes of others, from which they are unpacked again."""
    slowly.go_on()
    reference = f"{slowly.address}/here:1"
    push(large(2), f"{host}/here:1")

    async def use(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        reports = Reports()
        await store.pull(reference, refresh=True, progress=reports.take)
        assert [states(list(report.layers)) for report in reports.all] == [["EXISTS"] * 2] * len(reports.all)
        shutil.rmtree(tmp_path / "layers" / pulled.layers[0])
        again = Reports()
        await store.pull(reference, refresh=True, progress=again.take)
        exists, unpacked = again.all[-1].layers
        assert states([exists, unpacked]) == ["EXISTS", "DONE"]
        assert unpacked.resumed_bytes == unpacked.received_bytes == unpacked.total_bytes
        assert (exists.received_bytes, exists.resumed_bytes) == (0, 0)
        assert {count for path, count in slowly.asked.items() if "/blobs/" in path} == {1}

    in_store(tmp_path, use)


def test_a_layer_of_two_pulls_is_fetched_once_and_both_are_told(
    slowly: Slow, host: str, tmp_path: Path
) -> None:
    """Who comes later is told at once how far it is, although nothing moves."""
    contents = layer(file("large", os.urandom(5 * MIB)))
    push(image([contents]), f"{host}/one:1")
    push(image([contents], {"User": "1"}), f"{host}/other:1")
    first, second, third = Reports(), Reports(), Reports()

    async def use(store: ImageStore) -> None:
        pulls = [asyncio.create_task(store.pull(f"{slowly.address}/one:1", progress=first.take))]
        await first.until(lambda layers: bool(layers) and layers[0].received_bytes == HELD)
        pulls.append(asyncio.create_task(store.pull(f"{slowly.address}/one:1", progress=second.take)))
        (same,) = await second.until(bool)
        assert (same.received_bytes, same.shared) == (HELD, False)  # it is the same pull
        pulls.append(asyncio.create_task(store.pull(f"{slowly.address}/other:1", progress=third.take)))
        (shared,) = await third.until(lambda layers: bool(layers) and layers[0].received_bytes > 0)
        assert (shared.received_bytes, shared.shared, states([shared])) == (HELD, True, ["DOWNLOADING"])
        slowly.go_on()
        await asyncio.gather(*pulls)

    in_store(tmp_path, use)
    for reports in (first, second, third):
        assert states(list(reports.all[-1].layers)) == ["DONE"]
    digest = first.all[-1].layers[0].digest
    assert sum(count for path, count in slowly.asked.items() if path.endswith(digest)) == 1


def test_a_registry_that_does_not_say_which_layers_there_are(host: str, tmp_path: Path) -> None:
    """A pull is told of before its layers are known, if that takes a moment."""
    push(image([layer(file("x", b"x"))]), f"{host}/unknown:1")
    reports = Reports()

    async def use(store: ImageStore) -> None:
        with slow(host) as state:
            state.manifests = True
            state.held = 0
            pull = asyncio.create_task(store.pull(f"{state.address}/unknown:1", progress=reports.take))
            await reports.until(lambda layers: not layers)
            assert reports.all[0].reference == f"{state.address}/unknown:1"
            state.go_on()
            await pull

    in_store(tmp_path, use)
    assert states(list(reports.all[-1].layers)) == ["DONE"]


def test_who_reads_slowly_is_told_what_is_newest() -> None:
    """So that nothing piles up in the service."""

    async def run() -> list[str]:
        reports = Reporting(PullImageRequest())
        pull: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        told = reports.until(pull)
        reports.wanted["progress"](v1.PullProgress(reference="first"))
        heard = [(await anext(told)).reference]
        for name in ("second", "third", "last"):
            reports.wanted["progress"](v1.PullProgress(reference=name))
        pull.set_result(None)
        return heard + [report.reference async for report in told]

    assert asyncio.run(run()) == ["first", "last"]
