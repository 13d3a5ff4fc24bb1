#!/usr/bin/env python3
"""Write what an image holds, as CycloneDX 1.5: Debian's packages, jars and Python packages.

The format is that of cyclonedx.org/docs/1.5/json. Runs while an image is built, with Python's own library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
JAR = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.+-]*)\.jar")


def debian(status: Path) -> Iterator[Component]:
    """Yield each package that dpkg's list calls installed."""
    for paragraph in status.read_text("utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={fields['Architecture']}"
            yield component(name, version, purl)


def jars(directory: Path) -> Iterator[Component]:
    """Yield each jar, with its coordinates where it carries them, and its hash."""
    for path in sorted(directory.rglob("*.jar")):
        found = coordinates(path)
        name, version, group = found["artifactId"], found["version"], found["groupId"]
        space = f"{quote(group)}/" if group else ""
        each = component(name, version, f"pkg:maven/{space}{quote(name)}@{quote(version, safe='')}")
        each["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]
        yield {**each, "group": group} if group else each


def coordinates(path: Path) -> dict[str, str]:
    """Return artifactId, version and groupId (or "") of a jar: of its own pom, which a shaded one has beside others."""
    named = JAR.fullmatch(path.name)
    artifact, version = (named["name"], named["version"]) if named else (path.stem, "")
    group = ""
    with zipfile.ZipFile(path) as jar:
        for entry in jar.namelist():
            if entry.startswith("META-INF/maven/") and entry.endswith(f"/{artifact}/pom.properties"):
                group = entry.split("/")[2]
    return {"artifactId": artifact, "version": version, "groupId": group}


def python(directory: Path) -> Iterator[Component]:
    """Yield each package that is installed there."""
    for found in sorted(distributions(path=[str(directory)]), key=lambda each: each.name.lower()):
        name = re.sub(r"[-_.]+", "-", found.name).lower()
        yield component(name, found.version, f"pkg:pypi/{name}@{quote(found.version, safe='')}")


def included(document: Path) -> Iterator[Component]:
    """Yield what the image that this one is made from holds beside Debian's packages."""
    for each in json.loads(document.read_text("utf-8"))["components"]:
        if not each["purl"].startswith("pkg:deb/"):
            yield each


def component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


READERS = {"debian": debian, "jars": jars, "python": python, "included": included}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="The name of the image.")
    for name in READERS:
        parser.add_argument(f"--{name}", type=Path)
    given = vars(parser.parse_args())
    components = [each for name, read in READERS.items() if given[name] for each in read(given[name])]
    # The same jar may lie in two directories.
    by_reference = {each["bom-ref"]: each for each in components}
    image = {"type": "container", "name": given["image"]}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": image},
        "components": list(by_reference.values()),
    }
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
