"""HTTP to the weather APIs: whatever happens becomes one of our errors, and no key ever reaches a text.

Exceptions of `requests` hold the whole URL with its key: their text is never shown, only what kind they are.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests

from meteo_common.errors import RefusedError, UnreachableError, UsageError
from meteo_producer.source import KeyRefusedError, RateLimitedError

TIMEOUT = (5.0, 15.0)
"""Seconds to connect and between two reads: the APIs answer in well under 1 s."""

# urllib3 writes every request line, key included, at DEBUG.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Endpoint:
    """One address of a provider: `setting` holds its base URL, `key_setting` its key."""

    provider: str
    base_url: str
    path: str
    setting: str
    key_setting: str | None = None

    def __str__(self) -> str:
        return f"{self.provider} at {urlsplit(self.base_url).netloc.rpartition('@')[2]}"


class Api:
    """One session for all requests of a process."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "meteo"

    def get(self, endpoint: Endpoint, params: dict[str, str | int | float], about: str) -> Any:
        """Return the parsed JSON body of a GET; `about` is what is asked for, as a person knows it.

        Raises UnreachableError (no answer, 5xx, a body that breaks off), RateLimitedError (429), KeyRefusedError
        (401, 403), UsageError (400, 404, a redirect), RefusedError (an error inside a 200).
        """
        url = f"{endpoint.base_url}{endpoint.path}"
        try:
            # A redirect would carry the key to wherever it points.
            response = self._session.get(url, params=params, timeout=TIMEOUT, allow_redirects=False)
        except requests.Timeout:
            raise UnreachableError(f"{endpoint} did not answer in time; it is tried again at the next poll.") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise UsageError(f"{endpoint.setting} is no address that can be asked; expected http(s)://host.") from None
        except requests.RequestException:
            raise UnreachableError(f"{endpoint} cannot be reached; check the network and {endpoint.setting}.") from None
        body = _parse(response.content)
        _refuse_status(endpoint, response, body, about)
        if body is None:
            raise UnreachableError(f"{endpoint} broke off its answer about {about}: it is not complete JSON.")
        _refuse_error_inside(endpoint, response, body, about)
        return body


def _parse(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _refuse_status(endpoint: Endpoint, response: requests.Response, body: Any, about: str) -> None:
    _refuse_code(endpoint, response.status_code, body, about, _retry_after(response.headers.get("Retry-After")))


def _refuse_error_inside(endpoint: Endpoint, response: requests.Response, body: Any, about: str) -> None:
    """OpenWeather's `cod` (a number or a text) and Open-Meteo's `error` count as much as the HTTP status."""
    if not isinstance(body, dict):
        return
    if body.get("error") is True:
        raise RefusedError(f"{endpoint} answers about {about} with an error: {_reason(body)}.")
    code = str(body.get("cod", response.status_code))
    if code.isdigit() and not code.startswith("2"):
        _refuse_code(endpoint, int(code), body, about, _retry_after(response.headers.get("Retry-After")))


def _refuse_code(endpoint: Endpoint, code: int, body: Any, about: str, retry_after: float | None) -> None:
    if 200 <= code < 300:
        return
    reason = _reason(body)
    if code == 429:
        wait = f"in {retry_after:.0f} s" if retry_after else "later"
        raise RateLimitedError(f"{endpoint} wants fewer requests (429): it is asked again {wait}.", retry_after)
    if code in {401, 403} and endpoint.key_setting:
        raise KeyRefusedError(
            f"{endpoint} refuses the key ({code}): check {endpoint.key_setting}, that it is active, and its plan."
        )
    if code in {400, 401, 403, 404, 422} and reason:
        raise UsageError(f"{endpoint} does not answer for {about} ({code}: {reason}); check the place's spelling.")
    if code >= 500 or code == 408:
        raise UnreachableError(f"{endpoint} has a fault of its own ({code}); it is tried again at the next poll.")
    raise UsageError(f"{endpoint} answers {code} to {endpoint.path}; check {endpoint.setting}, its base URL.")


def _reason(body: Any) -> str:
    """The provider's own words, shortened: OpenWeather says `message`, Open-Meteo `reason`."""
    if not isinstance(body, dict):
        return ""
    text = body.get("reason") or body.get("message") or ""
    return " ".join(str(text).split())[:200].rstrip(".")


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(1.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
