"""The services without what stands beside their core: proof that the core is all that the example needs.

with Instance(PYTHONPATH=str(copy(tmp_path))) as instance:      # its processes import the copy
"""

import shutil
from pathlib import Path

from scripts.budget import core, modules

#: A module that does nothing: every name in it can be called, awaited, entered, iterated, derived from,
#: raised and caught, and is false.
NOTHING = """
class Meta(type):
    def __call__(cls, *args, **kwargs):
        return cls if cls is Nothing else super().__call__(*args, **kwargs)
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing
    def __bool__(cls):
        return cls is not Nothing
    def __iter__(cls):
        return iter(())
    def __await__(cls):
        return cls
        yield
    def __aiter__(cls):
        return cls
    async def __anext__(cls):
        raise StopAsyncIteration
    def __enter__(cls):
        return cls
    def __exit__(cls, *what):
        return None
    async def __aenter__(cls):
        return cls
    async def __aexit__(cls, *what):
        return None


class Nothing(Exception, metaclass=Meta):
    def __getattr__(self, name):
        return Nothing


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Nothing
"""


def copy(folder: Path) -> Path:
    """Copies the services into a folder; modules beside the core, and programs of theirs, do nothing there."""
    kept = core()
    for name, path in modules().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in kept or path.name == "__init__.py":
            shutil.copy(path, target)
        else:
            target.write_text(NOTHING)
    return folder
