"""Commands killed (-9) at named places and at random moments, and commands at once: nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import psycopg2
import pytest
import tiers
from psycopg2.extensions import connection as Connection  # noqa: N812

from conftest import Tenant, TenantMaker
from meteo_common.failpoints import FAILPOINTS

SLICE = ("2013-03-30", "2013-04-01")
"""Around the night in which Paris loses an hour."""
LONGER = ("2013-03-27", "2013-04-04")
MANY_DAYS = ("2013-01-01", "2013-07-15")
"""With 3 partitions so many files that the aggregation starts processes."""

COMMANDS = {
    "consumer": ("consume", "--until-idle"),
    "export": ("export", "--once"),
    "aggregate": ("aggregate", "--changed"),
    "hbase": ("aggregate", "--changed"),
}
BEFORE: dict[str, tuple[Callable[[Tenant], None], ...]] = {
    "consumer": (),
    "export": (tiers.consume,),
    "aggregate": (tiers.consume, tiers.export),
}
BEFORE["hbase"] = BEFORE["aggregate"]


def undisturbed(make_tenant: TenantMaker, days: tuple[str, str]) -> dict[str, bytes]:
    tenant = make_tenant()
    tiers.publish(tenant, *days)
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    return tiers.read_aggregates(tenant)


@dataclass
class Victim:
    """A tenant that faults happen to, and what it must come to nevertheless."""

    tenant: Tenant
    expected: dict[str, bytes]
    days: tuple[str, str]
    records: int = 0

    def give_work(self, stage: str) -> None:
        """Send the slice again and bring it to the stage's door."""
        self.records += tiers.publish(self.tenant, *self.days)
        for step in BEFORE[stage]:
            step(self.tenant)

    def finish(self) -> None:
        """Run everything once more, and look at everything."""
        for step in (tiers.consume, tiers.export, tiers.aggregate):
            step(self.tenant)
        tiers.assert_whole(self.tenant, self.records, self.expected)


@pytest.fixture(scope="module")
def victim(make_tenant: TenantMaker) -> Victim:
    return Victim(make_tenant(), undisturbed(make_tenant, SLICE), SLICE)


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.partition(".")[0] in COMMANDS])
def test_a_kill_at_a_named_place_is_made_good_by_the_next_run(victim: Victim, name: str) -> None:
    stage = name.partition(".")[0]
    victim.give_work(stage)
    process = tiers.start(victim.tenant, *COMMANDS[stage], extra={"METEO_FAILPOINT": name})
    assert process.wait(60) == -signal.SIGKILL
    tiers.assert_alone(process)
    again = tiers.run(victim.tenant, *COMMANDS[stage])
    assert again.returncode == 0, again.stderr
    victim.finish()


def test_kills_amid_many_days_are_made_good(make_tenant: TenantMaker) -> None:
    """The export at its 100th file, and the aggregation while its processes are at work."""
    tenant = make_tenant()
    records = tiers.publish(tenant, *MANY_DAYS)
    tiers.consume(tenant)
    process = tiers.start(tenant, *COMMANDS["export"], extra={"METEO_FAILPOINT": "export.after_rename:100"})
    assert process.wait(60) == -signal.SIGKILL
    tiers.export(tenant)
    process = tiers.start(tenant, *COMMANDS["aggregate"])
    tiers.eventually("processes of the aggregation", lambda: len(tiers.members(process.pid)) > 2)
    assert tiers.kill(process)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


def working(connection: Connection, stage: str) -> bool:
    """Say whether a command has begun to work: whether it has a session with PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
            (f"meteo-{stage}",),
        )
        return cursor.fetchone() != (0,)


def test_twenty_kills_at_random_moments(make_tenant: TenantMaker) -> None:
    seed = int(os.environ.get("METEO_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"repeat with METEO_TEST_SEED={seed}")  # noqa: T201
    chance = random.Random(seed)  # noqa: S311
    victim = Victim(make_tenant(), undisturbed(make_tenant, LONGER), LONGER)
    kills = {"consumer": 7, "export": 7, "aggregate": 6}
    lasting: dict[str, float] = {}
    with closing(psycopg2.connect(victim.tenant.settings.database_url.get_secret_value())) as connection:
        connection.autocommit = True

        def strike(stage: str, *, undisturbed: bool) -> bool:
            victim.give_work(stage)
            process = tiers.start(victim.tenant, *COMMANDS[stage])
            tiers.eventually(stage, lambda: process.poll() is not None or working(connection, stage), pause=0.01)
            begun = time.monotonic()
            if undisturbed:
                assert process.wait(60) == 0
                lasting[stage] = time.monotonic() - begun
                return False
            time.sleep(chance.uniform(0, lasting[stage]))
            return tiers.kill(process)

        for stage in kills:
            strike(stage, undisturbed=True)
        for _ in range(100):
            left = [stage for stage, number in kills.items() if number]
            if not left:
                break
            stage = chance.choice(left)
            kills[stage] -= strike(stage, undisturbed=False)
    assert not any(kills.values()), f"the commands ended before they could be killed: {kills}"
    victim.finish()
    reconciled = tiers.run(victim.tenant, "reconcile", "--deep")
    assert reconciled.returncode == 0, reconciled.stdout
    assert " 0 pending, 0 mismatches" in reconciled.stdout


def at_once(tenant: Tenant, *stages: str) -> None:
    """Run commands at the same time; each must end well."""
    processes = [tiers.start(tenant, *COMMANDS[stage]) for stage in stages]
    assert [process.wait(60) for process in processes] == [0] * len(stages)


@pytest.mark.parametrize("stages", [("consumer",) * 2, ("export",) * 2, ("aggregate",) * 2], ids=lambda it: it[0])
def test_two_of_a_kind_at_once_lose_and_double_nothing(victim: Victim, stages: tuple[str, ...]) -> None:
    victim.give_work(stages[0])
    at_once(victim.tenant, *stages)
    victim.finish()


def test_an_export_while_an_aggregation_runs_loses_and_doubles_nothing(victim: Victim) -> None:
    victim.give_work("aggregate")
    victim.give_work("export")
    at_once(victim.tenant, "aggregate", "export", "consumer")
    victim.finish()
