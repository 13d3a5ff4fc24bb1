"""The page and its API, as a web application: read only, and every error a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from http import HTTPStatus
from importlib import metadata, resources
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException

from meteo_common.errors import MeteoError, TransientError, UsageError
from meteo_common.settings import Settings
from meteo_page.answers import Aggregates, Observations, Problem, State, Stations
from meteo_page.observations import MOST_ROWS, USUAL_ROWS, UnknownStationError, Weather
from meteo_page.watch import EVERY_SECONDS, Watch

log = structlog.get_logger()

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    # Nothing but our own files, no matter what a station's name or an error's text may hold.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such station."},
    422: {"model": Problem, "description": "A parameter is wrong."},
    503: {"model": Problem, "description": "A server is away."},
}

StationId = Annotated[
    str, Path(max_length=200, pattern=r"^[a-z-]+:[A-Za-z0-9._,+-]+$", examples=["open-meteo:48.8534,2.3488"])
]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="at most so many, the newest ones")]
From = Annotated[AwareDatetime | None, Query(alias="from", description="first instant, such as 2026-11-20T10:00:00Z")]
To = Annotated[AwareDatetime | None, Query(alias="to", description="the instant behind the last one")]
FirstDay = Annotated[date | None, Query(alias="from", description="first day, such as 2026-11-20")]
LastDay = Annotated[date | None, Query(alias="to", description="last day, inclusive")]


def create_app(settings: Settings, watch: Watch, registry: CollectorRegistry) -> FastAPI:
    """Return the application; `watch` has the pipeline's state, `registry` the metrics."""
    app = FastAPI(
        title="meteo",
        version=metadata.version("meteo-page"),
        description="Weather, its daily aggregates, and the state of the pipeline that brings them. Read only.",
        # Their pages would load scripts from elsewhere; the description itself is here.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _add_files(app)
    _add_probes(app, watch, registry)
    _add_api(app, Weather(settings), watch)
    _add_problems(app)

    @app.middleware("http")
    async def guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return app


def _add_files(app: FastAPI) -> None:
    folder = resources.files("meteo_page") / "static"
    for path, (name, kind) in FILES.items():
        content = (folder / name).read_bytes()
        app.add_api_route(path, _file(content, kind), include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[], Response]:
    return lambda: Response(content, media_type=kind)


def _add_probes(app: FastAPI, watch: Watch, registry: CollectorRegistry) -> None:
    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def facts() -> dict[str, Any]:
        last = watch.last
        trouble = "The pipeline is read for the first time." if last is None else last.troubles.get("postgresql")
        healthy = watch.healthy
        return {
            "service": "page",
            "healthy": healthy,
            "ready": healthy and trouble is None,
            "waiting_for": trouble,
        }

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> JSONResponse:
        found = facts()
        return JSONResponse(found, 200 if found["healthy"] else 503)

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        found = facts()
        return JSONResponse(found, 200 if found["ready"] else 503)


def _add_api(app: FastAPI, weather: Weather, watch: Watch) -> None:
    @app.get("/api/stations", responses={503: PROBLEMS[503]})
    def stations() -> Stations:
        """Every station with its newest weather."""
        return Stations.model_validate({"stations": weather.stations()})

    @app.get("/api/stations/{station_id}/observations", responses=PROBLEMS)
    def observations(
        station_id: StationId, first: From = None, after: To = None, limit: Limit = USUAL_ROWS
    ) -> Observations:
        """The observations of a station, one for each time; without `from` those of the 48 h up to its newest."""
        if first and after and first >= after:
            raise HTTPException(422, f"The parameter 'from' is {first.isoformat()}, expected one before 'to'.")
        return Observations.model_validate(weather.observations(station_id, first, after, limit))

    @app.get("/api/stations/{station_id}/aggregates", responses=PROBLEMS)
    def aggregates(
        station_id: StationId, first: FirstDay = None, last: LastDay = None, limit: Limit = USUAL_ROWS
    ) -> Aggregates:
        """The daily aggregates of a station, from HBase, or from HDFS where HBase is switched off."""
        if first and last and first > last:
            raise HTTPException(422, f"The parameter 'from' is {first}, expected a day not after 'to'.")
        return Aggregates.model_validate(weather.aggregates(station_id, first, last, limit))

    @app.get("/api/pipeline", responses={503: PROBLEMS[503]})
    def pipeline() -> State:
        """The state of the pipeline, hop by hop, as it was read within the last 15 seconds."""
        if watch.last is None:
            raise HTTPException(503, "The pipeline is read for the first time; ask again in a few seconds.")
        return State.model_validate(watch.last.facts())


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        usual = error.detail == HTTPStatus(error.status_code).phrase
        return problem(
            error.status_code, "Nothing is here; /api/openapi.json lists what is." if usual else error.detail
        )

    @app.exception_handler(RequestValidationError)
    def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name, message = first["loc"][-1], str(first["msg"])
        return problem(422, f"The parameter '{name}' is wrong: {message[0].lower()}{message[1:]}.")

    @app.exception_handler(UnknownStationError)
    def unknown(_: Request, error: UnknownStationError) -> JSONResponse:
        return problem(404, str(error))

    @app.exception_handler(MeteoError)
    def failed(_: Request, error: MeteoError) -> JSONResponse:
        away = isinstance(error, (TransientError, UsageError))
        return problem(503 if away else 500, str(error))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", path=request.url.path, exc_info=error)
        return problem(500, "The page failed at this question; ./meteo logs page says how.")


def problem(status: int, sentence: str) -> JSONResponse:
    """Return an error as a problem (RFC 9457)."""
    headers = {**HEADERS, **({"Retry-After": f"{EVERY_SECONDS:.0f}"} if status == 503 else {})}
    content = {"status": status, "title": HTTPStatus(status).phrase, "detail": sentence}
    return JSONResponse(content, status, headers, "application/problem+json")
