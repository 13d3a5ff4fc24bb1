"""The backfill: past days from a provider's archive to Kafka, each of them once, as far as its budget reaches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from meteo_common.console import numbered, out, print_columns, progress
from meteo_common.database import open_database
from meteo_common.days import day_bounds
from meteo_common.durations import format_duration
from meteo_common.errors import RefusedError, TransientError, UsageError
from meteo_common.failpoints import reach
from meteo_common.message import EARLIEST, Message
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.collected_days import CollectedDay, CollectedDays
from meteo_producer.coordinates import Coordinates
from meteo_producer.delivery import Delivery
from meteo_producer.raw_responses import RawResponses
from meteo_producer.retries import retried
from meteo_producer.source import Answers, BudgetSpentError, History, as_record, checked
from meteo_producer.sources import HISTORIES
from meteo_producer.state import State

RESERVE = 0.2
"""The share of each allowance that is left to the live service."""
REPORT_EVERY = 10.0
"""Seconds between the lines of progress where there is no terminal."""
DAY = timedelta(days=1)


def backfill(settings: Settings, source: str, first: date, last: date, *, dry_run: bool = False) -> None:
    """Take the days `first` to `last` of the places of CITY to Kafka, but for those that were taken before.

    Raises UsageError for days that the provider cannot know, TransientError with what is left when it must stop early,
    RefusedError at the end when answers were refused. What was taken stays taken.
    """
    if source not in HISTORIES:
        raise UsageError(f"The source '{source}' has no past days; expected one of {', '.join(HISTORIES)}.")
    api = Api(Accounts(settings, State.of(settings)))
    history = HISTORIES[source](settings, api)
    days = _days(settings, history, first, last)
    budget, coordinates = Budget(api.accounts, history), Coordinates(settings, api)
    if dry_run:
        _show_plan(settings, history, budget, coordinates, days)
        return
    history.ready()
    failed: list[CollectedDay] = []
    for place in settings.places:
        failed += Backfill(settings, history, budget, coordinates.locate(place)).run(days)
    if failed:
        raise RefusedError(
            f"{numbered(len(failed), 'day')} failed ({_ranges([day.day for day in failed])}), the first because"
            f" {str(failed[0].error).rstrip('.')}; the answers are kept in the table raw_responses, and the same"
            " command asks for these days again."
        )


class Budget:
    """What a backfill may spend of a provider's budget: all but the reserve."""

    def __init__(self, accounts: Accounts, history: History) -> None:
        self._accounts = accounts
        self._history = history
        self._name = history.name
        self.unit = accounts[self._name].unit

    @property
    def left(self) -> float | None:
        """What may be spent now; None without a limit."""
        windows = self._accounts.report(self._name).windows
        return min((max(0.0, _spendable(each.limit) - each.used) for each in windows), default=None)

    def affordable(self, days: Sequence[date]) -> Sequence[date]:
        """Return as many of these consecutive days, from the first on, as one call may ask for now.

        Raises BudgetSpentError with the seconds until it is one, UsageError when a day costs more than the budget.
        """
        left = self.left
        for number in range(min(len(days), self._history.days_per_call), 0, -1):
            if left is None or self._history.cost(number) <= left + 1e-9:
                return days[:number]
        account, cost = self._accounts[self._name], self._history.cost(1)
        if cost > min(_spendable(each.amount) for each in account.allowances):
            raise UsageError(
                f"A day costs {cost:.10g} {account.unit}, more than {account.budget_setting} leaves for past days:"
                f" a fifth is kept for live weather; raise it if your plan allows more."
            )
        seconds = self._accounts.wait(self._name, cost, RESERVE)
        raise BudgetSpentError(
            f"The budget of {account.provider} is spent but for the fifth that is kept for live weather"
            f" ({account.budget_setting})",
            seconds,
        )

    def calls(self, days: Sequence[date]) -> list[Sequence[date]]:
        """Return the calls that it takes to ask for these days, whatever the budget."""
        most = self._history.days_per_call
        return [run[at : at + most] for run in _runs(days) for at in range(0, len(run), most)]

    def cost(self, days: Sequence[date]) -> float:
        """Return what these calls cost together."""
        return sum(self._history.cost(len(call)) for call in self.calls(days))


class Backfill:
    """The backfill of one place that has coordinates."""

    def __init__(self, settings: Settings, history: History, budget: Budget, place: Place) -> None:
        self._settings = settings
        self._history = history
        self._budget = budget
        self._place = place
        self._marks: list[CollectedDay] = []

    def run(self, days: Sequence[date]) -> list[CollectedDay]:
        """Take what is missing of these days, say what was done, and return the days that failed.

        Raises TransientError with what is left when a server, the provider or its budget does not let it go on.
        """
        with closing(open_database(self._settings, "backfill")) as connection:
            table = CollectedDays(connection, self._history.name, self._place)
            with table.locked():
                known = table.done(days[0], days[-1])
                missing = [day for day in days if day not in known]
                if not missing:
                    out.print(f"{self._place}: {numbered(len(known), 'day')}, all there already")
                    return []
                try:
                    self._take(table, missing)
                except TransientError as error:
                    raise self._stopped(error, len(missing)) from None
                finally:
                    self._say(len(known))
        return [mark for mark in self._marks if mark.error]

    def _take(self, table: CollectedDays, missing: Sequence[date]) -> None:
        reported = time.monotonic()
        # Kafka before the provider: what cannot be sent must not be paid for.
        with Delivery(self._settings) as delivery, progress() as display:
            task = display.add_task(f"{self._place} from {self._history.name}", total=len(missing))
            while left := missing[len(self._marks) :]:
                self._take_call(table, delivery, self._budget.affordable(_runs(left)[0]))
                display.update(task, completed=len(self._marks))
                if display.disable and time.monotonic() - reported >= REPORT_EVERY:
                    out.print(f"{self._place}: {len(self._marks)} of {len(missing)} days")
                    reported = time.monotonic()

    def _take_call(self, table: CollectedDays, delivery: Delivery, days: Sequence[date]) -> None:
        """Ask once, send, wait for Kafka, and only then mark: killed anywhere, the days are done or asked for again."""
        collected_at = datetime.now(UTC)
        messages, errors = self._ask(days, collected_at)
        reach("backfill.after_fetch")
        for day in days:
            for message in messages[day]:
                delivery.send(*as_record(message))
        delivery.confirm()
        reach("backfill.after_send")
        share = self._history.cost(len(days)) / len(days)
        marks = [
            CollectedDay(
                day, _state(messages[day], errors.get(day)), len(messages[day]), share, collected_at, errors.get(day)
            )
            for day in days
        ]
        table.mark(marks)
        reach("backfill.after_mark")
        self._marks += marks

    def _ask(self, days: Sequence[date], collected_at: datetime) -> tuple[dict[date, list[Message]], dict[date, str]]:
        """Return each day's messages, and why days were refused: those have none, and their answer is kept."""
        messages: dict[date, list[Message]] = {day: [] for day in days}
        errors: dict[date, str] = {}
        answers = None
        try:
            answers = retried(
                self._history.name,
                lambda: self._history.fetch_days(self._place, days[0], days[-1], collected_at),
            )
            for day, message in self._history.normalise_days(answers):
                if day in messages:
                    _add(messages[day], message, day, errors)
        except RefusedError as error:
            answers = answers or Answers(self._place, collected_at, {"days": error.answer})
            errors = dict.fromkeys(days, str(error))
        for day in errors:
            messages[day] = []
        if errors and answers:
            RawResponses(self._settings).store(self._history.name, answers, next(iter(errors.values())))
        return messages, errors

    def _stopped(self, error: TransientError, missing: int) -> TransientError:
        left = missing - len(self._marks)
        again = f" in {format_duration(error.retry_after)}" if error.retry_after else ""
        return type(error)(
            f"{str(error).rstrip('.')}; {left} of {numbered(missing, 'day')} of {self._place} are left: run the same"
            f" command again{again}.",
            error.retry_after,
        )

    def _say(self, known: int) -> None:
        """One line of what there is to tell."""
        of = {state: [mark for mark in self._marks if mark.state == state] for state in ("done", "empty", "failed")}
        rows, cost = sum(mark.rows for mark in self._marks), sum(mark.cost for mark in self._marks)
        parts = [f"{numbered(len(of['done']), 'day')} taken as {numbered(rows, 'message')}"]
        parts += [f"{len(of['empty'])} not there yet"] if of["empty"] else []
        parts += [f"{len(of['failed'])} failed"] if of["failed"] else []
        parts += [f"{known} there already"] if known else []
        out.print(f"{self._place}: {', '.join(parts)}; cost {cost:.4g} {self._budget.unit}")


def _days(settings: Settings, history: History, first: date, last: date) -> list[date]:
    latest = history.last_day(datetime.now(UTC).date())
    if last > latest:
        raise UsageError(
            f"--to {last} is not over yet, or not yet known to {history.name}: its last whole day is {latest}."
        )
    if day_bounds(first, settings.zone)[0] < EARLIEST:
        raise UsageError(f"--from {first}: no source knows weather before 1940; expected 1940-01-02 or later.")
    return [first + DAY * number for number in range((last - first).days + 1)]


def _show_plan(
    settings: Settings, history: History, budget: Budget, coordinates: Coordinates, days: Sequence[date]
) -> None:
    """Print what a run would ask for, and what that costs against what is left; no API is asked."""
    rows, total = [], 0.0
    with closing(open_database(settings, "backfill")) as connection:
        for place in settings.places:
            known = coordinates.known(place)
            # Where a place is was never looked up: nothing of it was ever taken.
            done = CollectedDays(connection, history.name, known).done(days[0], days[-1]) if known else set()
            missing = [day for day in days if day not in done]
            for run in _runs(missing):
                cost = budget.cost(run)
                rows.append([str(place), _ranges(run), str(len(run)), str(len(budget.calls(run))), f"{cost:.4g}"])
                total += cost
            rows += [[str(place), "there already", str(len(done)), "0", "0"]] if done else []
    print_columns(["place", "days", "number", "calls", budget.unit], rows)
    left = budget.left
    allowed = "and nothing limits them" if left is None else f"of {left:.6g} that are left for past days now"
    out.print(f"needs {total:.4g} {budget.unit} {allowed}; nothing was asked")


def _add(messages: list[Message], message: Message, day: date, errors: dict[date, str]) -> None:
    try:
        messages.append(checked(message))
    except RefusedError as error:
        errors[day] = str(error)


def _state(messages: list[Message], error: str | None) -> Literal["done", "empty", "failed"]:
    return "failed" if error else "done" if messages else "empty"


def _spendable(limit: int) -> int:
    return int(limit * (1 - RESERVE))


def _runs(days: Iterable[date]) -> list[list[date]]:
    """Return the days, which are in order, in runs without a gap."""
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _ranges(days: Iterable[date]) -> str:
    """Return `2026-01-01…2026-01-31, 2026-02-03`."""
    return ", ".join(f"{run[0]}…{run[-1]}" if len(run) > 1 else str(run[0]) for run in _runs(days))
