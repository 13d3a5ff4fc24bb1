"""What can go wrong, by what helps: the type says whether trying again can, and which exit code it earns.

Every message is one sentence a person can act on: what is wrong, what was expected, what to do.
"""

from __future__ import annotations

from typing import Any


class MeteoError(Exception):
    """Anything the platform refuses or fails at, told in a sentence.

    `answer`: the parsed body of an API's answer that had the status of a good one and says this inside; else None.
    """

    exit_code = 1
    answer: Any = None


class TerminalError(MeteoError):
    """Trying again with the same input cannot help."""


class TransientError(MeteoError):
    """The same call may succeed later.

    `retry_after`: seconds the other side asked us to wait; None when it did not say.
    """

    exit_code = 3

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UsageError(TerminalError):
    """Wrong usage or settings."""

    exit_code = 2


class UnreachableError(TransientError):
    """A server or an API does not answer."""


class RefusedError(TerminalError):
    """An answer or a record that cannot become, or is not, a valid message."""


class MismatchError(TerminalError):
    """Two tiers disagree, or a check failed."""
