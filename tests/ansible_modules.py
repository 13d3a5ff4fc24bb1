"""Modules and plugins of the playbook, loaded as Ansible would have them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ANSIBLE = Path(__file__).parents[1] / "ansible"


def load(path: Path) -> ModuleType:
    """Return the file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_preflight(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return preflight; what it imports stays for as long as the fixture that asks."""
    # Ansible puts the playbook's module_utils under this name when it ships a module.
    for name in ("listeners", "supervision", "docker"):
        monkeypatch.setitem(sys.modules, f"ansible.module_utils.{name}", load(ANSIBLE / "module_utils" / f"{name}.py"))
    return load(ANSIBLE / "roles" / "preflight" / "library" / "preflight.py")
