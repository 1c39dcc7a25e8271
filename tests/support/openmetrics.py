"""Metrics as prometheus_client reads them: a judge that others wrote."""

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def families(text: str) -> dict[str, Metric]:
    """By name, without "_total"; ValueError when it is not OpenMetrics."""
    return {one.name: one for one in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
