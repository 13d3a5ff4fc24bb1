"""The campaigns' figures: what each did to the services, and what it found; `--long` makes campaigns long."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import pytest
from campaign import Counted, Watch

from meteo_common.settings import meteo_home

FILE = "campaigns.json"
"""Below METEO_HOME: the figures of the last `--long`."""


@dataclass(frozen=True)
class Figures:
    """One campaign: `faults` and `messages` are what was done, the others what was found; times in seconds.

    `stand_still`: the longest time in which a partition's position did not move while records came.
    """

    campaign: str
    faults: int
    messages: int
    rows: int
    dead_letters: int
    doubled: int
    lost: int
    stand_still: float | None
    seconds: float


@dataclass(frozen=True)
class Sight:
    """One fault: seconds from its injection until its alert stood and until the page told of it, and from the repair
    until neither did.
    """

    fault: str
    alert: float
    page: float
    gone: float


@dataclass
class Campaigns:
    """How long they are to be, and what they found so far."""

    long: bool
    found: list[Figures] = field(default_factory=list)
    seen: list[Sight] = field(default_factory=list)

    def size(self, short: int, long: int) -> int:
        """Return the size of this run."""
        return long if self.long else short

    def note(self, campaign: str, faults: int, messages: int, counted: Counted, watch: Watch) -> None:
        """Keep what a campaign against the consumers found."""
        self.found.append(
            Figures(
                campaign,
                faults,
                messages,
                counted.rows,
                counted.dead_letters,
                counted.doubled,
                counted.lost,
                watch.stand_still,
                watch.seconds,
            )
        )


_KEY = pytest.StashKey[Campaigns]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option that scales campaigns."""
    parser.addoption("--long", action="store_true", help="fault campaigns in their long form, with a table at the end")


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing found."""
    config.stash[_KEY] = Campaigns(config.getoption("--long"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist found."""
    facts = node.workeroutput.get(FILE, {}) if hasattr(node, "workeroutput") else {}
    node.config.stash[_KEY].found.extend(Figures(**each) for each in facts.get("campaigns", ()))
    node.config.stash[_KEY].seen.extend(Sight(**each) for each in facts.get("faults", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what was found, as a process of pytest-xdist."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[FILE] = facts_of(session.config.stash[_KEY])


@pytest.fixture
def campaigns(pytestconfig: pytest.Config) -> Campaigns:
    """The campaigns' size, and where their figures go."""
    return pytestconfig.stash[_KEY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the figures; those of the long form are kept as JSON too."""
    campaigns = config.stash[_KEY]
    if not (campaigns.found or campaigns.seen):
        return
    terminalreporter.section("campaigns")
    for line in (*table(campaigns.found), *table(campaigns.seen)):
        terminalreporter.write_line(line)
    if campaigns.long:
        facts = {
            "date": datetime.now(UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            **facts_of(campaigns),
        }
        path = meteo_home() / FILE
        path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
        terminalreporter.write_line(f"written to {path}")


def facts_of(campaigns: Campaigns) -> dict[str, list[dict[str, Any]]]:
    """Return what was found as plain data."""
    return {
        "campaigns": [asdict(each) for each in campaigns.found],
        "faults": [asdict(each) for each in campaigns.seen],
    }


def table(found: Sequence[Figures | Sight]) -> Iterator[str]:
    """Yield figures of one kind as a table, in Markdown; nothing where there are none."""
    if not found:
        return
    names = [each.name.replace("_", " ") for each in fields(found[0])]
    yield "| " + " | ".join(names) + " |"
    yield "|---" + "|--:" * (len(names) - 1) + "|"
    for figures in found:
        yield "| " + " | ".join(_cell(value) for value in asdict(figures).values()) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
