"""The directory that holds everything a deployment makes on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: meteo_home
short_description: METEO_HOME, else /var/lib/meteo for root and .meteo of the checkout for a person
description: The first term is the checkout.
options:
  _terms:
    description: The checkout.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        del variables
        chosen = os.environ.get("METEO_HOME")
        if chosen:
            return [str(Path(chosen).expanduser().absolute())]
        return ["/var/lib/meteo" if os.geteuid() == 0 else str(Path(terms[0]).resolve() / ".meteo")]
