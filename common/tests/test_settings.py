"""Settings: where they come from, and the sentence that a wrong one earns."""

from __future__ import annotations

from pathlib import Path

import pytest

from meteo_common.errors import UsageError
from meteo_common.settings import Settings, load_settings


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a stack's settings, a user's `.env`, and nothing else."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("METEO_HOME", str(tmp_path))
    monkeypatch.setenv("METEO_PROJECT", str(tmp_path))
    monkeypatch.setenv("METEO_STACK", "this")
    folder = tmp_path / "stacks" / "this"
    folder.mkdir(parents=True)
    (folder / "settings.env").write_text(
        "TOPIC_NAME='of-the-stack'\nHDFS_USER='of-the-stack'\nCITY='Oslo,NO'\n", "utf-8"
    )
    (tmp_path / ".env").write_text("TOPIC_NAME=of-the-user\nHDFS_USER=of-the-user\n", "utf-8")
    return tmp_path


@pytest.mark.usefixtures("home")
def test_flags_win_over_the_environment_over_the_users_file_over_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPIC_NAME", "of-the-environment")
    monkeypatch.setenv("HBASE_TABLE", "")
    settings = load_settings(hbase_port="9999", city=None)
    assert settings.hbase_port == 9999
    assert (settings.topic_name, settings.hdfs_user, settings.city) == ("of-the-environment", "of-the-user", "Oslo,NO")
    assert settings.hbase_table == "weather"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CITY", "Paris", "The setting CITY is 'Paris': 'Paris' is not of the form Name,CC"),
        ("BOOTSTRAP_SERVERS", "kafka", "The setting BOOTSTRAP_SERVERS is 'kafka': expected host:port"),
        ("HDFS_URL", "hdfs://namenode:8020", "The setting HDFS_URL is 'hdfs://namenode:8020': expected a base URL"),
        ("OPEN_METEO_URL", "api.open-meteo.com", "expected a base URL such as https://"),
        ("HDFS_BASE_PATH", "weather/", "The setting HDFS_BASE_PATH is 'weather/': "),
        ("WEATHER_TIMEZONE", "Europe/Atlantis", "expected the name of a time zone, such as Europe/Paris."),
        ("HBASE_PORT", "many", "The setting HBASE_PORT is 'many': input should be a valid integer"),
        ("HBASE_ENABLED", "perhaps", "The setting HBASE_ENABLED is 'perhaps': input should be a valid boolean"),
        ("PRODUCE_EVERY", "0m", "The setting PRODUCE_EVERY is '0m': expected a whole number with a unit"),
        ("FALLBACK", "hope!", "The setting FALLBACK is 'hope!': string should match pattern"),
        ("METEO_METRICS_PORT", "0", "The setting METEO_METRICS_PORT is '0': "),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        load_settings()
    told = str(raised.value)
    assert says in told
    assert told.count("\n") == 0
    assert told.endswith(".")


@pytest.mark.usefixtures("home")
def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://meteo:secret@127.0.0.1/weatherdb")
    monkeypatch.setenv("OPENWEATHER_API_KEY", "secret")
    assert "secret" not in repr(load_settings())
