"""What the producer tells at /metrics. Labels are bounded: sources, configured places, kinds of error."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge, Histogram

from meteo_common.errors import MeteoError, RefusedError, UnreachableError, UsageError
from meteo_producer.accounts import Account, Accounts
from meteo_producer.outbox import Outbox
from meteo_producer.source import BudgetSpentError, KeyRefusedError, RateLimitedError

PRODUCED = Counter("meteo_messages_produced", "Messages that Kafka acknowledged", ["source", "station"])
NOT_DELIVERED = Counter("meteo_messages_not_delivered", "Deliveries that failed; each is tried again", ["source"])
OUTBOX = Gauge("meteo_outbox_messages", "Messages and refused answers on the disk that still have to be delivered")
FAILURES = Counter("meteo_poll_failures", "Polls that brought no message, by kind of reason", ["source", "reason"])
RETRIES = Counter("meteo_retries", "Polls repeated before their next time, after a failure that may pass", ["source"])
POLL_SECONDS = Histogram(
    "meteo_poll_seconds",
    "From asking a source to its message",
    ["source"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LAST_SUCCESS = Gauge("meteo_source_last_success_timestamp_seconds", "When a source last answered", ["source"])
INTERVAL = Gauge(
    "meteo_poll_interval_seconds", "Between two rounds: PRODUCE_EVERY, or more when a budget is short", ["source"]
)
FIRST = Gauge("meteo_source_first", "1 for the source that is asked first, 0 for what FALLBACK names", ["source"])
BUDGET_USED = Gauge(
    "meteo_budget_used", "Taken from a provider's allowance within its last `window` seconds", ["account", "window"]
)
BUDGET_LIMIT = Gauge("meteo_budget_limit", "A provider's allowance for `window` seconds", ["account", "window"])
PAUSED = Gauge("meteo_account_paused_seconds", "For how long a provider still wants not to be asked", ["account"])
KEY_REFUSED = Gauge("meteo_key_refused", "1 while a provider refuses the key for something", ["account"])

# The first that fits names the kind.
_KINDS: tuple[tuple[type[MeteoError], str], ...] = (
    (KeyRefusedError, "key"),
    (RateLimitedError, "rate_limited"),
    (BudgetSpentError, "budget"),
    (UnreachableError, "unreachable"),
    (RefusedError, "refused"),
    (UsageError, "usage"),
)


def kind_of(error: MeteoError) -> str:
    """Return the error's kind: key, rate_limited, budget, unreachable, refused, usage or other."""
    return next((kind for type_, kind in _KINDS if isinstance(error, type_)), "other")


def watch_account(accounts: Accounts, account: Account) -> None:
    """Have an account's figures read whenever they are asked for: a window slides on while nothing is asked."""
    name = account.name
    PAUSED.labels(name).set_function(lambda: accounts.report(name).paused_for)
    KEY_REFUSED.labels(name).set_function(lambda: bool(accounts.report(name).refusals))
    for number, allowance in enumerate(account.allowances):
        BUDGET_LIMIT.labels(name, str(allowance.seconds)).set(allowance.amount)
        BUDGET_USED.labels(name, str(allowance.seconds)).set_function(partial(_used, accounts, name, number))


def watch_outbox(outbox: Outbox) -> None:
    """Have the outbox counted whenever its size is asked for."""
    OUTBOX.set_function(lambda: len(outbox))


def _used(accounts: Accounts, name: str, number: int) -> float:
    return accounts.report(name).windows[number].used
