"""How much is tried: in the tests little, and always the same; in `make fuzz` as much as there is time for."""

import os

from hypothesis import HealthCheck, Phase, settings

#: Of `make fuzz`; 0 in the tests.
SECONDS = float(os.environ.get("FUZZ_SECONDS") or 0)


def effort(examples: int, rate: float) -> settings:
    """So many examples in the tests; in `make fuzz` others, at a rate of so many a second."""
    return settings(
        max_examples=round(SECONDS * rate) or examples,
        derandomize=not SECONDS,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if SECONDS else [Phase.generate],  # shrinking takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
