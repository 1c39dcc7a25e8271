"""Keys of /etc/INSTANCE/runtime.toml that the first example does without; each subject has its own."""

from dataclasses import dataclass

from tinyo_runtime.images.marks import Marks
from tinyo_runtime.options.ranges import Ids


@dataclass(frozen=True, kw_only=True)
class Parts(Marks, Ids):
    """What Settings has besides."""
