"""Trying again within one command: three times at most, and only what may pass within seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from meteo_common.errors import TransientError
from meteo_producer.measures import RETRIES
from meteo_producer.source import BudgetSpentError

T = TypeVar("T")

ATTEMPTS = 3
CEILING = 10.0
"""Seconds between two attempts, at most: who types a command does not wait longer."""


def retried(source: str, work: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """Return what `work` returns, trying it again after a TransientError: after 1 to 2 s, then 2 to 3 s.

    A provider that wants a longer pause than 10 s, and a budget that is spent, end it at once: both raise what they
    raised, as the last attempt does.
    """
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=_pause,
        retry=tenacity.retry_if_exception(_may_pass),
        before_sleep=lambda _: RETRIES.labels(source).inc(),
        reraise=True,
    )
    return retrying(work)


_growing = tenacity.wait_exponential_jitter(initial=1, max=CEILING, jitter=1)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, TransientError) else None
    return max(_growing(state), asked or 0.0)


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, TransientError) or isinstance(error, BudgetSpentError):
        return False
    return error.retry_after is None or error.retry_after <= CEILING
