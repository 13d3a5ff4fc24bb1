"""The message's contract as JSON Schema (draft 2020-12), made from the model, and a check by it.

What JSON Schema has no word for is said by keywords that begin with `x-`. A validator that does not know them passes
over them; `violations` knows them, and refuses exactly what `meteo_common.message.decode` refuses.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

import msgspec

from meteo_common.days import format_instant
from meteo_common.message import (
    CALENDAR,
    EARLIEST,
    INDEX_LIMITS,
    LATEST_AHEAD,
    OTHER_INDEX_LIMITS,
    SCHEMA_VERSION,
    Message,
)

Node = dict[str, Any]

INSTANT = (
    # A real date, leap years too.
    "^(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
    "[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])$"
)
"""RFC 3339's date-time without leap seconds, and two forms near it: a space for the T, an offset without its colon."""
LONGEST_INTEGER = 4300
"""Characters of an integer in `raw`, its sign among them: Python reads no longer one."""
LARGEST = 1.7976931348623157e308
"""The largest double (IEEE 754)."""

_COMMENT = (
    "Made by docs/generate.py from meteo_common/message.py. Added optional fields are accepted and do not raise the"
    " schema_version. Keywords that begin with x- say what JSON Schema has no word for; docs/message.md explains them."
    " Besides, a record is UTF-8 without a byte order mark, one JSON text as of RFC 8259, has no half of a surrogate"
    " pair in any text, and is nested less than 900 levels deep."
)
_RULES = {
    "x-plain-integer": "written without fraction and exponent: 1, not 1.0",
    "x-begins-with": "the text begins with that of the other field and a colon",
    "x-earliest": "the instant is not before this one",
    "x-not-ahead-of": "the instant is at most so many hours after that of the other field",
    "x-years": "the instant, in UTC and rounded half up to microseconds, lies in these years, inclusive",
    "x-longest-integer": "at any depth, integers have at most so many characters and other numbers fit a double",
    "x-named-twice": "of a name that comes twice in an object the last value counts; each must be valid by itself",
}


def message_schema() -> Node:
    """Return the schema of the message."""
    schema = msgspec.json.schema(Message)
    definitions: Node = schema["$defs"]
    for definition in definitions.values():
        for node in _nodes(definition):
            _restate(node)
        definition["description"] = " ".join(definition["description"].split())
    _relate(definitions)
    definitions["Instant"] = {
        "$comment": "RFC 3339's date-time; a space may stand for the T, and the offset may lack its colon.",
        "type": "string",
        "pattern": INSTANT,
        "x-years": [CALENDAR[0].year, CALENDAR[1].year - 1],
    }
    definitions["Storable"] = {
        "$comment": "JSONB holds no U+0000, neither in texts nor in names, however deep.",
        "pattern": "^[^\u0000]*$",
        "propertyNames": {"pattern": "^[^\u0000]*$"},
        "additionalProperties": {"$ref": "#/$defs/Storable"},
        "items": {"$ref": "#/$defs/Storable"},
        "x-named-twice": True,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Message on the topic weather-api",
        "$comment": _COMMENT,
        "x-rules": _RULES,
        "allOf": [{"$ref": "#/$defs/Message"}, {"$ref": "#/$defs/Storable"}],
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the schema as the file `message.schema.json` holds it."""
    return json.dumps(message_schema(), indent=1, ensure_ascii=True) + "\n"


def violations(value: bytes | None) -> list[str]:
    """Return in what a record's value breaks the schema or its x- rules, a sentence each; none for a valid message.

    Needs the package jsonschema. What PostgreSQL's JSONB alone refuses, such as 1e400000 in an added field, is not
    among it.
    """
    if not value:
        return ["there is no value"]
    try:
        message = _parse(value.decode("utf-8"))
        with _deeper():
            return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(message)]
    except RecursionError:
        return ["nested too deeply"]
    except ValueError as error:
        return [f"no JSON text: {error}"]


@contextmanager
def _deeper() -> Iterator[None]:
    """Let the validator, which takes some 10 calls a level, go as deep as the parser went."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _nodes(node: Any) -> Iterator[Node]:
    """Yield every object below a schema node, itself first."""
    if isinstance(node, dict):
        yield node
        for child in list(node.values()):
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)


def _restate(node: Node) -> None:
    """Say in JSON Schema's words what msgspec says in Python's, and what it leaves unsaid."""
    if node.get("format") == "date-time":
        node.clear()
        node["$ref"] = "#/$defs/Instant"
    if isinstance(pattern := node.get("pattern"), str):
        node["pattern"] = pattern.replace("\\Z", "$")
    if node.get("type") == "integer":
        node["x-plain-integer"] = True
    if node.get("type") == "object":
        node["x-named-twice"] = True
    if node.get("type") == "number":
        node.setdefault("minimum", -LARGEST)
        node.setdefault("maximum", LARGEST)


def _relate(definitions: Node) -> None:
    """Add what the model checks between fields."""
    message, quality = definitions["Message"], definitions["AirQuality"]
    message["properties"]["schema_version"]["maximum"] = SCHEMA_VERSION
    message["properties"]["raw"]["x-longest-integer"] = LONGEST_INTEGER
    message["x-begins-with"] = {"station_id": "source"}
    message["x-earliest"] = {"observed_at": format_instant(EARLIEST)}
    message["x-not-ahead-of"] = {"observed_at": {"collected_at": LATEST_AHEAD // timedelta(hours=1)}}
    scales: list[tuple[Node, tuple[float, float]]] = [
        ({"const": scale}, limits) for scale, limits in INDEX_LIMITS.items()
    ]
    scales.append(({"not": {"enum": list(INDEX_LIMITS)}}, OTHER_INDEX_LIMITS))
    quality["allOf"] = [
        {
            "if": {"properties": {"scale": scale}},
            "then": {"properties": {"index": {"minimum": low, "maximum": high}}},
        }
        for scale, (low, high) in scales
    ]


class _Object(dict[str, Any]):
    """A parsed object that remembers the values that a later one of the same name has replaced."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        last = {name: number for number, (name, _) in enumerate(pairs)}
        self.replaced = [pair for number, pair in enumerate(pairs) if last[pair[0]] != number]


def _parse(text: str) -> Any:
    """Return a JSON text's value; raises ValueError for what RFC 8259 does not know, and for halves of a pair."""

    def integer(digits: str) -> float:
        return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number")

    value = json.loads(text, object_pairs_hook=_Object, parse_int=integer, parse_constant=constant)
    for each in _values(value):
        if isinstance(each, str):
            each.encode("utf-8")  # UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return value


def _values(value: Any) -> Iterator[Any]:
    """Yield everything in a parsed value: names and texts, replaced ones too."""
    stack = [value]
    while stack:
        each = stack.pop()
        yield each
        if isinstance(each, _Object):
            stack += each.keys()
            stack += each.values()
            stack += [replaced for _, replaced in each.replaced]
        elif isinstance(each, list):
            stack += each


def parse_instant(text: str) -> datetime | None:
    """Return the instant of a text of the pattern INSTANT, half a microsecond rounded up; None when it has none."""
    found = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2}).([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(.)([0-9]{2})?:?([0-9]{2})?",
        text,
    )
    if found is None:
        return None
    fraction = (found[7] or "").ljust(7, "0")
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0)) * (-1 if found[8] == "-" else 1)
    try:
        whole = datetime(*(int(found[number]) for number in range(1, 7)), tzinfo=timezone(offset))  # type: ignore[arg-type, misc]
        return whole + timedelta(microseconds=int(fraction[:6]) + (fraction[6] >= "5"))
    except (ValueError, OverflowError):
        return None


@cache
def _validator() -> Any:
    """Return a validator of the schema that knows its x- keywords, and the patterns' dialect (ECMA 262)."""
    import jsonschema

    def keyword(check: Callable[[Any, Any, Node], Iterator[str]]) -> Any:
        def run(_: Any, rule: Any, value: Any, node: Node) -> Iterator[jsonschema.ValidationError]:
            yield from map(jsonschema.ValidationError, check(rule, value, node))

        return run

    def named_twice(validator: Any, _: Any, value: Any, node: Node) -> Iterator[jsonschema.ValidationError]:
        for name, replaced in value.replaced if isinstance(value, _Object) else ():
            own = node.get("properties", {}).get(name, node.get("additionalProperties", {}))
            yield from validator.descend(replaced, own, path=name)

    keywords: dict[str, Any] = {name: keyword(check) for name, check in _CHECKS.items()}
    kind = jsonschema.validators.extend(
        jsonschema.Draft202012Validator, {**keywords, "x-named-twice": named_twice, "pattern": keyword(_pattern)}
    )
    return kind(message_schema())


def _pattern(pattern: str, value: Any, _: Node) -> Iterator[str]:
    # Python's $ would let a last newline through.
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield f"{value!r} does not match {pattern!r}"


def _plain_integer(_: bool, value: Any, __: Node) -> Iterator[str]:
    if isinstance(value, float):
        yield f"{value!r} is written with a fraction or an exponent"


def _begins_with(fields: dict[str, str], value: Any, _: Node) -> Iterator[str]:
    for name, other in fields.items():
        text, begin = (value.get(each) for each in (name, other)) if isinstance(value, dict) else (None, None)
        if isinstance(text, str) and isinstance(begin, str) and not text.startswith(f"{begin}:"):
            yield f"{name} {text!r} does not begin with {other} {begin!r}"


def _earliest(fields: dict[str, str], value: Any, _: Node) -> Iterator[str]:
    for name, earliest in fields.items():
        instant, border = _instant(value, name), parse_instant(earliest)
        if instant and border and instant < border:
            yield f"{name} is before {earliest}"


def _not_ahead_of(fields: dict[str, dict[str, int]], value: Any, _: Node) -> Iterator[str]:
    for name, limits in fields.items():
        for other, hours in limits.items():
            later, earlier = _instant(value, name), _instant(value, other)
            if later and earlier and later - earlier > timedelta(hours=hours):
                yield f"{name} is more than {hours} h after {other}"


def _instant(value: Any, name: str) -> datetime | None:
    text = value.get(name) if isinstance(value, dict) else None
    return parse_instant(text) if isinstance(text, str) else None


def _years(years: list[int], value: Any, _: Node) -> Iterator[str]:
    if not isinstance(value, str):
        return
    instant = parse_instant(value)
    if instant is None or not CALENDAR[0].replace(year=years[0]) <= instant < CALENDAR[0].replace(year=years[1] + 1):
        yield f"{value!r} is outside the years {years[0]} to {years[1]}"


def _longest_integer(_: int, value: Any, __: Node) -> Iterator[str]:
    if any(isinstance(each, float) and math.isinf(each) for each in _values(value)):
        yield "holds a number that is too large"


_CHECKS: dict[str, Callable[[Any, Any, Node], Iterator[str]]] = {
    "x-plain-integer": _plain_integer,
    "x-begins-with": _begins_with,
    "x-earliest": _earliest,
    "x-not-ahead-of": _not_ahead_of,
    "x-years": _years,
    "x-longest-integer": _longest_integer,
}
