"""HTTP to the weather APIs: within the account's rules, and whatever happens becomes one of our errors.

Exceptions of `requests` hold the whole URL with its key: their text is never shown, only what kind they are.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from meteo_common.durations import format_duration
from meteo_common.errors import MeteoError, RefusedError, UnreachableError, UsageError
from meteo_producer.accounts import Accounts
from meteo_producer.source import KeyRefusedError, RateLimitedError

if TYPE_CHECKING:
    # Imported by who asks: they take 60 ms, and every command knows the sources.
    import urllib3

TIMEOUT = (5.0, 15.0)
"""Seconds to connect and between two reads: the APIs answer in well under 1 s."""
ANSWER_SECONDS = 30.0
"""For a whole answer: one that drips byte by byte is given up."""
LONGEST_ANSWER = 16 * 1024 * 1024
"""Bytes; the longest recorded answer has 0.2 MB."""
PIECE = 65536

# urllib3 writes every request line, key included, at DEBUG.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class NotConnectedError(UnreachableError):
    """The request never left: it costs nothing."""


@dataclass(frozen=True)
class Endpoint:
    """One address of a provider: `setting` holds its base URL, `account` is who pays for what is asked there.

    `below`: what follows the path and differs from one request to the next, such as Visual Crossing's place and dates:
    a key is refused by path.
    """

    provider: str
    base_url: str
    path: str
    setting: str
    account: str = field(kw_only=True)
    below: str = field(default="", kw_only=True)

    @property
    def url(self) -> str:
        """The whole address, without its query."""
        return f"{self.base_url}{self.path}{self.below}"

    def __str__(self) -> str:
        return f"{self.provider} at {urlsplit(self.base_url).netloc.rpartition('@')[2]}"


@dataclass(frozen=True)
class Answer:
    """What came back: the status, its headers, and the body without any key."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds of a Retry-After, which is a number or a date (RFC 9110, 10.2.3); None without, or without sense."""
        header = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,12}", header):
            seconds = float(header)
        else:
            try:
                seconds = parsedate_to_datetime(header).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                return None
        return seconds if seconds > 0 else None

    @property
    def body(self) -> Any:
        """The parsed JSON; None when it is not JSON."""
        try:
            return msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


class Api:
    """One session for all requests of a process; without `accounts` nothing of their rules outlives it."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.accounts = accounts or Accounts.in_memory()
        import requests

        self._session = requests.Session()
        self._session.headers["User-Agent"] = "meteo"

    def get(self, endpoint: Endpoint, params: Mapping[str, str | int | float], about: str, cost: float = 1.0) -> Any:
        """Return the parsed JSON body of a GET; `about` is what is asked for, as a person knows it.

        `cost` is in the unit of the account; what the answer says that it was (`queryCost`) replaces it.
        Raises UnreachableError (no answer, 5xx, a body that breaks off), RateLimitedError (429, or still paused),
        BudgetSpentError, KeyRefusedError (401, 403), UsageError (400, 404, a redirect), RefusedError (an error inside a
        200). An error that stands inside a 200 has the body as its `answer`.
        """
        charge = self.accounts.take(endpoint.account, endpoint.path, cost)
        try:
            answer = self._ask(endpoint, params)
        except NotConnectedError:
            self.accounts.correct(charge, 0.0)
            raise
        body = answer.body
        self._refuse_code(endpoint, answer.status, answer, body, about)
        if body is None:
            raise UnreachableError(f"{endpoint} broke off its answer about {about}: it is not complete JSON.")
        try:
            self._refuse_error_inside(endpoint, answer, body, about)
        except MeteoError as error:
            error.answer = body
            raise
        self.accounts.answered(charge)
        self.accounts.correct(charge, _real_cost(body, cost))
        return body

    def _ask(self, endpoint: Endpoint, params: Mapping[str, str | int | float]) -> Answer:
        import requests
        import urllib3

        try:
            # A redirect would carry the key to wherever it points.
            with self._session.get(
                endpoint.url, params=dict(params), timeout=TIMEOUT, allow_redirects=False, stream=True
            ) as response:
                content = _read(endpoint, response.raw)
        except requests.ConnectTimeout:
            raise NotConnectedError(str(_too_slow(endpoint))) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise _too_slow(endpoint) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise UsageError(f"{endpoint.setting} is no address that can be asked; expected http(s)://host.") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            kind = NotConnectedError if _was_not_connected(error) else UnreachableError
            raise kind(f"{endpoint} cannot be reached; check the network and {endpoint.setting}.") from None
        if key := self.accounts[endpoint.account].key:
            # Some providers repeat a wrong key in their answer.
            content = content.replace(key.encode(), b"***")
        return Answer(response.status_code, response.headers, content)

    def _refuse_error_inside(self, endpoint: Endpoint, answer: Answer, body: Any, about: str) -> None:
        """OpenWeather's `cod` (a number or a text) and Open-Meteo's `error` count as much as the HTTP status."""
        if not isinstance(body, dict):
            return
        if body.get("error") is True:
            raise RefusedError(f"{endpoint} answers about {about} with an error: {_reason(answer, body)}.")
        code = _code(body.get("cod"))
        if code is not None:
            self._refuse_code(endpoint, code, answer, body, about)

    def _refuse_code(self, endpoint: Endpoint, code: int, answer: Answer, body: Any, about: str) -> None:
        if 200 <= code < 300:
            return
        reason = _reason(answer, body)
        account = self.accounts[endpoint.account]
        if code == 429 or (code == 400 and "cost exceeded" in reason):
            seconds = self.accounts.pause(account.name, answer.retry_after, reason)
            raise RateLimitedError(
                f"{endpoint} wants fewer requests ({code}{f': {reason}' if reason else ''}): it is asked again in"
                f" {format_duration(seconds)}.",
                seconds,
            )
        if code in {401, 403} and account.key_setting:
            sentence = (
                f"{endpoint} refuses the key for {endpoint.path} ({code}): check {account.key_setting}, that it is"
                " active (a new one takes hours), and its plan. It is asked again with another key, or after ./meteo"
                f" budgets --retry-key {account.name}."
            )
            self.accounts.refuse(account.name, endpoint.path, sentence)
            raise KeyRefusedError(sentence)
        if code in {400, 401, 403, 404, 422} and reason:
            raise UsageError(f"{endpoint} does not answer for {about} ({code}: {reason}); check the place's spelling.")
        if code >= 500 or code == 408:
            raise UnreachableError(
                f"{endpoint} has a fault of its own ({code}); it is tried again.", answer.retry_after
            )
        raise UsageError(f"{endpoint} answers {code} to {endpoint.path}; check {endpoint.setting}, its base URL.")


def _read(endpoint: Endpoint, raw: urllib3.BaseHTTPResponse) -> bytes:
    """Return the whole body, as it arrives: a read for more would wait for each byte of a dripping answer anew."""
    end = time.monotonic() + ANSWER_SECONDS
    content = bytearray()
    while piece := raw.read1(PIECE, decode_content=True):
        content += piece
        if time.monotonic() > end:
            raise _too_slow(endpoint)
        if len(content) > LONGEST_ANSWER:
            raise UsageError(
                f"{endpoint} answers with more than {LONGEST_ANSWER >> 20} MB, which is no weather;"
                f" check {endpoint.setting}."
            )
    return bytes(content)


def _was_not_connected(error: Exception) -> bool:
    """Say whether requests' error wraps urllib3's that no connection was made."""
    import requests
    import urllib3

    failed = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(getattr(failed, "reason", None), urllib3.exceptions.NewConnectionError)


def _too_slow(endpoint: Endpoint) -> UnreachableError:
    return UnreachableError(f"{endpoint} did not answer in time; it is tried again.")


def _code(value: Any) -> int | None:
    """Return the number that a `cod` is, or None."""
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _reason(answer: Answer, body: Any) -> str:
    """The provider's own words, shortened: OpenWeather's `message`, Open-Meteo's `reason`, Visual Crossing's text."""
    if isinstance(body, dict):
        text = str(body.get("reason") or body.get("message") or "")
    elif body is None and answer.status >= 400 and not answer.content.lstrip().startswith(b"<"):
        text = answer.content[:1000].decode("utf-8", "replace")
    else:
        text = ""
    return " ".join(text.split())[:200].rstrip(".")


def _real_cost(body: Any, expected: float) -> float:
    cost = body.get("queryCost") if isinstance(body, dict) else None
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else expected
