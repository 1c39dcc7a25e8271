"""How much is tried: in the tests little, and always the same; in `make fuzz` as much as time allows."""

import os

from hypothesis import HealthCheck, settings

#: Seconds for each target of `make fuzz`; 0 in the tests.
SECONDS = float(os.environ.get("FUZZ_SECONDS") or 0)


def effort(examples: int) -> settings:
    """So many examples in the tests; any number of other ones in `make fuzz`, which ends by itself."""
    return settings(
        max_examples=1_000_000 if SECONDS else examples,
        derandomize=not SECONDS,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
