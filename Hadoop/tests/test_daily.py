"""The daily aggregates against values worked out by hand."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from weather_rows import assert_close, compute, expected, only, random_rows, row

from meteo_hadoop.daily import daily_job

FIELDS = [
    *("aggregate_version", "date", "station_id", "city", "country", "source", "observations"),
    *("temperature_avg_celsius", "temperature_min_celsius", "temperature_max_celsius"),
    *("precipitation_1h_sum_mm", "precipitation_3h_sum_mm", "aqi_avg", "aqi_scale"),
    *("humidity_avg_percent", "pressure_avg_hpa", "wind_speed_avg_mps", "wind_direction_mean_degrees"),
    *("first_observed_at", "last_observed_at"),
]


def rain(at: str, amount: float | None, **given: Any) -> bytes:
    return row(at, observation={"precipitation_1h_mm": amount}, **given)


def wind(at: str, speed: float | None, direction: float | None) -> bytes:
    return row(at, observation={"wind_speed_mps": speed, "wind_direction_degrees": direction})


def air(at: str, scale: str, index: float | None, measured: str) -> bytes:
    return row(at, air_quality={"scale": scale, "index": index, "observed_at": measured})


def forecast(at: str, *steps: tuple[str, int, float | None], **given: Any) -> bytes:
    return row(
        at,
        forecast=[{"valid_at": valid, "hours": hours, "precipitation_mm": mm} for valid, hours, mm in steps],
        **given,
    )


def test_the_fields_stand_in_the_order_of_the_design() -> None:
    fields = only(
        [
            row("2026-11-20T10:00:00Z", observation={"temperature_celsius": 7, "humidity_percent": 80}),
            row(
                "2026-11-20T11:00:00.120Z",
                observation={"temperature_celsius": 8.5, "pressure_hpa": 1016},
                city="Lutèce",
            ),
        ]
    )
    assert list(fields) == FIELDS
    assert fields == {
        **dict.fromkeys(FIELDS),
        "aggregate_version": 1,
        "date": "2026-11-20",
        "station_id": "test:A",
        "city": "Lutèce",
        "country": "FR",
        "source": "test",
        "observations": 2,
        "temperature_avg_celsius": 7.75,
        "temperature_min_celsius": 7.0,
        "temperature_max_celsius": 8.5,
        "humidity_avg_percent": 80.0,
        "pressure_avg_hpa": 1016.0,
        "first_observed_at": "2026-11-20T10:00:00Z",
        "last_observed_at": "2026-11-20T11:00:00.120000Z",
    }


def test_nothing_measured_is_null_not_zero() -> None:
    fields = only([row("2026-11-20T10:00:00Z", country=None)])
    assert fields["observations"] == 1
    assert [name for name in FIELDS if fields[name] is None] == [
        name for name in FIELDS if name.endswith(("celsius", "mm", "percent", "hpa", "mps", "degrees"))
        or name in {"country", "aqi_avg", "aqi_scale"}
    ]  # fmt: skip


def test_the_day_is_the_local_date() -> None:
    rows = [row("2026-11-19T22:59:59.999999Z"), row("2026-11-19T23:00:00Z"), row("2026-11-20T22:59:59Z")]
    found, _ = compute([*rows, row("2026-11-20T23:00:00Z")])
    assert [(item["date"], item["observations"]) for item in found] == [
        ("2026-11-19", 1),
        ("2026-11-20", 2),
        ("2026-11-21", 1),
    ]


def test_two_polls_in_one_hour_count_it_once_with_the_last_amount() -> None:
    assert (
        only([rain("2026-11-20T10:05:00Z", 1.0), rain("2026-11-20T10:55:00Z", 2.0)])["precipitation_1h_sum_mm"] == 2.0
    )
    later_null = [
        rain("2026-11-20T10:05:00Z", 1.0),
        rain("2026-11-20T10:55:00Z", None),
        rain("2026-11-20T11:00:00Z", 4),
    ]
    assert only(later_null)["precipitation_1h_sum_mm"] == 5.0


@pytest.mark.parametrize(
    ("first", "hours", "day"), [("2026-03-28T23", 23, "2026-03-29"), ("2026-10-24T22", 25, "2026-10-25")]
)
def test_the_short_day_has_23_hours_and_the_long_one_25(first: str, hours: int, day: str) -> None:
    start, hour = first.split("T")
    rows = []
    for number in range(hours):
        total = int(hour) + number
        at_day = date.fromisoformat(start).toordinal() + total // 24
        prefix = f"{date.fromordinal(at_day)}T{total % 24:02}"
        rows += [rain(f"{prefix}:00:00Z", 100), rain(f"{prefix}:59:59.999999Z", 1)]
    fields = only(rows)
    assert (fields["date"], fields["observations"]) == (day, 2 * hours)
    assert fields["precipitation_1h_sum_mm"] == hours


def test_hours_of_a_zone_half_an_hour_off_begin_at_the_half_hours_of_utc() -> None:
    # 10:29Z is 15:59 in Kolkata, 10:30Z is 16:00.
    rows = [rain("2026-11-20T10:29:59Z", 1), rain("2026-11-20T10:30:00Z", 10), rain("2026-11-20T11:29:59Z", 20)]
    assert only(rows, "Asia/Kolkata")["precipitation_1h_sum_mm"] == 21.0
    # The day ends at 18:30Z.
    found, _ = compute([row("2026-11-20T18:29:59Z"), row("2026-11-20T18:30:00Z")], daily_job("Asia/Kolkata", None))
    assert [item["date"] for item in found] == ["2026-11-20", "2026-11-21"]


def test_half_an_hour_of_summer_time_makes_two_hours_of_one_name() -> None:
    # Lord Howe, 2026-04-05: at 02:00 (+11) clocks go back to 01:30 (+10:30). 01:45 comes twice, an hour each.
    rows = [rain("2026-04-04T14:45:00Z", 1), rain("2026-04-04T15:15:00Z", 10), rain("2026-04-04T15:30:00Z", 100)]
    assert only(rows, "Australia/Lord_Howe")["precipitation_1h_sum_mm"] == 111.0


def test_a_day_that_comes_back_after_midnight() -> None:
    # St. John's, 1990-10-28: at 00:01 (-2:30) clocks went back to 23:01 (-3:30) of the day before.
    found, _ = compute(
        [
            row("1990-10-28T02:29:00Z"),
            row("1990-10-28T02:30:30Z"),
            row("1990-10-28T02:31:00Z"),
            row("1990-10-28T03:31:00Z"),
        ],
        daily_job("America/St_Johns", None),
    )
    assert [(item["date"], item["observations"]) for item in found] == [("1990-10-27", 2), ("1990-10-28", 2)]


TIES = [
    # Instants, not texts: 12:00:03+02:00 is before 10:00:03.120Z, which is before 10:00:04Z.
    ({"collected_at": "2026-11-20T12:00:03+02:00"}, {"collected_at": "2026-11-20T10:00:03.120Z"}),
    ({"collected_at": "2026-11-20T10:00:03.120Z"}, {"collected_at": "2026-11-20T10:00:04Z"}),
    ({"normaliser_version": 9, "msg_offset": 5}, {"normaliser_version": 10, "msg_offset": 4}),
    ({"msg_offset": 5}, {"topic_generation": 2, "msg_offset": 4}),
    ({"partition": 9, "msg_offset": 5}, {"partition": 10, "msg_offset": 4}),
    ({"msg_offset": 9}, {"msg_offset": 10}),
]


@pytest.mark.parametrize(("loser", "winner"), TIES)
def test_of_several_messages_the_greater_wins_by_each_part_of_its_order(loser: dict, winner: dict) -> None:  # type: ignore[type-arg]
    at = "2026-11-20T10:00:00Z"
    one = row(at, observation={"temperature_celsius": 1}, **loser)
    two = row("2026-11-20T11:00:00+01:00", observation={"temperature_celsius": 2}, **({"collected_at": at} | winner))
    for rows in ([one, two], [two, one], [one, two, one]):
        fields = only(rows)
        assert (fields["observations"], fields["temperature_avg_celsius"]) == (1, 2.0)


def test_the_wind_is_a_vector_mean_weighted_by_speed() -> None:
    at = [f"2026-11-20T{hour}:00:00Z" for hour in (10, 11, 12, 13)]
    assert only([wind(at[0], 1, 350), wind(at[1], 1, 10)])["wind_direction_mean_degrees"] == pytest.approx(0, abs=1e-9)
    assert only([wind(at[0], 3, 0), wind(at[1], 3, 90)])["wind_direction_mean_degrees"] == pytest.approx(45)
    fields = only([wind(at[0], 1, 0), wind(at[1], 3**0.5, 90), wind(at[2], None, 180), wind(at[3], 9, None)])
    assert fields["wind_direction_mean_degrees"] == pytest.approx(60)
    assert fields["wind_speed_avg_mps"] == pytest.approx((1 + 3**0.5 + 9) / 3)
    direction = only([wind(at[0], 1, 359.9999999999999999)])["wind_direction_mean_degrees"]
    assert 0 <= direction < 360


@pytest.mark.parametrize("winds", [[(5, 0), (5, 180)], [(0, 90), (0, 10)], [(None, 90), (5, None)]])
def test_winds_that_cancel_have_no_direction(winds: list[tuple[float | None, float | None]]) -> None:
    rows = [wind(f"2026-11-20T1{hour}:00:00Z", *one) for hour, one in enumerate(winds)]
    assert only(rows)["wind_direction_mean_degrees"] is None


def test_forecasts_of_three_hours_count_once_per_time_with_the_latest_amount() -> None:
    fields = only(
        [
            forecast("2026-11-20T09:00:00Z", ("2026-11-20T12:00:00Z", 3, 1), ("2026-11-20T15:00:00Z", 3, 10)),
            forecast("2026-11-20T10:00:00Z", ("2026-11-20T13:00:00+01:00", 3, 2), ("2026-11-20T15:00:00Z", 3, None)),
            # Of one hour; of the day before and after, by the local calendar.
            forecast("2026-11-20T11:00:00Z", ("2026-11-20T12:00:00Z", 1, 50), ("2026-11-20T23:00:00Z", 3, 60)),
            forecast("2026-11-20T11:10:00Z", ("2026-11-19T22:59:59Z", 3, 70), ("2026-11-19T23:00:00Z", 3, 100)),
        ]
    )
    assert fields["precipitation_3h_sum_mm"] == 112.0


def test_a_message_that_lost_does_not_forecast() -> None:
    lost = forecast("2026-11-20T09:00:00Z", ("2026-11-20T12:00:00Z", 3, 1))
    won = row("2026-11-20T09:00:00Z", collected_at="2026-11-20T10:00:00Z")
    assert only([won, lost])["precipitation_3h_sum_mm"] is None


def test_air_quality_counts_once_per_its_own_time() -> None:
    fields = only(
        [
            air("2026-11-20T10:00:00Z", "openweather", 1, "2026-11-20T09:00:00Z"),
            air("2026-11-20T10:10:00Z", "openweather", 3, "2026-11-20T10:00:00+01:00"),
            air("2026-11-20T10:20:00Z", "openweather", None, "2026-11-20T09:00:00Z"),
            air("2026-11-20T11:00:00Z", "openweather", 4, "2026-11-20T11:00:00Z"),
        ]
    )
    assert (fields["aqi_avg"], fields["aqi_scale"]) == (3.5, "openweather")


def test_of_several_scales_the_last_one_counts() -> None:
    fields = only(
        [
            air("2026-11-20T10:00:00Z", "openweather", 1, "2026-11-20T09:00:00Z"),
            air("2026-11-20T11:00:00Z", "european", 40, "2026-11-20T10:00:00Z"),
            air("2026-11-20T12:00:00Z", "european", 60, "2026-11-20T11:00:00Z"),
            air("2026-11-20T13:00:00Z", "openweather", None, "2026-11-20T12:00:00Z"),
        ]
    )
    assert (fields["aqi_avg"], fields["aqi_scale"]) == (50.0, "european")


BAD = [
    (b"", "bad_json"),
    (b"{", "bad_json"),
    (b"\xff\xfe", "bad_json"),
    (b"[1]", "bad_row"),
    (b"{}", "bad_row"),
    (row("2026-11-20T10:00:00Z", station="Nowhere"), "bad_station"),
    (row("2026-11-20T10:00:00Z", station="test:a b"), "bad_station"),
    (row("2026-11-20T10:00:00Z", collected_at="yesterday"), "bad_row"),
    (row("2026-11-20T10:00:00Z", collected_at="2026-11-20T10:00:00"), "bad_row"),
    (row("2026-11-20T10:00:00Z", observation={"temperature_celsius": "7"}), "bad_row"),
    (row("2026-11-20T10:00:00Z", observation={"temperature_celsius": True}), "bad_row"),
    (row("2026-11-20T10:00:00Z", partition=0.5), "bad_row"),
    (row("2026-11-20T10:00:00Z", forecast=None), "bad_row"),
    (row("2026-11-20T10:00:00"), "bad_row"),
    (row("2026-13-20T10:00:00Z", collected_at="2026-11-20T10:00:00Z"), "bad_time"),
    (row("2026-11-20T24:00:00Z", collected_at="2026-11-20T10:00:00Z"), "bad_time"),
    (row("2026-11-20T10:00:60Z", collected_at="2026-11-20T10:00:00Z"), "bad_time"),
    (row("0001-01-01T00:00:00+14:00", collected_at="2026-11-20T10:00:00Z"), "bad_time"),
    (row("2026-11-20T10:00:00Z", observation={"temperature_celsius": 1}).replace(b" 1}", b" NaN}"), "bad_json"),
    (row("2026-11-20T10:00:00Z", observation={"temperature_celsius": 1}).replace(b" 1}", b" 1e999}"), "bad_row"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_counted_by_its_reason_and_fails_nothing(line: bytes, reason: str) -> None:
    found, counters = compute([line, row("2026-11-20T10:00:00Z")])
    assert [item["observations"] for item in found] == [1]
    assert counters == {"lines": 2, reason: 1}


def test_lines_of_other_days_than_asked_are_counted() -> None:
    job = daily_job("Europe/Paris", {date(2026, 11, 20)})
    found, counters = compute([row("2026-11-19T23:00:00Z"), row("2026-11-19T22:00:00Z")], job)
    assert [item["date"] for item in found] == ["2026-11-20"]
    assert counters == {"lines": 2, "bad_day": 1}


def test_a_negative_zero_is_a_zero() -> None:
    line = row("2026-11-20T10:00:00Z", observation={"temperature_celsius": -0.0, "precipitation_1h_mm": 0})
    fields = only([line])
    assert json.dumps([fields["temperature_avg_celsius"], fields["temperature_min_celsius"]]) == "[0.0, 0.0]"


@pytest.mark.parametrize("zone", ["Europe/Paris", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("start", ["2026-10-24T00:00:00Z", "2026-03-28T00:00:00Z", "2026-04-04T00:00:00Z"])
def test_random_rows_agree_with_the_plain_computation(zone: str, start: str) -> None:
    rows = random_rows(seed=len(zone), number=2000, start=start)
    found, counters = compute(rows, daily_job(zone, None))
    assert counters == {"lines": 2000}
    assert_close(found, expected(rows, zone))
