"""The documents say what the code does: generated pages are current, links lead somewhere, names are the code's."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from meteo_common.settings import Settings

PROJECT = Path(__file__).parents[1]
# Joined here, so that this file does not hold what it forbids.
FORBIDDEN = [
    *(f"/{name}/" for name in ("work", "root", "home/[a-z]")),
    *(re.escape(".".join(parts)) for parts in (("pypi", "org"), ("files", "pythonhosted", "org"))),
    *(re.escape(".".join(parts)) for parts in (("repo", "maven", "apache", "org"), ("repo1", "maven", "org"))),
    *(re.escape(".".join(parts)) for parts in (("registry", "npmjs", "org"), ("deb", "debian", "org"))),
    re.escape(".".join(("archive", "ubuntu", "com"))),
    *(rf"{name}\.(?:local|internal)\b" for name in ("artifactory", "nexus")),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@cache
def tracked() -> list[Path]:
    """Every file of the repository, committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    return [path for name in listing.stdout.splitlines() if (path := PROJECT / name).is_file()]


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def documented() -> str:
    return "\n".join(path.read_text("utf-8") for path in documents())


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load(PROJECT / "docs" / "generate.py")


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get on the usual code hosts."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_pages_are_current(generate: ModuleType) -> None:
    stale = [path.name for path, text in generate.pages().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run docs/generate.py: {', '.join(stale)}"


def test_picture_is_current() -> None:
    architecture = load(PROJECT / "image" / "architecture.py")
    assert architecture.TARGET.read_text("utf-8") == architecture.draw(), "run image/architecture.py"


def test_every_setting_is_documented() -> None:
    page = (PROJECT / "docs" / "settings.md").read_text("utf-8")
    example = (PROJECT / ".env.example").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"
        assert f"`{name.upper()}`" in page
        assert f"#{name.upper()}=" in example


def test_every_variable_of_the_launcher_is_documented() -> None:
    text = documented()
    sources = [PROJECT / "meteo", *(path for path in tracked() if path.suffix == ".py" and "tests" not in path.parts)]
    used = {name for path in sources for name in re.findall(r"\bMETEO_[A-Z_]+\b", path.read_text("utf-8"))}
    assert {name for name in used if f"`{name}" not in text} == set()


def test_every_command_is_documented(generate: ModuleType) -> None:
    page, readme = ((PROJECT / name).read_text("utf-8") for name in ("docs/commands.md", "README.md"))
    names = [name for name, _ in generate.commands()]
    assert len(names) > 10
    assert [name for name in names if f"## {name}\n" not in page] == []
    assert [name for name in names if not re.search(rf"\b{name}\b", readme)] == []


def test_no_document_names_a_command_that_is_not_there(generate: ModuleType) -> None:
    known = {name.split()[0] for name, _ in generate.commands()}
    for path in documents():
        for name in re.findall(r"\./meteo (?:--stack \w+ )?([a-z][a-z-]*)", path.read_text("utf-8")):
            assert name in known, f"{path.relative_to(PROJECT)}: ./meteo {name}"


def test_every_metric_is_documented() -> None:
    page = (PROJECT / "docs" / "metrics.md").read_text("utf-8")
    defining = re.compile(r"\b(?:Counter|[Gg]auge|Histogram|Summary)\(\s*\"([a-z0-9_]+)\"")
    sources = [path for path in tracked() if path.suffix == ".py" and "tests" not in path.parts]
    names = {name for path in sources for name in defining.findall(path.read_text("utf-8"))}
    assert len(names) > 8
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_page_is_reachable_from_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text("utf-8")
    pages = [path.relative_to(PROJECT).as_posix() for path in (PROJECT / "docs").glob("*.md")]
    assert [page for page in pages if f"({page}" not in readme] == []


def test_links_lead_somewhere() -> None:
    broken = []
    for path in documents():
        for target in ("".join(groups) for groups in LINK.findall(CODE_BLOCK.sub("", path.read_text("utf-8")))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            to = (path.parent / name).resolve() if name else path
            if not to.exists() or (anchor and anchor not in anchors(to.read_text("utf-8"))):
                broken.append(f"{path.relative_to(PROJECT)}: {target}")
    assert broken == []


def test_no_document_waits_to_be_filled_in() -> None:
    assert [path.name for path in documents() if re.search(r"@[A-Z]{2,}@", path.read_text("utf-8"))] == []


def test_pictures_are_small() -> None:
    for path in tracked():
        if path.suffix in {".png", ".svg"}:
            assert path.stat().st_size < 300_000, f"{path.name} is too large for a README"


def test_nothing_tracked_names_a_developers_machine() -> None:
    pattern = re.compile("|".join(FORBIDDEN))
    found = []
    for path in tracked():
        if path.name == "uv.lock":
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(PROJECT)}:{number}: {match[0]}"
            for number, line in enumerate(lines, start=1)
            if (match := pattern.search(line))
        ]
    assert found == []
