"""The providers' rules: what each key may ask, and for how long it must not ask.

An account is a provider with a key; where a provider asks for no key, it counts by address. All that is known of an
account is kept across restarts, and shared by every process of this machine that asks.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from meteo_common.allowances import Allowance, Budget, parse_allowances
from meteo_common.durations import format_duration
from meteo_common.errors import UsageError
from meteo_common.settings import Settings
from meteo_producer.source import BudgetSpentError, KeyRefusedError, RateLimitedError
from meteo_producer.state import State

WIDTHS = (1, 60, 3600)
"""Seconds of the buckets that spending is counted in."""
BUCKETS = 60
"""A window is counted in buckets of the greatest width of which it has this many: what lies in a bucket that has partly
left the window still counts, so that up to 1/60 of a budget stays unused and none is ever exceeded."""
KEPT = {1: BUCKETS * 60, 60: BUCKETS * 3600, 3600: 366 * 86400}
"""Seconds for which buckets of a width are kept: as long as a window needs them."""

SET_BACK = 3600
"""Seconds by which a clock may be set back without a short window being exceeded."""

NEARLY = 0.8
"""Of a budget: from here on a person is told. A stretched interval uses up to 90 %, and should be seen."""

FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0
"""Seconds: the ceiling of our own doubling, where a provider does not say how long."""
LONGEST_ASKED_PAUSE = 86400.0
"""The quotas of these providers begin anew each day at the latest but for OpenWeather's month, and one request a day
harms nobody: a `Retry-After` of years is not believed."""
LIMITS_NAMED = {"minutely": 60, "hourly": 3600, "daily": 86400}
"""Seconds by Open-Meteo's words, "Hourly API request limit exceeded. Please try again in the next hour."; its counters
begin anew with the clock's minute, hour and day of UTC. Visual Crossing says "Maximum daily cost exceeded"."""


@dataclass(frozen=True)
class Account:
    """A provider and a key. `unit`: what its allowances count."""

    name: str
    provider: str
    unit: str
    allowances: tuple[Allowance, ...]
    budget_setting: str
    key_setting: str | None = None
    key: str | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """Its lasting name, in which the key is only a fingerprint."""
        fingerprint = hashlib.sha256(self.key.encode()).hexdigest()[:16] if self.key else "no key"
        return self.name if self.key_setting is None else f"{self.name} {fingerprint}"


@dataclass(frozen=True)
class Charge:
    """What a request took from its account, and when (unix seconds)."""

    account: Account
    taken_at: float
    cost: float
    after_pause: bool


@dataclass(frozen=True)
class Window:
    """What was spent within the last `seconds`, and what may be."""

    seconds: int
    used: float
    limit: int

    @property
    def left(self) -> float:
        """What may still be spent."""
        return max(0.0, self.limit - self.used)


@dataclass(frozen=True)
class Refusal:
    """A path that a key was refused at (unix seconds), with what to do."""

    path: str
    refused_at: float
    sentence: str


@dataclass(frozen=True)
class Report:
    """How an account stands. `paused_for`: seconds, 0 when it may be asked."""

    account: Account
    windows: tuple[Window, ...]
    paused_for: float
    refusals: tuple[Refusal, ...]

    def warnings(self) -> list[str]:
        """Return a sentence for each window that is used up to 80 % or more, for a pause, and for each refusal."""
        account = self.account
        return [
            *(
                f"{account.provider}: {each.used:.10g} of {each.limit} {account.unit} in"
                f" {format_duration(each.seconds)} are used; {account.budget_setting} sets the limit."
                for each in self.windows
                if each.used >= NEARLY * each.limit
            ),
            *(
                [f"{account.provider} is not asked for {format_duration(self.paused_for)}: it wants a pause (429)."]
                if self.paused_for
                else []
            ),
            *(refusal.sentence for refusal in self.refusals),
        ]


class Accounts:
    """All accounts; `clock` returns unix seconds."""

    _ADD = (
        "INSERT INTO spent (account, width, bucket, amount) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (account, width, bucket) DO UPDATE SET amount = max(0, amount + excluded.amount)"
    )
    _FORGET = "DELETE FROM spent WHERE account = ? AND width = ? AND (bucket < ? OR bucket > ?)"
    _SPENT = (
        "SELECT bucket, amount FROM spent WHERE account = ? AND width = ? AND bucket BETWEEN ? AND ? ORDER BY bucket"
    )
    _PAUSE = "SELECT until, consecutive FROM pauses WHERE account = ?"
    _SET_PAUSE = "INSERT OR REPLACE INTO pauses (account, until, consecutive) VALUES (?, ?, ?)"
    _END_PAUSE = "DELETE FROM pauses WHERE account = ? AND until <= ?"
    _REFUSALS = "SELECT path, refused_at, sentence FROM refusals WHERE account = ? ORDER BY path"
    _REFUSE = "INSERT OR REPLACE INTO refusals (account, path, refused_at, sentence) VALUES (?, ?, ?, ?)"
    _RETRY = "DELETE FROM refusals WHERE account = ?"

    def __init__(self, settings: Settings, state: State, clock: Callable[[], float] = time.time) -> None:
        self._accounts = _accounts(settings)
        self._state = state
        self._clock = clock

    @classmethod
    def in_memory(cls, settings: Settings | None = None) -> Accounts:
        """Return accounts that end with the process."""
        return cls(settings or Settings.model_validate({}), State())

    def __getitem__(self, name: str) -> Account:
        return self._accounts[name]

    def of(self, source: str) -> Account | None:
        """Return the account that a source is charged to; None for one that asks nobody, as the simulation."""
        return next((account for account in self._accounts.values() if account.name == source), None)

    def take(self, name: str, path: str, cost: float = 1.0) -> Charge:
        """Charge the account for a request that is about to be made.

        Raises KeyRefusedError when this key was refused at this path, RateLimitedError during a pause that the
        provider asked for, BudgetSpentError when an allowance would be exceeded; the latter two with the seconds left.
        """
        account, now = self._accounts[name], self._clock()
        with self._state.transaction() as database:
            for refusal in self._refusals(database, account):
                if refusal.path == path:
                    raise KeyRefusedError(refusal.sentence)
            until, consecutive = self._pause(database, account)
            if until > now:
                raise RateLimitedError(
                    f"{account.provider} wants a pause (429): it is asked again in {format_duration(until - now)}.",
                    until - now,
                )
            spent = [self._spent(database, account, allowance, cost, now) for allowance in account.allowances]
            if errors := [error for error in spent if error]:
                raise max(errors, key=lambda error: error.retry_after or 0.0)
            self._add(database, account, now, cost)
        return Charge(account, now, cost, consecutive > 0)

    def wait(self, name: str, cost: float, reserve: float = 0.0) -> float:
        """Return the seconds until a request of this cost would leave the share `reserve` of every allowance."""
        account, now = self._accounts[name], self._clock()
        with self._state.transaction() as database:
            ends = [
                self._free_at(database, account, replace(each, amount=int(each.amount * (1 - reserve))), cost, now)[1]
                for each in account.allowances
            ]
        return max(ends, default=now) - now

    def correct(self, charge: Charge, cost: float) -> None:
        """Replace what a request was expected to cost by what the provider says that it did."""
        if cost != charge.cost:
            with self._state.transaction() as database:
                self._add(database, charge.account, charge.taken_at, cost - charge.cost)

    def answered(self, charge: Charge) -> None:
        """Note an answer: the next 429 is the first one again, unless it came while this was under way."""
        if charge.after_pause:
            with self._state.transaction() as database:
                database.execute(self._END_PAUSE, (charge.account.id, charge.taken_at))

    def pause(self, name: str, asked: float | None, reason: str) -> float:
        """Note a 429 and return the seconds for which nothing of the account is asked.

        `asked`: the seconds of its Retry-After, None without; `reason`: the provider's words.
        """
        account, now = self._accounts[name], self._clock()
        with self._state.transaction() as database:
            until, consecutive = self._pause(database, account)
            # Answers to requests that were under way already say nothing new.
            consecutive = consecutive if until > now else consecutive + 1
            until = max(until, now + pause_seconds(asked, reason, consecutive, now))
            database.execute(self._SET_PAUSE, (account.id, until, consecutive))
        return until - now

    def refuse(self, name: str, path: str, sentence: str) -> None:
        """Note that the key was refused at this path: it is not used there again."""
        account = self._accounts[name]
        with self._state.transaction() as database:
            database.execute(self._REFUSE, (account.id, path, self._clock(), sentence))

    def retry_key(self, name: str) -> int:
        """Forget the refusals of the account's key and return how many there were."""
        with self._state.transaction() as database:
            return database.execute(self._RETRY, (self._accounts[name].id,)).rowcount

    def report(self, name: str) -> Report:
        """Return how an account stands."""
        account, now = self._accounts[name], self._clock()
        with self._state.transaction() as database:
            windows = tuple(
                Window(each.seconds, _total(self._buckets(database, account, each, now)), each.amount)
                for each in account.allowances
            )
            until, _ = self._pause(database, account)
            return Report(account, windows, max(0.0, until - now), self._refusals(database, account))

    def reports(self) -> list[Report]:
        """Return how all accounts stand."""
        return [self.report(name) for name in self._accounts]

    def _spent(
        self, database: sqlite3.Connection, account: Account, allowance: Allowance, cost: float, now: float
    ) -> BudgetSpentError | None:
        """Return the error that the allowance does not let this be taken now, None when it does."""
        if cost > allowance.amount:
            raise UsageError(
                f"One request to {account.provider} costs {cost:.10g} {account.unit}, more than"
                f" {account.budget_setting} ever allows ({allowance.amount} in {format_duration(allowance.seconds)});"
                " raise it, or ask for less."
            )
        used, free_at = self._free_at(database, account, allowance, cost, now)
        if free_at <= now:
            return None
        return BudgetSpentError(
            f"The budget of {account.provider} is spent: {used:.10g} of {allowance.amount} {account.unit} in"
            f" {format_duration(allowance.seconds)} ({account.budget_setting}); it is asked again in"
            f" {format_duration(free_at - now)}.",
            free_at - now,
        )

    def _free_at(
        self, database: sqlite3.Connection, account: Account, allowance: Allowance, cost: float, now: float
    ) -> tuple[float, float]:
        """Return what is used of the allowance, and when it leaves room for this cost (unix seconds)."""
        buckets = self._buckets(database, account, allowance, now)
        used = left = _total(buckets)
        free_at = now
        for bucket, amount in buckets:
            # Binary fractions of 1.4 add up to a little more or less.
            if left + cost <= allowance.amount + 1e-9:
                break
            left -= amount
            free_at = (bucket + 1) * _width(allowance.seconds) + allowance.seconds
        return used, free_at

    def _buckets(
        self, database: sqlite3.Connection, account: Account, allowance: Allowance, now: float
    ) -> list[tuple[int, float]]:
        width = _width(allowance.seconds)
        # What lies in the future was noted before the clock was set back, perhaps a moment ago: it counts, but not when
        # it is so far ahead that nothing would be asked for years.
        within = int((now - allowance.seconds) // width), int((now + max(allowance.seconds, SET_BACK)) // width)
        return database.execute(self._SPENT, (account.id, width, *within)).fetchall()

    def _add(self, database: sqlite3.Connection, account: Account, at: float, cost: float) -> None:
        for width in WIDTHS:
            outside = int((at - KEPT[width]) // width) - 1, int((at + KEPT[width]) // width)
            database.execute(self._FORGET, (account.id, width, *outside))
            database.execute(self._ADD, (account.id, width, int(at // width), cost))

    def _pause(self, database: sqlite3.Connection, account: Account) -> tuple[float, int]:
        until, consecutive = database.execute(self._PAUSE, (account.id,)).fetchone() or (0.0, 0)
        # One that is longer than a pause can be was noted by a clock that was wrong.
        return (until if until <= self._clock() + LONGEST_ASKED_PAUSE else 0.0), consecutive

    def _refusals(self, database: sqlite3.Connection, account: Account) -> tuple[Refusal, ...]:
        return tuple(Refusal(*row) for row in database.execute(self._REFUSALS, (account.id,)))


def pause_seconds(asked: float | None, reason: str, consecutive: int, now: float) -> float:
    """Return how long to pause after a 429, the `consecutive`-th in a row, in seconds.

    As long as asked; else until the limit that the provider names begins anew; else 60 s, doubling up to an hour.
    Without a Retry-After there is jitter, so that many producers do not come back at the same moment.
    """
    if asked is not None and asked > 0:
        return min(max(asked, 1.0), LONGEST_ASKED_PAUSE)
    jitter = random.uniform(1.0, 1.5)  # noqa: S311
    doubled: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(consecutive - 1, 10) * jitter)
    for word, seconds in LIMITS_NAMED.items():
        if word in reason.lower():
            return min(max(doubled, seconds - now % seconds + jitter), LONGEST_ASKED_PAUSE)
    return doubled


def _accounts(settings: Settings) -> Mapping[str, Account]:
    """Return an account for each setting that is a budget."""
    accounts = {}
    fields = type(settings).model_fields
    for setting, info in fields.items():
        for budget in (each for each in info.metadata if isinstance(each, Budget)):
            stem = setting.removesuffix("_budget")
            name, key_setting = stem.replace("_", "-"), f"{stem}_api_key"
            key = getattr(settings, key_setting, None)
            accounts[name] = Account(
                name,
                budget.provider,
                budget.unit,
                parse_allowances(getattr(settings, setting)),
                setting.upper(),
                key_setting.upper() if key_setting in fields else None,
                key.get_secret_value() if key else None,
            )
    return accounts


def _width(seconds: int) -> int:
    return max((width for width in WIDTHS if width * BUCKETS <= seconds), default=WIDTHS[0])


def _total(buckets: list[tuple[int, float]]) -> float:
    return round(sum(amount for _, amount in buckets), 6)
