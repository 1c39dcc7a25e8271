"""What is told of containers and of the node, in the text format of OpenMetrics 1.0
(https://prometheus.io/docs/specs/om/open_metrics_spec/), with the names that cAdvisor has for it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tinyo.v1.container_pb2 import Phase
from tinyo.v1.stats_pb2 import ContainerStats

if TYPE_CHECKING:
    from tinyo_node.cluster import State

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: Characters of a label's value: an image may have a name of any length.
LONGEST = 256


class Family(NamedTuple):
    """A metric: its name, without "_total" for a counter; and its value, None for nothing to tell."""

    name: str
    kind: str
    help: str
    value: Callable[[ContainerStats], float | None]


def _field(name: str, scale: float = 1) -> Callable[[ContainerStats], float | None]:
    """A field, if the kernel told it."""
    optional = ContainerStats.DESCRIPTOR.fields_by_name[name].has_presence

    def value(stats: ContainerStats) -> float | None:
        if optional and not stats.HasField(name):  # type: ignore[arg-type]
            return None
        number: float = getattr(stats, name)
        return number / scale if scale != 1 else number

    return value


def _network(direction: str, name: str) -> Callable[[ContainerStats], float | None]:
    return lambda stats: getattr(getattr(stats, direction), name) if stats.HasField("received") else None


def _pressure(kind: str, which: str) -> Callable[[ContainerStats], float | None]:
    return lambda stats: getattr(stats.pressure[kind], which) / 1e6 if kind in stats.pressure else None


CPU, MEMORY, FS, NET = "container_cpu", "container_memory", "container_fs", "container_network"
FAMILIES = (
    Family(f"{CPU}_usage_seconds", "counter", "Processor time", _field("cpu_usage_ns", 1e9)),
    Family(f"{CPU}_user_seconds", "counter", "Processor time in programs", _field("cpu_user_ns", 1e9)),
    Family(f"{CPU}_system_seconds", "counter", "Processor time in the kernel", _field("cpu_system_ns", 1e9)),
    Family(f"{CPU}_cfs_periods", "counter", "Periods in which it ran with a limit", _field("cpu_periods")),
    Family(
        f"{CPU}_cfs_throttled_periods",
        "counter",
        "Periods in which the limit was used up",
        _field("cpu_throttled_periods"),
    ),
    Family(
        f"{CPU}_cfs_throttled_seconds",
        "counter",
        "Time in which it waited for the next period",
        _field("cpu_throttled_ns", 1e9),
    ),
    Family(f"{MEMORY}_usage_bytes", "gauge", "Memory, with cached files", _field("memory_usage_bytes")),
    Family(
        f"{MEMORY}_working_set_bytes",
        "gauge",
        "Memory without inactive files",
        _field("memory_working_set_bytes"),
    ),
    Family("container_spec_memory_limit_bytes", "gauge", "Limit of memory", _field("memory_limit_bytes")),
    Family(f"{MEMORY}_swap", "gauge", "Bytes of swap", _field("swap_usage_bytes")),
    Family("container_oom_events", "counter", "Processes killed for want of memory", _field("oom_kills")),
    Family(f"{FS}_reads_bytes", "counter", "Read from disks", _field("io_read_bytes")),
    Family(f"{FS}_writes_bytes", "counter", "Written to disks", _field("io_write_bytes")),
    Family(f"{FS}_reads", "counter", "Reads from disks", _field("io_read_ops")),
    Family(f"{FS}_writes", "counter", "Writes to disks", _field("io_write_ops")),
    *(
        Family(
            f"{NET}_{way}_{name}", "counter", f"{name} that were {past}".capitalize(), _network(past, field)
        )
        for way, past in (("receive", "received"), ("transmit", "sent"))
        for name, field in (
            ("bytes", "bytes"),
            ("packets", "packets"),
            ("errors", "errors"),
            ("packets_dropped", "drops"),
        )
    ),
    Family("container_threads", "gauge", "Processes and threads", _field("pids")),
    Family("container_threads_max", "gauge", "Limit of processes and threads", _field("pids_limit")),
    *(
        Family(f"container_pressure_{kind}_{name}_seconds", "counter", help, _pressure(kind, which))
        for kind in ("cpu", "memory", "io")
        for name, which, help in (
            ("waiting", "some_total_us", f"Time in which some process waited for {kind}"),
            ("stalled", "full_total_us", f"Time in which all processes waited for {kind}"),
        )
    ),
)


def text(state: "State", stats: Iterable[ContainerStats] | None) -> str:
    """Everything; None instead of `stats` when the runtime cannot be reached."""
    return "\n".join([*_lines(state, stats), "# EOF", ""])


def _lines(state: "State", stats: Iterable[ContainerStats] | None) -> Iterator[str]:
    yield from _head("tinyo_node", "info", "The node")
    yield _line("tinyo_node_info", {"node_id": state.log.node_id}, 1)
    yield from _head("tinyo_runtime_up", "gauge", "Whether the node reaches its runtime")
    yield _line("tinyo_runtime_up", {}, stats is not None)
    yield from _head("tinyo_events", "counter", "Events that happened: the sequence of the last one")
    yield _line("tinyo_events_total", {}, state.log.newest)
    yield from _head(
        "tinyo_applies", "counter", "Applies that changed something: the revision of the cluster"
    )
    for cluster, revision in sorted(state.log.revisions.items()):
        yield _line("tinyo_applies_total", {"cluster": cluster}, revision)
    yield from _head("tinyo_containers", "gauge", "Containers by phase")
    phases = Counter((one.cluster, one.status.phase) for one in state.containers.values())
    for (cluster, phase), count in sorted(phases.items()):
        name = Phase.Name(phase).removeprefix("PHASE_").lower()
        yield _line("tinyo_containers", {"cluster": cluster, "phase": name}, count)
    everything = [(one, _labels(labels(one))) for one in stats or ()]
    for family in FAMILIES:
        yield from _head(family.name, family.kind, family.help)
        sample = f"{family.name}_total" if family.kind == "counter" else family.name
        for one, written in everything:
            if (value := family.value(one)) is not None:
                yield f"{sample}{written} {value}"


def labels(stats: ContainerStats) -> Mapping[str, str]:
    """Of a container."""
    return {"cluster": stats.cluster, "name": stats.name, "id": stats.id, "image": stats.image}


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    for unit in ("seconds", "bytes"):
        if name.endswith(f"_{unit}"):
            yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {help}."


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    return f"{name}{_labels(labels)} {int(value)}"


def _labels(labels: Mapping[str, str]) -> str:
    """Values are whatever somebody wrote: escaped as the format wants it, without what a terminal would obey."""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    harmless = "".join(c if c.isprintable() else "�" for c in value[:LONGEST])
    return harmless.replace("\\", "\\\\").replace('"', '\\"')
