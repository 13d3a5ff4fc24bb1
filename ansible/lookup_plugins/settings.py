"""Several of a user's settings at once: those that are set, by their names."""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: settings
short_description: A dictionary of the settings that the user has set
description: Each as the lookup setting finds it; what is not set is left out, so that the code's own default holds.
options:
  _terms:
    description: The names of the settings.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[dict[str, str]]:
        setting = lookup_loader.get("setting", loader=self._loader, templar=self._templar)
        found = {name: setting.run([name], variables)[0] for name in terms}
        return [{name: value for name, value in found.items() if value}]
