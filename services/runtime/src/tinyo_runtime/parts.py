"""Keys of /etc/INSTANCE/runtime.toml that the first example does without; each subject has its own."""

from dataclasses import dataclass

from tinyo_runtime.images.marks import Marks
from tinyo_runtime.options.ranges import Ids


@dataclass(frozen=True, kw_only=True)
class Parts(Marks, Ids):
    """What Settings has besides."""

    #: IPv6 addresses of containers: a network of /96 or larger, "auto" for one of the instance's own in fd00::/8, or
    #: "none": no IPv6.
    pool6: str = "auto"
