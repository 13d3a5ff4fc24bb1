"""The settings of every service, from flags, then the environment, then `.env`, then the stack's own file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from meteo_common.allowances import Budget, parse_allowances
from meteo_common.durations import Seconds
from meteo_common.errors import UsageError
from meteo_common.places import Place, parse_places

HOME_OF_ROOT = Path("/var/lib/meteo")


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected a base URL such as https://api.example.org")
    return value.rstrip("/")


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("expected the name of a time zone, such as Europe/Paris") from None
    return value


def _places(value: str) -> str:
    parse_places(value)
    return value


def _allowances(value: str) -> str:
    parse_allowances(value)
    return value


def _bootstrap(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("expected host:port, several separated by commas")
    return value


BaseUrl = Annotated[str, AfterValidator(_base_url)]
AllowanceText = Annotated[str, AfterValidator(_allowances)]


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals; `docs/settings.md` explains them."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True)

    bootstrap_servers: Annotated[str, AfterValidator(_bootstrap)] = Field("127.0.0.1:9092", description="Kafka")
    topic_name: str = Field("weather-api", description="the core's topic", pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    database_url: SecretStr = Field(
        SecretStr("postgresql://meteo@127.0.0.1:5432/weatherdb"), description="PostgreSQL, a libpq URL"
    )
    hdfs_url: BaseUrl = Field("http://127.0.0.1:9870", description="WebHDFS")
    hdfs_base_path: str = Field("/user/hdfs/weather", description="where the days lie", pattern=r"^/[^:]*[^/:]$")
    hdfs_user: str = Field("hdfs", description="as whom HDFS is written")
    hbase_enabled: bool = Field(default=True, description="off = the batch tier works without HBase")
    hbase_host: str = Field("127.0.0.1", description="HBase Thrift, host")
    hbase_port: int = Field(9091, description="HBase Thrift, port", ge=1, le=65535)
    hbase_table: str = Field("weather", description="HBase's table", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    mr_process_only_today: bool = Field(default=False, description="bare `aggregate` = today's partition only")
    bad_lines_limit: float = Field(
        0.01, description="share of bad lines in HDFS above which a job publishes nothing", ge=0, le=1
    )
    weather_timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        "Europe/Paris", description="the day of a dt= partition, and how PostgreSQL shows times"
    )
    city: Annotated[str, AfterValidator(_places)] = Field(
        "Paris,FR", description="places, `Name,CC` or `Name,CC@latitude,longitude`, separated by `;`"
    )
    produce_every: Seconds = Field(600, description="polls of the current weather", validate_default=False)
    forecast_every: Seconds = Field(3600, description="polls of forecast and air quality", validate_default=False)
    fallback: str = Field(
        "none", description="what answers when the source cannot: `none`, or a source", pattern=r"^[a-z-]+$"
    )
    openweather_api_key: SecretStr | None = Field(None, description="key of OpenWeather")
    visual_crossing_api_key: SecretStr | None = Field(None, description="key of Visual Crossing")
    open_meteo_budget: Annotated[AllowanceText, Budget("Open-Meteo", "weighted calls")] = Field(
        "600/1m;5000/1h;10000/1d",
        description="weighted calls that Open-Meteo allows one address, `AMOUNT/DURATION;…`, or `none`",
    )
    openweather_budget: Annotated[AllowanceText, Budget("OpenWeather", "calls")] = Field(
        "60/1m;1000000/30d", description="calls that the key of OpenWeather may make"
    )
    visual_crossing_budget: Annotated[AllowanceText, Budget("Visual Crossing", "records")] = Field(
        "1000/1d", description="records (queryCost) that the key of Visual Crossing may read"
    )
    raw_responses_days: int = Field(30, description="days that refused answers are kept", ge=1)
    simulation_seed: int = Field(1, description="which weather the simulation makes")
    openweather_url: BaseUrl = Field("https://api.openweathermap.org", description="OpenWeather")
    visual_crossing_url: BaseUrl = Field("https://weather.visualcrossing.com", description="Visual Crossing")
    open_meteo_url: BaseUrl = Field("https://api.open-meteo.com", description="Open-Meteo, forecast")
    open_meteo_archive_url: BaseUrl = Field("https://archive-api.open-meteo.com", description="Open-Meteo, past days")
    open_meteo_air_quality_url: BaseUrl = Field(
        "https://air-quality-api.open-meteo.com", description="Open-Meteo, air quality"
    )
    open_meteo_geocoding_url: BaseUrl = Field(
        "https://geocoding-api.open-meteo.com", description="Open-Meteo, coordinates of places"
    )
    consumer_instance: str | None = Field(
        None, description="this consumer's lasting name in its group; a restart under it moves no partition"
    )
    hadoop_conf_dir: Path | None = Field(None, description="configuration of the YARN client")
    hadoop_classpath_jars: Path | None = Field(None, description="directory of the YARN client's jars")
    meteo_state_dir: Path | None = Field(None, description="where a service keeps what it looked up")
    meteo_stack_file: Path | None = Field(
        None, description="the stack's index, as JSON, for the page: its services and links; none = the stack's own"
    )
    meteo_listen_address: str = Field("127.0.0.1", description="where a service listens for its page and /metrics")
    meteo_page_port: int = Field(8000, description="port of the page and its API", ge=1, le=65535)
    meteo_metrics_port: int | None = Field(None, description="port of /metrics and /healthz", ge=1, le=65535)

    @property
    def metrics_listener(self) -> tuple[str, int] | None:
        """Address and port of /metrics and /healthz; None for a command that has none."""
        return (self.meteo_listen_address, self.meteo_metrics_port) if self.meteo_metrics_port else None

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose calendar date is a day's `dt=`."""
        return ZoneInfo(self.weather_timezone)

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of CITY."""
        return parse_places(self.city)


def meteo_home() -> Path:
    """Return the directory of everything that is not in the checkout."""
    if value := os.environ.get("METEO_HOME"):
        return Path(value)
    return HOME_OF_ROOT if os.geteuid() == 0 else home_of_person()


def home_of_person() -> Path:
    """Return that directory as it is for everyone but root."""
    return project_root() / ".meteo"


def project_root() -> Path:
    """Return the checkout: METEO_PROJECT, set by the launcher, or the working directory."""
    return Path(os.environ.get("METEO_PROJECT") or Path.cwd())


def stack_name() -> str:
    """Return the name of the stack that is spoken to."""
    return os.environ.get("METEO_STACK") or "meteo"


def stack_directory(name: str | None = None) -> Path:
    """Return the state directory of a stack."""
    return meteo_home() / "stacks" / (name or stack_name())


def setting_files() -> tuple[Path, Path]:
    """Return the files that settings come from, the weaker one first: the stack's, the user's."""
    return stack_directory() / "settings.env", project_root() / ".env"


def load_settings(**flags: Any) -> Settings:
    """Return the settings in force; `flags` that are not None win over everything.

    Raises UsageError naming the first wrong setting, its value (unless secret) and what was expected.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    readable = tuple(path for path in setting_files() if os.access(path, os.R_OK))
    try:
        return _from_files(readable)(**given)
    except ValidationError as error:
        raise UsageError(_sentence(error)) from None


def _from_files(files: tuple[Path, ...]) -> type[Settings]:
    class FileSettings(Settings):
        model_config = SettingsConfigDict(env_file=files)

    return FileSettings


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]).upper()
    shown = "" if "KEY" in name or name == "DATABASE_URL" else f" is '{first['input']}'"
    expected = first["msg"].removeprefix("Value error, ")
    return f"The setting {name}{shown}: {expected[0].lower()}{expected[1:]}."
