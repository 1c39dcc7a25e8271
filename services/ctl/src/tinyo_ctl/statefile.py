"""Statefiles: what people write, and what the node is asked for it.

    request = load("examples/basic/alpine-1.yml")
    request.containers[0].image            # "alpine:latest"

Values are taken as they are written: YAML's opinions (`22:22` is 1342, `no` is false) do not apply to them.
`mistakes` knows what can be wrong with a file, and where; all that is not about writing is the node's to check,
for every client alike.
"""

import os

import yaml
from tinyo.node.v1.node_pb2 import ApplyRequest
from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_ctl import mistakes, notation, shorthand
from tinyo_ctl.client import correlation_id


def load(path: str) -> ApplyRequest:
    """Reads a Statefile, "-" from standard input. StatefileError when anything is wrong with it."""
    with mistakes.explained(path), open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        content = file.read(notation.SIZE_LIMIT + 1)
    mistakes.find(path, content)
    text = content.decode("utf-8-sig")
    values = yaml.load(text, Loader=yaml.CBaseLoader)
    shorthand.spell_out(values, path, text)
    ports = values.pop("port", [])
    spec = ContainerSpec(
        name=values.pop("name", "") or notation.name(os.path.basename(path)),
        image=values.pop("container", ""),
        ports=map(notation.port, [ports] if isinstance(ports, str) else ports),
        **values,  # the other keys are named as in the contract
    )
    origin = "-" if path == "-" else os.path.realpath(path)
    return ApplyRequest(containers=[spec], origin=origin, statefile=text, correlation_id=correlation_id())
