"""Who a process in a container is: names are looked up in the container's own files, which are hostile."""

import os
import stat
from collections.abc import Sequence

MAX_BYTES = 1 << 20


def lookup(user: str, further: Sequence[str] = ()) -> tuple[int, list[int], str]:
    """For "user", "uid", "user:group", "uid:gid" or "" (root): the user's number, the groups' numbers with the
    primary one first, and the home folder; `further` are more groups, names or numbers. OSError when a name is unknown."""
    name, _, group = user.partition(":")
    name = name or "0"
    uid, gid, home, login = _number(name), 0, "/", ""
    for row in _rows("/etc/passwd", name, 6):
        if (
            row[2] == str(uid) if uid >= 0 else row[0] == name
        ):  # a number is never an image's name for another
            login, uid, gid, home = row[0], _number(row[2]), _number(row[3]), row[5] or "/"
            break
    if group:
        gid = _group(group)
    if uid < 0 or gid < 0:
        raise OSError(22, "unknown user or group", user)
    extra = []
    if login and not group:
        extra = [_number(row[2]) for row in _rows("/etc/group", login, 4) if login in row[3].split(",")]
    for name in further:
        if (number := _group(name)) < 0:
            raise OSError(22, "unknown group", f"groups {name}")
        extra.append(number)
    return uid, [gid, *dict.fromkeys(number for number in extra if number >= 0)], home


def _group(name: str) -> int:
    """The number of a group; -1 when there is none of that name."""
    number = _number(name)
    if number >= 0:
        return number
    return next((_number(row[2]) for row in _rows("/etc/group", name, 3) if row[0] == name), -1)


def _rows(path: str, mention: str, columns: int) -> list[list[str]]:
    """The lines of a file such as /etc/passwd that mention a name and have enough columns; none when it is no
    ordinary file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    try:
        text = os.read(fd, MAX_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    wanted = os.fsencode(mention)
    rows = [os.fsdecode(line).split(":") for line in text.split(b"\n") if wanted in line]
    return [row for row in rows if len(row) >= columns]


def _number(text: str) -> int:
    """A number that can be a user's or a group's; -1 when it is none."""
    return int(text) if text.isdecimal() and text.isascii() and int(text) < 2**32 - 1 else -1
