"""Allowances: how much a provider lets one key ask within a time, as settings write it: 600/1m;10000/1d."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meteo_common.durations import parse_duration

_ENTRY = re.compile(r"(?P<amount>\d+)\s*/\s*(?P<window>\d+[smhd])")


@dataclass(frozen=True)
class Allowance:
    """At most `amount` of the provider's unit (calls, or what they weigh) within any `seconds`."""

    amount: int
    seconds: int


@dataclass(frozen=True)
class Budget:
    """What a setting NAME_BUDGET is about: the provider, as people call it, and the unit that it counts in.

    The provider's account is NAME in small letters; its key, where it needs one, is NAME_API_KEY.
    """

    provider: str
    unit: str


def parse_allowances(text: str) -> tuple[Allowance, ...]:
    """Return the allowances of `AMOUNT/DURATION` entries separated by `;`; `none` is no limit.

    Raises ValueError naming the entry that is not of this form.
    """
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    return () if entries == ["none"] else tuple(_parse_allowance(entry) for entry in entries)


def _parse_allowance(entry: str) -> Allowance:
    match = _ENTRY.fullmatch(entry)
    if match is None or int(match["amount"]) == 0:
        raise ValueError(f"'{entry}' is not of the form AMOUNT/DURATION, such as 600/1m")
    return Allowance(int(match["amount"]), parse_duration(match["window"]))
