"""What an API can answer, and what a person is told; the key is in none of it."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from recordings import FOLDER, NOW, PARIS

from meteo_common.errors import MeteoError, RefusedError, UnreachableError, UsageError
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer import api as api_module
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.source import FEEDS, KeyRefusedError, RateLimitedError

KEY = "0123456789abcdef0123456789abcdef"
WEATHER = "/data/2.5/weather"


@pytest.fixture(autouse=True)
def no_key_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    ours = [record for record in caplog.get_records("call") if record.name != "werkzeug"]
    assert not any(KEY in record.getMessage() for record in ours)


@pytest.fixture
def api_settings(httpserver: HTTPServer, tmp_path: Path) -> Settings:
    url = httpserver.url_for("")
    return Settings.model_validate(
        {
            "openweather_url": url,
            "open_meteo_url": url,
            "open_meteo_air_quality_url": url,
            "open_meteo_geocoding_url": url,
            "openweather_api_key": KEY,
            "meteo_state_dir": tmp_path / "state",
        }
    )


def recorded(source: str, name: str) -> str:
    return (FOLDER / source / f"{name}.json").read_text(encoding="utf-8")


def failure(api_settings: Settings, source: type[OpenWeather] | type[OpenMeteo] = OpenWeather) -> MeteoError:
    with pytest.raises(MeteoError) as caught:
        source(api_settings, Api()).fetch(PARIS, FEEDS, NOW)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert str(caught.value).count("\n") == 0
    return caught.value


def answer(httpserver: HTTPServer, body: str, status: int = 200, path: str = WEATHER, **headers: str) -> None:
    httpserver.expect_request(path).respond_with_data(body, status, headers, content_type="application/json")


def test_openweather_asks_each_feed_once_in_metric(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("openweather", "owm_current__MagicMirrorOrg__weather-owm-current__0-cfc28"))
    answer(
        httpserver,
        recorded("openweather", "owm_forecast__programmatordev__MockResponse__3-51243"),
        path="/data/2.5/forecast",
    )
    answer(
        httpserver,
        recorded("openweather", "owm_air__programmatordev__MockResponse__4-470dd"),
        path="/data/2.5/air_pollution",
    )
    source = OpenWeather(api_settings, Api())
    message = source.normalise(source.fetch(PARIS, FEEDS, NOW))
    assert len(httpserver.log) == 3
    for request, _ in httpserver.log:
        assert request.args.to_dict() == {"lat": "48.853", "lon": "2.349", "units": "metric", "appid": KEY}
    assert message.station_id == "openweather:2867714"
    assert len(message.forecast) == 1
    assert message.air_quality is not None
    assert set(message.raw) == {"current", "forecast", "air_pollution"}


def test_a_feed_that_fails_does_not_cost_the_observation(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("openweather", "owm_current__MagicMirrorOrg__weather-owm-current__0-cfc28"))
    answer(httpserver, "", 500, "/data/2.5/forecast")
    answer(httpserver, '{"cod": 401, "message": "Invalid API key."}', 401, "/data/2.5/air_pollution")
    source = OpenWeather(api_settings, Api())
    answers = source.fetch(PARIS, FEEDS, NOW)
    assert {feed: type(error) for feed, error in answers.missing.items()} == {
        "forecast": UnreachableError,
        "air_quality": KeyRefusedError,
    }
    assert source.normalise(answers).forecast == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17),
        (timedelta(minutes=60), 3600),
        ("1000000000", 86_400),
        *((senseless, 75) for senseless in (None, "soon", "0", "-5", "1" * 13, "²")),
        (-timedelta(minutes=60), 75),
    ],
)
def test_429_waits_as_told_or_about_a_minute(
    httpserver: HTTPServer, api_settings: Settings, header: str | timedelta | None, seconds: float
) -> None:
    body = recorded("openweather", "owm_error__issue-meteo-qt-162__429")
    if isinstance(header, timedelta):  # a date that long after this moment
        header = format_datetime(datetime.now(UTC) + header)
    answer(httpserver, body, 429, **({"Retry-After": header} if header else {}))
    error = failure(api_settings)
    assert isinstance(error, RateLimitedError)
    assert error.exit_code == 3
    # Without sense or jitter it is 60 to 90 s; the clock of a date goes on while the test does.
    assert error.retry_after == pytest.approx(
        seconds, abs={17: 0.01, 86_400: 0.01}.get(seconds, 60 if seconds > 75 else 15)
    )


@pytest.mark.parametrize("name", ["minutely", "hourly", "daily", "concurrent"])
def test_429_of_open_meteo(httpserver: HTTPServer, api_settings: Settings, name: str) -> None:
    answer(httpserver, recorded("open-meteo", f"om_error__ratelimit__{name}"), 429, "/v1/forecast")
    assert isinstance(failure(api_settings, OpenMeteo), RateLimitedError)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_names_the_setting(httpserver: HTTPServer, api_settings: Settings, status: int) -> None:
    answer(httpserver, '{"cod":401, "message": "Invalid API key ' + KEY + '."}', status)
    error = failure(api_settings)
    assert isinstance(error, KeyRefusedError)
    assert error.exit_code == 2
    assert "check OPENWEATHER_API_KEY" in str(error)


def test_unknown_place_is_named(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("openweather", "owm_error__city-not-found__404"), 404)
    error = failure(api_settings)
    assert isinstance(error, UsageError)
    assert "for Paris,FR (404: city not found)" in str(error)


def test_400_tells_the_providers_reason(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("open-meteo", "om_error__cyanheads__design__1-61c88"), 400, "/v1/forecast")
    error = failure(api_settings, OpenMeteo)
    assert error.exit_code == 2
    assert "Latitude must be in range of -90 to 90°" in str(error)


def test_404_of_something_else_names_the_address(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, "<html>not here</html>", 404, "/v1/forecast")
    error = failure(api_settings, OpenMeteo)
    assert error.exit_code == 2
    assert "check OPEN_METEO_URL" in str(error)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_fault_of_the_provider(httpserver: HTTPServer, api_settings: Settings, status: int) -> None:
    answer(httpserver, "oops", status)
    error = failure(api_settings)
    assert isinstance(error, UnreachableError)
    assert error.exit_code == 3


def test_json_that_breaks_off_after_200(httpserver: HTTPServer, api_settings: Settings) -> None:
    whole = recorded("open-meteo", "om_forecast__jakobheine__today-dresden__0-44967")
    answer(httpserver, whole[:200] + "Unexpected error while streaming data: timeout", path="/v1/forecast")
    error = failure(api_settings, OpenMeteo)
    assert isinstance(error, UnreachableError)
    assert "broke off" in str(error)


def test_cod_in_the_body_counts(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("openweather", "owm_error__city-not-found__404"))
    assert "404: city not found" in str(failure(api_settings))
    httpserver.clear()
    answer(httpserver, recorded("openweather", "owm_error__issue-meteo-qt-162__429"))
    assert isinstance(failure(api_settings), RateLimitedError)


def test_error_inside_a_200_of_open_meteo(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, recorded("open-meteo", "om_error__ratelimit__overloaded"), path="/v1/forecast")
    error = failure(api_settings, OpenMeteo)
    assert isinstance(error, RefusedError)
    assert "The service is overloaded" in str(error)


def test_a_redirect_does_not_take_the_key_along(httpserver: HTTPServer, api_settings: Settings) -> None:
    answer(httpserver, "", 302, Location=httpserver.url_for("/elsewhere"))
    assert failure(api_settings).exit_code == 2
    assert len(httpserver.log) == 1


def test_nobody_listens(api_settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = failure(api_settings.model_copy(update={"openweather_url": url}))
    assert error.exit_code == 3
    assert "cannot be reached" in str(error)


def test_only_a_request_that_left_is_charged(api_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        settings = api_settings.model_copy(update={"openweather_url": url})
        accounts = Accounts.in_memory(settings)
        hanging_up = threading.Thread(target=lambda: server.accept()[0].close())
        hanging_up.start()
        used = []
        for _ in range(2):
            with pytest.raises(UnreachableError):
                OpenWeather(settings, Api(accounts)).fetch(PARIS, ["current"], NOW)
            hanging_up.join()
            server.close()
            used.append(accounts.report("openweather").windows[0].used)
    # The second finds nobody.
    assert used == [1, 1]


def test_too_slow(api_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = failure(api_settings.model_copy(update={"openweather_url": url}))
    assert "did not answer in time" in str(error)


def test_coordinates_are_looked_up_once_and_kept(httpserver: HTTPServer, api_settings: Settings) -> None:
    httpserver.expect_request("/v1/search").respond_with_json(
        {
            "results": [
                {"name": "Paris", "latitude": 33.66, "longitude": -95.56, "country_code": "US"},
                {"name": "Paris", "latitude": 48.85341, "longitude": 2.3488, "country_code": "FR"},
            ]
        }
    )
    for _ in range(2):
        coordinates = Coordinates(api_settings, Api())
        assert coordinates.locate(Place("Paris", "FR")) == Place("Paris", "FR", 48.85341, 2.3488)
    assert len(httpserver.log) == 1
    assert coordinates.locate(Place("X", "XX", 1.0, 2.0)) == Place("X", "XX", 1.0, 2.0)
    with pytest.raises(UsageError, match="The place 'Paris,DE' is unknown"):
        coordinates.locate(Place("Paris", "DE"))
    assert [file.name for file in (api_settings.meteo_state_dir or Path()).iterdir()] == ["coordinates.json"]


def test_a_spoiled_file_of_coordinates_is_looked_up_again(httpserver: HTTPServer, api_settings: Settings) -> None:
    directory = api_settings.meteo_state_dir or Path()
    directory.mkdir()
    (directory / "coordinates.json").write_text('{"Paris,FR": [48.8')
    httpserver.expect_request("/v1/search").respond_with_json({"generationtime_ms": 0.5})
    with pytest.raises(UsageError, match="unknown"):
        Coordinates(api_settings, Api()).locate(Place("Paris", "FR"))
