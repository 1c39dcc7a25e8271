"""`env_file`: variables in files beside the Statefile, in docker's format: a line each, nothing is quoted.

    # a comment
    GREETING=hello, world
    HOME                      (as in the environment of whoever runs tinyo; not there, not set)

They are read here: a node never sees the file. Errors tell file and line, and nothing of what stands there, which
may be secret.
"""

import os
from typing import TYPE_CHECKING, Any

from tinyo_ctl.keys.kinds import Key, Several

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader

#: Bytes of a file.
MOST = 1 << 20


def read(folder: str, name: str) -> dict[str, str]:
    """The variables of one file; a relative name begins at `folder`. ValueError with a sentence for people."""
    try:
        with open(os.path.join(folder, os.path.expanduser(name)), "rb") as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if len(content) > MOST:
        raise ValueError(f"{name}: the file is larger than 1 MiB")
    found: dict[str, str] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            found |= variable(line.removesuffix(b"\r").decode().lstrip())
        except UnicodeDecodeError:
            raise ValueError(f"{name}:{number}: this is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from None
    return found


def variable(line: str) -> dict[str, str]:
    """What one line says; nothing for a comment. ValueError."""
    if not line or line.startswith("#"):
        return {}
    name, equals, value = line.partition("=")
    if not name:
        raise ValueError("a name is missing before '='")
    if not equals:
        name = name.rstrip()
    if any(map(str.isspace, name)):
        raise ValueError("a name has no spaces in it: write NAME=value")
    if "\0" in line:
        raise ValueError("there is a NUL in it")
    if equals:
        return {name: value}
    return {name: os.environ[name]} if name in os.environ else {}


class File:
    """A path, relative to the Statefile."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        reader.value(node, path, lambda name: read(reader.folder, name), None)

    def made(self, written: Any) -> Any:
        return written


KEYS = {"env_file": Key("env_file", Several(File()))}
