"""The commands `consume`, `dead-letters` and `retention`."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meteo_common.console import numbered, out, print_columns, run_command
from meteo_common.errors import MismatchError, UsageError
from meteo_common.logs import configure_logs
from meteo_common.service import Service
from meteo_common.settings import load_settings

if TYPE_CHECKING:
    from meteo_consumer.dead_letters import Letter
    from meteo_consumer.replay import Replayed
    from meteo_consumer.retention import Retained

dead_letters = typer.Typer(
    name="dead-letters", help="List, show and replay records that are not valid messages.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def register(app: typer.Typer) -> None:
    """Add this distribution's commands to a command line."""
    app.command()(consume)
    app.add_typer(dead_letters)
    app.command()(retention)


def consume(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End at the log's end as it stood at the start.")
    ] = False,
) -> None:
    """Take records from Kafka into PostgreSQL, each exactly once."""
    run_command(lambda: _consume(until_idle))


@dead_letters.command("list")
def list_dead_letters(
    reason: Annotated[str, typer.Option(help="Only those whose reason contains this text.")] = "",
    state: Annotated[Literal["new", "replayed", "all"], typer.Option(help="Only those in this state.")] = "new",
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first, and how many there are of each kind of reason."""
    run_command(lambda: _list(reason, state, limit, as_json))


@dead_letters.command("show")
def show_dead_letter(
    dead_letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` prints it.")],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a dead letter, its bytes, and what a replay would do now."""
    run_command(lambda: _show(dead_letter_id, as_json))


@dead_letters.command("replay")
def replay_dead_letters(
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID...", help="As `list` prints them.")] = None,
    all_new: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
    file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Send these bytes instead of the one letter's; - is the input.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what would be refused again, or was replayed already.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Send dead letters to their topic again, as new records whose headers say where they come from."""

    def run() -> None:
        if all_new == bool(ids):
            raise UsageError("Expected the ids of dead letters, or --all.")
        if file is not None and len(ids or ()) != 1:
            raise UsageError("--file gives the bytes of one dead letter: name its id.")
        _replay(ids, None if file is None else _read(file), force, dry_run)

    run_command(run)


def retention(
    keep: Annotated[
        int | None, typer.Option(metavar="MONTHS", min=1, help="Detach the months before the newest ones.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Delete the tables of all detached months.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take old months, whose rows all lie in HDFS, out of PostgreSQL; their counts stay for reconcile."""

    def run() -> None:
        from meteo_consumer.retention import retain

        if keep is None and not drop:
            raise UsageError("Expected --keep MONTHS to detach older months, or --drop to delete the detached ones.")
        configure_logs("retention", long_running=False)
        for line in _retained(retain(load_settings(), keep, drop=drop, dry_run=dry_run), dry_run):
            out.print(line, markup=False)

    run_command(run)


def _consume(until_idle: bool) -> None:
    # Imported here: kafka-python takes 0.2 s, which `--help` and the other commands need not wait for.
    from meteo_consumer.consume import consume_forever, consume_until_idle

    configure_logs("consumer", long_running=not until_idle)
    settings = load_settings()
    if until_idle:
        taken = consume_until_idle(settings)
        letters = f" and {taken.dead_letters} dead letters" if taken.dead_letters else ""
        others = f"; {taken.by_others} records were taken by other consumers" if taken.by_others else ""
        out.print(f"consumed {taken.rows} rows{letters} from {settings.topic_name}{others}")
        return
    service = Service("consumer", settings.metrics_listener)
    try:
        consume_forever(settings, service)
    finally:
        service.close()


def _list(reason: str, state: str, limit: int, as_json: bool) -> None:
    from meteo_common.database import open_database
    from meteo_consumer.dead_letters import DeadLetters

    with closing(open_database(load_settings(), "dead-letters")) as database:
        letters = DeadLetters(database)
        newest = letters.newest(reason=reason, state=state, limit=limit)
        reasons = letters.reasons(reason=reason, state=state)
    if as_json:
        print(json.dumps({"dead_letters": [_facts(letter) for letter in newest], "reasons": reasons}))  # noqa: T201
        return
    if not newest:
        out.print("no dead letters")
        return
    rows = [
        (
            str(letter.dead_letter_id),
            f"{letter.topic} {letter.partition}/{letter.msg_offset}",
            letter.received_at.isoformat(" ", "seconds"),
            letter.state,
            _printable(letter.reason),
        )
        for letter in newest
    ]
    print_columns(("id", "record", "received", "state", "reason"), rows)
    out.print(f"\n{sum(reasons.values())} in all, by reason:")
    for kind, number in reasons.items():
        out.print(f"{number:>7}  {_printable(kind)}", markup=False)


def _show(dead_letter_id: int, as_json: bool) -> None:
    from meteo_common.database import open_database
    from meteo_consumer.dead_letters import DeadLetters

    with closing(open_database(load_settings(), "dead-letters")) as database:
        letters = DeadLetters(database)
        (letter,) = letters.get([dead_letter_id])
        refusal = letters.refusal(letter.value)
    facts = {**_facts(letter), "refusal_now": refusal}
    if as_json:
        print(json.dumps(facts))  # noqa: T201
        return
    value = facts.pop("value")
    for name, fact in facts.items():
        out.print(f"{name:18} {_printable(str(fact)) if fact is not None else '–'}", markup=False)
    again = f"it would only become a dead letter again: {refusal}" if refusal else "it would become a row"
    out.print(f"{'replayed now,':18} {_printable(again)}\n", markup=False)
    out.print("–" if value is None else _printable(value), markup=False)


def _facts(letter: Letter) -> dict[str, Any]:
    """Return a letter as plain data: instants in ISO form, bytes as text or, if they are none, in hexadecimal."""
    facts: dict[str, Any] = asdict(letter)
    for name in ("record_key", "value"):
        encoded: bytes | None = facts[name]
        try:
            facts[name], encoding = None if encoded is None else encoded.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            facts[name], encoding = (encoded or b"").hex(), "hex"
        facts[f"{name}_encoding"] = encoding
    return {name: fact.isoformat() if isinstance(fact, datetime) else fact for name, fact in facts.items()}


def _printable(text: str) -> str:
    """Return text without what a terminal would obey."""
    return "".join(each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in text)


def _replay(ids: list[int] | None, value: bytes | None, force: bool, dry_run: bool) -> None:
    from meteo_consumer.replay import replay

    configure_logs("replay", long_running=False)
    done = replay(load_settings(), ids or None, value=value, force=force, dry_run=dry_run)
    for line in _replayed(done, by_id=bool(ids), dry_run=dry_run):
        out.print(line, markup=False)
    if ids and done.refused:
        number, reason = next(iter(done.refused.items()))
        more = len(done.refused) - 1
        raise MismatchError(f"Dead letter {number} was not replayed: {reason}{f', and {more} more' if more else ''}.")


def _replayed(done: Replayed, *, by_id: bool, dry_run: bool) -> Iterator[str]:
    if by_id:
        for number, place in [*done.sent.items(), *done.found.items()]:
            where = "" if place is None else f" as partition {place[0]} offset {place[1]}"
            yield f"dead letter {number}: {'would be replayed' if dry_run else 'replayed'}{where}"
    yield f"{'would replay' if dry_run else 'replayed'} {numbered(len(done.sent), 'dead letter')}"
    if done.found:
        yield f"  {len(done.found)} had been sent by a replay that died: only noted"
    for reason, number in Counter(done.refused.values()).most_common(10 if not by_id else 0):
        yield f"  {number} stay: {_printable(reason)}"


def _read(path: str) -> bytes:
    """Return a file's bytes. Root's command has become another user, in another directory, by now."""
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return (Path(os.environ.get("PWD", ".")) / path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"--file {path} cannot be read ({error.strerror}); or give it as input: --file - < FILE."
        ) from None


def _retained(done: Retained, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    for name in done.detached:
        yield f"{name}: {would}detached"
    for name, reason in done.kept.items():
        yield f"{name}: stays, {reason}"
    for name in done.dropped:
        yield f"{name}: {would}dropped"
    rows = "" if dry_run else f", {done.rows} rows"
    yield f"{numbered(len(done.detached), 'month')} {would}detached{rows}; {len(done.dropped)} {would}dropped"
