"""The command `page`."""

from __future__ import annotations

import socket
import threading
from typing import Annotated

import typer

from meteo_common.console import run_command
from meteo_common.durations import parse_duration
from meteo_common.errors import UsageError
from meteo_common.logs import configure_logs
from meteo_common.service import Service
from meteo_common.settings import Settings, load_settings

LAST_ANSWERS_SECONDS = 3
"""What is being answered when the service stops is given this long."""


def register(app: typer.Typer) -> None:
    """Add this distribution's command to a command line."""
    app.command()(page)


def page(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Instead of METEO_PAGE_PORT.")] = None,
    every: Annotated[str, typer.Option(help="How often the tiers are read.")] = "15s",
) -> None:
    """Serve the platform's own page, its API and the pipeline's metrics."""

    def run() -> None:
        try:
            seconds = parse_duration(every)
        except ValueError as error:
            raise UsageError(f"--every {every}: {error}.") from None
        _serve(load_settings(meteo_page_port=port), seconds)

    run_command(run)


def _serve(settings: Settings, every: float) -> None:
    # Imported here: FastAPI takes 0.5 s, which the other commands need not wait for.
    import uvicorn
    from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

    from meteo_page.app import create_app
    from meteo_page.measures import PipelineCollector
    from meteo_page.watch import Watch

    configure_logs("page")
    listening = _listen(settings.meteo_listen_address, settings.meteo_page_port)
    service = Service("page", None)
    watch = Watch(settings, every)
    # Not the usual registry: the command line has loaded the other services' metrics too, all of them zero here.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(PipelineCollector(lambda: watch.last))
    configuration = uvicorn.Config(
        create_app(settings, watch, registry),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        limit_concurrency=100,
    )
    server = uvicorn.Server(configuration)
    # Not in the main thread, where the server would take the signals from the service.
    thread = threading.Thread(target=server.run, args=([listening],), name="web", daemon=True)
    watch.begin()
    thread.start()
    while thread.is_alive() and not service.stopping.wait(1.0):
        pass
    watch.stop()
    server.should_exit = True
    thread.join(2 * LAST_ANSWERS_SECONDS)
    if not service.stopping.is_set():
        raise UsageError("The web server ended by itself; the lines above say why.")


def _listen(address: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        raise UsageError(f"Port {port} of the page cannot be opened ({error.strerror}); set METEO_PAGE_PORT.") from None
    return listening
