"""An image store for one piece of work, without services around it.

image = in_store(tmp_path, lambda store: store.pull(reference))
in_store(tmp_path, sound)
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from tinyo_runtime.images import ImageStore, audit, resume

T = TypeVar("T")


def in_store(root: Path, use: Callable[[ImageStore], Awaitable[T]], **options: Any) -> T:
    """Runs `use` with a store that is closed afterwards."""

    async def run() -> T:
        store = ImageStore(root, **options)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def sound(store: ImageStore) -> None:
    """AssertionError if anything is wrong with what is there, or what is kept for later is not worth it."""
    findings = [finding async for finding in audit.audit(store, (), ())]
    assert [problem for finding in findings for problem in finding.problems] == []
    assert all(path.stat().st_size >= resume.LEAST for path in store.partial.iterdir())
