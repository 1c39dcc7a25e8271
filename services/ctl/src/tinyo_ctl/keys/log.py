"""The key `log`: how much of what a container writes is kept."""

from tinyo_ctl.keys.kinds import Key, One, Table
from tinyo_ctl.keys.values import number, size

KEYS = {
    "log": Key(
        "log",
        Table({"max_size": Key("max_size_bytes", One(size)), "max_files": Key("max_files", One(number))}),
    )
}
