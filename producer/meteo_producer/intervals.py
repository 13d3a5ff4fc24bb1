"""How often a source may be asked: as often as is set, or as its budget lasts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import structlog

from meteo_common.allowances import Allowance
from meteo_common.durations import format_duration
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts
from meteo_producer.measures import INTERVAL
from meteo_producer.source import Feed, Source

log = structlog.get_logger()

USABLE = 0.9
"""Of a budget: the rest is for retries, look-ups of places and commands typed by hand."""


def interval_of(source: Source, settings: Settings, accounts: Accounts, feeds: Collection[Feed]) -> int:
    """Return the seconds between two rounds over the places: PRODUCE_EVERY, or more when the budget would not last."""
    wanted = settings.produce_every
    account = accounts.of(source.name)
    if account is None:
        INTERVAL.labels(source.name).set(wanted)
        return wanted
    places = len(settings.places)
    often = places * source.poll_cost(["current"])
    seldom = places * source.poll_cost(feeds) - often
    needed = shortest_interval(often, seldom, settings.forecast_every, account.allowances)
    interval = max(wanted, math.ceil(needed))
    INTERVAL.labels(source.name).set(interval)
    if interval > wanted:
        log.warning(
            "interval stretched",
            source=source.name,
            wanted=format_duration(wanted),
            interval=format_duration(interval),
            because=f"{places} places would use up more than 90 % of {account.budget_setting};"
            " raise it if the plan allows more, or ask about fewer places",
        )
    return interval


def shortest_interval(often: float, seldom: float, forecast_every: float, allowances: Sequence[Allowance]) -> float:
    """Return the least seconds between rounds with which at most 90 % of every allowance is used.

    `often`: what the current weather of all places costs, each round; `seldom`: what forecast and air quality cost,
    every `forecast_every` seconds or each round, whichever comes less often.
    """
    return max((_interval(often, seldom, forecast_every, allowance) for allowance in allowances), default=0.0)


def _interval(often: float, seldom: float, forecast_every: float, allowance: Allowance) -> float:
    usable = USABLE * allowance.amount / allowance.seconds
    left = usable - seldom / forecast_every
    if left > 0 and often / left <= forecast_every:
        return often / left
    return (often + seldom) / usable
