"""The campaigns' figures: what each did to the services, and what it found; `--long` makes campaigns long."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
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


@dataclass
class Campaigns:
    """How long they are to be, and what they found so far."""

    long: bool
    found: list[Figures]

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
    config.stash[_KEY] = Campaigns(config.getoption("--long"), [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist found."""
    found = node.workeroutput.get(FILE, []) if hasattr(node, "workeroutput") else []
    node.config.stash[_KEY].found.extend(Figures(**facts) for facts in found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what was found, as a process of pytest-xdist."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[FILE] = [asdict(figures) for figures in session.config.stash[_KEY].found]


@pytest.fixture
def campaigns(pytestconfig: pytest.Config) -> Campaigns:
    """The campaigns' size, and where their figures go."""
    return pytestconfig.stash[_KEY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the figures; those of the long form are kept as JSON too."""
    campaigns = config.stash[_KEY]
    if not campaigns.found:
        return
    terminalreporter.section("campaigns")
    for line in table(campaigns.found):
        terminalreporter.write_line(line)
    if campaigns.long:
        facts = {
            "date": datetime.now(UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "campaigns": [asdict(figures) for figures in campaigns.found],
        }
        path = meteo_home() / FILE
        path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
        terminalreporter.write_line(f"written to {path}")


def table(found: list[Figures]) -> Iterator[str]:
    """Yield the figures as a table, in Markdown."""
    names = [field.name.replace("_", " ") for field in fields(Figures)]
    yield "| " + " | ".join(names) + " |"
    yield "|---" + "|--:" * (len(names) - 1) + "|"
    for figures in found:
        yield "| " + " | ".join(_cell(value) for value in asdict(figures).values()) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
