"""The command line: one sentence and an exit code for whatever is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner, Result

from meteo_producer.commands import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METEO_HOME", str(tmp_path))
    # Loggers keep the first stream they see: here that would be the runner's, which is closed after each command.
    monkeypatch.setattr("meteo_producer.commands.configure_logs", lambda *_, **__: None)
    monkeypatch.setenv("METEO_PROJECT", str(tmp_path))
    for name in ("CITY", "OPENWEATHER_API_KEY", "VISUAL_CROSSING_API_KEY", "FALLBACK", "BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[Result, str]:
    result = runner.invoke(app, ["produce", *arguments])
    return result, capfd.readouterr().err + result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--source", "bbc"],
            "The source 'bbc' is unknown; expected one of open-meteo, openweather, visual-crossing, ",
        ),
        (["--source", "openweather", "--once"], "set OPENWEATHER_API_KEY"),
        (["--source", "visual-crossing", "--once"], "set VISUAL_CROSSING_API_KEY"),
        (["--source", "simulation", "--from", "2025-01-01"], "give --from and --to"),
        (["--source", "simulation", "--from", "2025-01-01", "--to", "2025-01-02", "--feed", "forecast"], "leave out"),
        (["--city", "Paris", "--once"], "'Paris' is not of the form Name,CC"),
        (["--feed", "tides", "--once"], "The feed 'tides' is unknown; expected one of current, forecast, air_quality."),
        (["--source", "stored", "--from", "2025-01-01"], "--from and --to need a day each"),
        (["--source", "stored", "--feed", "forecast"], "stored answers are normalised once, and whole"),
        (["--once", "--every", "10m"], "--once and --every exclude each other"),
        (["--every", "often"], "--every 'often': expected a whole number with a unit"),
        (["--from", "2013-01-01", "--once"], "--from and --to select days of a recording"),
        (
            ["--source", "replay", "--from", "1.7.2013"],
            "--from '1.7.2013' is not a day; expected one such as 2013-07-01.",
        ),
        (["--source", "replay", "--from", "2013-08-01", "--to", "2013-07-01"], "is after --to 2013-07-01"),
        (["--source", "replay", "--from", "2014-08-01"], "Nothing of the recorded data set is selected"),
        (["--source", "replay", "--city", "Paris,FR"], "Nothing of the recorded data set is selected"),
        (["--source", "replay", "--every", "10m"], "replay is played once"),
    ],
)
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    result, output = run(capfd, *arguments)
    assert result.exit_code == 2
    assert sentence in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "openweather"], "'openweather' has no past days; expected one of open-meteo, visual-crossing."),
        (["--source", "visual-crossing"], "set VISUAL_CROSSING_API_KEY"),
        (["--to", "2100-01-01"], "--to 2100-01-01 is not over yet, or not yet known to open-meteo: its last whole day"),
        (["--from", "1939-12-31"], "no source knows weather before 1940; expected 1940-01-02 or later."),
        (["--from", "2025-04-13"], "--from 2025-04-13 is after --to 2025-04-12"),
        (["--from", "yesterday"], "--from 'yesterday' is not a day"),
        (["--from", ""], "--from and --to need a day each"),
        (["--city", "Paris"], "'Paris' is not of the form Name,CC"),
    ],
)
def test_wrong_usage_of_backfill(capfd: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    result = runner.invoke(app, ["backfill", "--from", "2025-03-10", "--to", "2025-04-12", *arguments])
    output = capfd.readouterr().err + result.output
    assert result.exit_code == 2
    assert sentence in output
    assert "Traceback" not in output


def test_wrong_url(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_METEO_URL", "ftp://nowhere")
    result, output = run(capfd, "--once")
    assert result.exit_code == 2
    assert "OPEN_METEO_URL" in output


def test_fallback_that_is_no_source(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLBACK", "hope")
    result, output = run(capfd, "--once")
    assert result.exit_code == 2
    assert "The setting FALLBACK is 'hope': expected none or one of open-meteo, openweather, visual-crossing" in output


def test_unknown_city(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/v1/search").respond_with_json({})
    monkeypatch.setenv("OPEN_METEO_GEOCODING_URL", httpserver.url_for(""))
    result, output = run(capfd, "--once", "--city", "Atlantis,GR")
    assert result.exit_code == 2
    assert "The place 'Atlantis,GR' is unknown" in output


def test_api_that_does_not_answer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_METEO_URL", "http://127.0.0.1:9")
    result, output = run(capfd, "--once", "--city", "Paris,FR@48.85,2.35")
    assert result.exit_code == 3
    assert "Open-Meteo at 127.0.0.1:9 cannot be reached" in output


def test_kafka_that_does_not_answer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTSTRAP_SERVERS", "127.0.0.1:9")
    started = time.monotonic()
    result, output = run(capfd, "--source", "replay", "--from", "2013-07-01", "--to", "2013-07-01")
    assert result.exit_code == 3
    assert time.monotonic() - started < 30
    assert "Kafka at 127.0.0.1:9 (BOOTSTRAP_SERVERS) does not answer" in output
