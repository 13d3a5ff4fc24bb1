"""What the producer tells at /metrics. Labels are bounded: sources, configured places, kinds of error."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from meteo_common.errors import MeteoError, RefusedError, UnreachableError, UsageError
from meteo_producer.source import KeyRefusedError, RateLimitedError

PRODUCED = Counter("meteo_messages_produced", "Messages that Kafka acknowledged", ["source", "station"])
NOT_DELIVERED = Counter("meteo_messages_not_delivered", "Deliveries that failed; each is tried again", ["source"])
DROPPED = Counter("meteo_messages_dropped", "Messages given up because too many waited for Kafka", ["source"])
FAILURES = Counter("meteo_poll_failures", "Polls that brought no message, by kind of reason", ["source", "reason"])
POLL_SECONDS = Histogram(
    "meteo_poll_seconds",
    "From asking a source to its message",
    ["source"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LAST_SUCCESS = Gauge("meteo_source_last_success_timestamp_seconds", "When a source last answered", ["source"])

# The first that fits names the kind.
_KINDS: tuple[tuple[type[MeteoError], str], ...] = (
    (KeyRefusedError, "key"),
    (RateLimitedError, "rate_limited"),
    (UnreachableError, "unreachable"),
    (RefusedError, "refused"),
    (UsageError, "usage"),
)


def kind_of(error: MeteoError) -> str:
    """Return the error's kind: key, rate_limited, unreachable, refused, usage or other."""
    return next((kind for type_, kind in _KINDS if isinstance(error, type_)), "other")
