"""The answers of the API, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why there is no answer, in one sentence."""

    status: int
    title: str
    detail: str


class Station(BaseModel):
    """A place with its newest weather; units are in the names, null is what the provider did not say."""

    station_id: str
    city: str
    country: str | None
    latitude: float | None
    longitude: float | None
    source: str
    data_origin: str
    observed_at: str
    collected_at: str
    current: bool = Field(description="whether it was the weather of the time when it was collected")
    observation: dict[str, Any]
    air_quality: dict[str, Any] | None


class Stations(BaseModel):
    """Every place."""

    stations: list[Station]


class Observation(BaseModel):
    """The weather at one time; further fields are those of the message's `observation`."""

    model_config = ConfigDict(extra="allow")

    observed_at: str
    collected_at: str
    data_origin: str
    temperature_celsius: float | None = None
    air_quality_index: float | None = None
    air_quality_scale: str | None = None


class Observations(BaseModel):
    """Observations in the order of time."""

    model_config = ConfigDict(populate_by_name=True)

    station_id: str
    first: str = Field(alias="from")
    after: str = Field(alias="to")
    newest_observed_at: str
    more: bool = Field(description="whether older ones were left out, because of `limit`")
    observations: list[Observation]


class Aggregates(BaseModel):
    """Daily aggregates in the order of days; a line's fields are those of `aggregates.jsonl`."""

    station_id: str
    read_from: str
    more: bool = Field(description="whether older days were left out, because of `limit`")
    aggregates: list[dict[str, Any]]


class State(BaseModel):
    """The state of the pipeline; docs/page.md explains it."""

    model_config = ConfigDict(extra="allow")

    at: str
    fresh: bool
    sentence: str
    why: str
    remedy: str
    hop: str | None = Field(description="the first hop that is not ok")
    hops: list[dict[str, Any]]
    concerns: list[dict[str, str]] = Field(description="what is not well besides the hops, and what to do")
