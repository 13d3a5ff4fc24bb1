"""All alert rules as one file, as patient as the deployment wants them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: alert_rules
short_description: The rule files of a directory as one
description: Multiplies every `for`, every window and every offset, so that a test need not wait for minutes.
options:
  _terms:
    description: The directory of the rule files.
    required: true
  patience:
    description: The factor.
    type: float
    default: 1
  runbooks:
    description: What is put before the path of each runbook.
    type: str
    default: ""
"""
# The order in which they are shown: what matters to most people first.
ORDER = ("availability", "freshness", "saturation", "errors", "capacity")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
WINDOW = re.compile(r"(\[|\boffset )(\d+)(ms|s|m|h|d)\b")
# A window must hold a few samples of the quickest scraping, one a second.
SHORTEST_WINDOW = 5.0


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        del variables
        patience, runbooks = float(options.get("patience", 1)), str(options.get("runbooks", ""))
        return [combined(Path(term), patience, runbooks) for term in terms]


def combined(directory: Path, patience: float, runbooks: str) -> str:
    """All groups of the directory's rule files as one file's text."""
    groups = []
    for name in ORDER:
        for group in yaml.safe_load((directory / f"{name}.yml").read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                adapt(rule, patience, runbooks)
            groups.append(group)
    text: str = yaml.safe_dump({"groups": groups}, sort_keys=False, allow_unicode=True, width=1000)
    return text


def adapt(rule: dict[str, Any], patience: float, runbooks: str) -> None:
    """Change a rule's durations and its runbook's address."""
    if "for" in rule:
        rule["for"] = scaled(rule["for"], patience)
    if "runbook_url" in rule.get("annotations", {}):
        rule["annotations"]["runbook_url"] = runbooks + rule["annotations"]["runbook_url"]
    rule["expr"] = WINDOW.sub(
        lambda match: match[1] + scaled(match[2] + match[3], patience, SHORTEST_WINDOW), str(rule["expr"])
    )


def scaled(duration: str, patience: float, least: float = 0.0) -> str:
    """A duration multiplied; one that stays as it was keeps its words."""
    if patience == 1:
        return duration
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration).groups()  # type: ignore[union-attr]
    return f"{max(least, int(number) * UNITS[unit] * patience) * 1000:.0f}ms"
