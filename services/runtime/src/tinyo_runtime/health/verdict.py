"""What the results of checks make of a container, and which of that is told."""

from tinyo.v1 import health_pb2 as v1

#: Milliseconds, and failures in a row, where nothing is said.
INTERVAL = TIMEOUT = 30_000
START_INTERVAL = 5_000
RETRIES = 3
#: Results that are kept.
KEPT = 3
#: Characters of a text whose UTF-8 has at most four bytes for each are kept up to this many bytes.
OUTPUT = 4096
#: Seconds between two times that a number of failures is told, and nothing else.
PATIENCE = 10.0


def complete(check: v1.Health) -> v1.Health:
    """With all that was not said."""
    check.interval_ms = check.interval_ms or INTERVAL
    check.timeout_ms = check.timeout_ms or TIMEOUT
    check.retries = check.retries or RETRIES
    check.start_interval_ms = check.start_interval_ms or min(START_INTERVAL, check.interval_ms)
    return check


def judge(status: v1.HealthStatus, result: v1.HealthResult, check: v1.Health, age: float) -> None:
    """Changes a status by one more result, of a process that is as old as this, in seconds."""
    status.results.append(result)
    del status.results[:-KEPT]
    if result.passed:
        status.state, status.failures, status.was_healthy = v1.HEALTH_STATE_HEALTHY, 0, True
    elif status.was_healthy or age * 1000 >= check.start_period_ms:
        status.failures += 1
        if status.failures >= check.retries:
            status.state = v1.HEALTH_STATE_UNHEALTHY


def pause(status: v1.HealthStatus, check: v1.Health, age: float) -> float:
    """Seconds to wait before the next check."""
    beginning = status.state == v1.HEALTH_STATE_STARTING and age * 1000 < check.start_period_ms
    return (check.start_interval_ms if beginning else check.interval_ms) / 1000


class Told:
    """What others know of a status."""

    def __init__(self, status: v1.HealthStatus, now: float) -> None:
        self.remember(status, now)

    def remember(self, status: v1.HealthStatus, now: float) -> None:
        """They are told now, in seconds of a clock that nobody sets."""
        self.state, self.failures, self.when = status.state, status.failures, now

    def is_news(self, status: v1.HealthStatus, now: float) -> bool:
        """Whether they are to be told: of a state at once, of a number of failures from time to time."""
        return status.state != self.state or (
            status.failures != self.failures and now - self.when >= PATIENCE
        )


def text(data: bytes) -> str:
    """What a container said, as far as it is kept: text whose UTF-8 has at most as many bytes as are kept."""
    return data.decode(errors="replace").encode()[:OUTPUT].decode(errors="ignore").strip()
