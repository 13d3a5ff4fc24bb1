"""Text without its secrets: those that are known are found wherever they stand, others by what stands before them."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "********"
# Shorter ones would be found in half of all words; where a name tells of them they are masked all the same.
SHORTEST = 4
WORDS = "password|passwd|passphrase|secret|token|credentials?|api[_-]?key|apikey"
SECRET_NAME = re.compile(rf"(?i){WORDS}|(^|[_.-])(key|pwd|pass)$")
"""Of a variable or setting whose value is one."""
ADDRESS_NAME = re.compile(r"(?i)(^|_)url(_|$)|^headers$")
"""Of what may hold one in the middle, such as the address of a webhook."""
VALUE = r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,;&"'}<>]+"""
USER_OF_URL = re.compile(r"(\w+)://([^/\s\"'<>]+)@")
OF_NAME = re.compile(rf"(?i)((?:{WORDS})[\"']?\s*[:=]\s*)({VALUE})")
OF_QUERY = re.compile(r"(?i)([?&](?:appid|[\w-]*(?:key|sig|signature))=)([^&\s\"'<>]+)")
PATTERNS = (
    OF_NAME,
    OF_QUERY,
    re.compile(r"(?i)(\bpassword\s+)('[^'\n]*')"),
    re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer)\s+)([^\s\"']+)"),
    re.compile(rf"(?i)(<name>[^<]*(?:{WORDS})[^<]*</name>\s*<value>)([^<]+)"),
)
NOTHING = {"", "null", "none", "true", "false", "[hidden", MASK}
"""What stands for no secret; a server that lists its settings says it of most."""
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][\w.]*)\s*=\s*(.*?)\s*$")


class Masks:
    """The secrets that are known, and what takes them out of a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in written(secret)}
        # The longest first: one may be a part of another.
        self.forms = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, text: str) -> str:
        """Return the text with a mask for each secret."""
        for form in self.forms:
            text = text.replace(form, MASK)
        text = USER_OF_URL.sub(rf"\1://{MASK}@", text)
        for pattern in PATTERNS:
            text = pattern.sub(_masked, text)
        return text


def written(secret: str) -> set[str]:
    """Return the ways in which a secret is written in configuration, addresses, JSON and headers."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        shlex.quote(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
    }


def assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of NAME=VALUE lines, as a shell reads them."""
    for line in text.splitlines():
        if found := ASSIGNMENT.match(line):
            yield found[1], unquoted(found[2])


def unquoted(value: str) -> str:
    """Return a value without the quotes around it."""
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value


def secrets_of(name: str, value: str) -> Iterator[str]:
    """Yield what is secret in the value of a variable: all of it, or a password in the middle."""
    if SECRET_NAME.search(name) and value.lower() not in NOTHING:
        yield value
    for scheme, user in USER_OF_URL.findall(value):
        login, _, password = user.partition(":")
        # Without a password, some services take a token for the user.
        part = password or (login if scheme.startswith("http") else "")
        yield from {part, unquote(part)}
    for pattern in (OF_NAME, OF_QUERY):
        for _, found in pattern.findall(value):
            yield from {found.strip("\"'"), unquote(found)}


def secrets_in_tree(tree: Any, name: str = "") -> Iterator[str]:
    """Yield the secrets of a structure as YAML gives it, by the names in it; below headers everything is one."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from secrets_in_tree(value, name if name.lower() == "headers" else str(key))
    elif isinstance(tree, list):
        for value in tree:
            yield from secrets_in_tree(value, name)
    elif isinstance(tree, str | int) and not isinstance(tree, bool):
        if ADDRESS_NAME.search(name):
            yield str(tree)
        yield from secrets_of(name, str(tree))


def shown_values(text: str, shown: Collection[str]) -> str:
    """Return the assignments of a text, with the values of those names only that may be shown.

    Nothing else of it: an old value may stand in a comment.
    """
    lines = []
    for name, value in assignments(text):
        visible = not value or (name.upper() in shown and not SECRET_NAME.search(name))
        lines.append(f"{name}={value if visible else MASK}\n")
    return "".join(lines)


def _masked(found: re.Match[str]) -> str:
    value = found[2]
    mark = value[0] if value[0] in "\"'" else ""
    return found[0] if value.strip("\"'").lower() in NOTHING else f"{found[1]}{mark}{MASK}{mark}"
