"""Structured logs: one event with its fields per line, JSON for machines, aligned text on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(service: str, *, long_running: bool = True) -> None:
    """Send every log of this process to standard error, stamped with the service's name.

    A command that ends by itself tells a person what it did, so that it logs only what is wrong.
    """
    level = logging.INFO if long_running else logging.WARNING

    def stamp(_: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        # Not a context variable: threads that work side by side would not inherit it.
        return {**event, "service": service}

    shared: list[structlog.typing.Processor] = [
        stamp,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        last: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    else:
        shared.append(structlog.processors.format_exc_info)
        last = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processor=last, foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries narrate every retry at INFO and WARNING: at a stopped broker kafka-python writes 40 lines a second.
    root.setLevel(logging.ERROR)
    # It tells every attempt to reconnect as an error; what matters of it is told once, by us.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
