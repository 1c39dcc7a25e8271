"""An image store for one piece of work, without services around it.

image = in_store(tmp_path, lambda store: store.pull(reference))
in_store(tmp_path, sound)
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from tinyo_runtime.images import ImageStore, audit, resume

T = TypeVar("T")


def in_store(
    root: Path, use: Callable[[ImageStore], Awaitable[T]], *, tidy: bool = True, **options: Any
) -> T:
    """Runs `use` with a store that is closed afterwards. No lease is left then, and nothing unfinished: unless it
    is not `tidy`, on a disk that did not let anybody delete it."""

    async def run() -> T:
        store = ImageStore(root, **options)
        try:
            return await use(store)
        finally:
            await store.close()
            assert store.wanted == []

    result = asyncio.run(run())
    assert not tidy or os.listdir(root / "pulling") == []
    return result


async def sound(store: ImageStore) -> None:
    """AssertionError if anything is wrong with what is there, or what is kept for later is not worth it."""
    findings = [finding async for finding in audit.audit(store, (), ())]
    assert [problem for finding in findings for problem in finding.problems] == []
    assert all(path.stat().st_size >= resume.LEAST for path in store.partial.iterdir())
