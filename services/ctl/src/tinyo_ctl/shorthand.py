"""What may be written in short in a Statefile, and what that stands for. ValueError with a sentence for people."""

import os
import shlex
from typing import Any

from tinyo_ctl import keys
from tinyo_ctl.keys import envfile, ports, security, storage
from tinyo_ctl.keys.kinds import Key, One
from tinyo_ctl.keys.values import truth


def spell_out(values: dict[str, Any], path: str, text: str) -> None:
    """Changes the values of the Statefile at `path`, which has this text, to what the contract has.

    A key without a value is as if it were not there; relative paths begin at the file's folder.
    """
    begin = folder(path)
    for key in [key for key, value in values.items() if not value]:
        if not (key == "entrypoint" and is_there(text, key)):
            del values[key]
    if isinstance(command := values.get("command"), str):
        values["command"] = words(command)
    if not isinstance(env := values.get("env", {}), dict):
        values["env"] = dict(map(variable, several(env)))
    for file in reversed(
        several(values.pop("env_file", []))
    ):  # the last one counts, and `env` before all of them
        values["env"] = envfile.read(folder(path), file) | values.get("env", {})
    if mounts := values.get("mounts"):
        values["mounts"] = [mount(one, begin) for one in several(mounts)]
    if port := values.get("port"):
        values["port"] = [single for one in several(port) for single in ports.singles(one)]
    security.locate(values, begin)
    keys.spell_out(values)


def folder(path: str) -> str:
    """Where relative paths of the Statefile at `path` begin."""
    return os.getcwd() if path == "-" else os.path.dirname(os.path.realpath(path))


def is_there(text: str, key: str) -> bool:
    """Whether a key has a value, if only an empty one."""
    import yaml

    document = yaml.compose(text, Loader=yaml.CSafeLoader)
    pairs = document.value if isinstance(document, yaml.MappingNode) else []
    return any(name.value == key and not value.tag.endswith(":null") for name, value in pairs)


def several(value: Any) -> list[Any]:
    """A list; something that is no list is a list of one."""
    return value if isinstance(value, list) else [value]


def words(text: str) -> list[str]:
    """A command in one text, split as a shell would split it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {str(error).lower()}") from None


def variable(text: str) -> tuple[str, str]:
    """An environment variable, "NAME=value"."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is no environment variable: write NAME=value")
    return name, value


def mount(written: str | dict[str, str], folder: str) -> dict[str, Any]:
    """A mount by its keys, or in short."""
    texts = short_mount(written) if isinstance(written, str) else written
    values = {MOUNT[key].field: MOUNT[key].kind.made(text) for key, text in texts.items()}
    if "source" in values:
        # Without following links, so that the same file always means the same spec.
        source = os.path.expanduser(values["source"])
        values["source"] = os.path.normpath(os.path.join(folder, source))
    return values


def short_mount(text: str) -> dict[str, str]:
    """A mount: "source:target" or "source:target:OPTIONS", where a name that is no path is that of a volume."""
    source, _, rest = text.partition(":")
    target, colon, options = rest.partition(":")
    if not (source and target):
        raise ValueError(f"{text!r} is no mount: write source:target or source:target:ro")
    is_name = "/" not in source and not source.startswith((".", "~"))
    values = {"volume" if is_name else "source": source, "target": target, "read_only": "false"}
    for option in options.split(",") if colon else []:
        if option in ("ro", "rw"):
            values["read_only"] = "true" if option == "ro" else "false"
        elif option == "nocopy":
            values["nocopy"] = "true"
        elif option in storage.PROPAGATIONS:
            values["propagation"] = option
        else:
            raise ValueError(
                f"{option!r} is no option of a mount: there are ro, rw, nocopy, rslave and rshared"
            )
    return values


#: What a mount can say, and the fields that this becomes.
MOUNT = {
    "source": Key("source", One(storage.target)),
    "volume": Key("volume", One(str)),
    "target": Key("target", One(storage.target)),
    "read_only": Key("read_only", One(truth)),
    "create": Key("create", One(truth)),
    "nocopy": Key("no_copy", One(truth)),
    "sub_path": Key("sub_path", One(storage.target)),
    "propagation": Key("propagation", One(storage.propagation)),
}
