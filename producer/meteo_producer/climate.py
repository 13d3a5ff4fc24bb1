"""Invented weather of a place: a pure function of (seed, coordinates, time), whatever was asked before.

Each whole hour has its state; between two hours everything is interpolated. The state is made of
- the sun: declination and hour angle give the season, the day and its length;
- pressure systems: smooth noise that moves east by 10° a day, so that neighbours share their weather; low pressure
  brings clouds, wind and rain;
- local noise: clouds, showers, and thunderstorms where it is warm.
Humidity and apparent temperature follow from temperature, dew point and wind by the usual formulas.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

HOUR = 3600
DAY = 86400
YEAR = 365.2425 * DAY
MARCH_EQUINOX = 6_808_500
"""1970-03-20T19:15Z as unix time."""
WARMEST = MARCH_EQUINOX + 122 * DAY
"""20 July: on average a month after the June solstice."""
TILT = math.radians(23.44)
SUN_AT_HORIZON = math.sin(math.radians(-0.833))
"""Sine of the elevation at which its upper edge rises: refraction and half its width."""
DEGREES_EAST_A_HOUR = 10 / 24
MASK = 2**64 - 1
JITTERS = 1024


class Hour(NamedTuple):
    """The state of the air at a whole hour; the units are those of the message's observation.

    `rain` is that of the hour that ends here. `direction` may leave 0…360, so that it can be interpolated.
    """

    temperature: float
    apparent: float
    humidity: float
    pressure: float
    wind: float
    gust: float
    direction: float
    cloud: float
    visibility: float
    rain: float
    storm: bool


Values = tuple[float, float, float, float, float, float, float, float, float, float]
"""An observation in the order of `Hour`'s fields, rounded as an instrument would give it."""


class Noise:
    """Smooth noise between −1 and 1 over hours, with a new random value every `period` hours."""

    def __init__(self, seed: int, period: float) -> None:
        self._seed = seed
        self._rate = 1 / period
        self._index = -1
        self._from = self._rise = 0.0

    def at(self, hours: float) -> float:
        """Return the noise at a time in hours; the two values around it are remembered for the next call."""
        position = hours * self._rate
        index = math.floor(position)
        if index != self._index:
            self._index = index
            self._from = random_at(self._seed, index)
            self._rise = random_at(self._seed, index + 1) - self._from
        part = position - index
        return self._from + self._rise * (part * part * (3 - 2 * part))


class Climate:
    """The weather of one place, for one seed."""

    def __init__(self, seed: int, latitude: float, longitude: float) -> None:
        self._longitude = longitude
        radians = math.radians(latitude)
        self._sin, self._cos = math.sin(radians), math.cos(radians)
        own = digest(f"{seed}:{latitude:.4f},{longitude:.4f}")
        # Systems of the hemisphere, in two belts that mix with latitude; the rest is the place's own.
        belts = [digest(f"{seed}:{name}:{latitude >= 0}") for name in ("north", "south")]
        self._pressures = [Noise(belt, 62.0) for belt in belts]
        self._warmths = [Noise(belt ^ 1, 90.0) for belt in belts]
        self._mix = 0.5 + 0.5 * math.sin(latitude / 8)
        self._ripple, self._clouds, self._showers, self._storms, self._veer = (
            Noise(own ^ channel, period) for channel, period in ((2, 19.0), (3, 9.0), (4, 3.0), (5, 5.0), (6, 30.0))
        )
        self._jitter_from = own % JITTERS
        self._jitters = _jitters(seed)
        # About 13 °C in Paris, 27 at the equator, −18 at the poles; the year's swing is 8 °C in Paris, 15 at the poles.
        squared = self._sin**2
        local = random_at(own, 0)
        self._mean = 27.5 - 16 * squared - 30 * squared**3 + 2 * local
        self._swing = (0.5 + 9 * abs(self._sin) + 6 * squared**3) * (1 + 0.15 * random_at(own, 1))
        self._swing = math.copysign(self._swing, latitude)
        self._restless = 0.25 + 0.75 * min(1.0, abs(latitude) / 45)
        self._known: dict[int, Hour] = {}

    def hour(self, number: int) -> Hour:
        """Return the state at `number` hours since 1970."""
        known = self._known.get(number)
        if known is None:
            if len(self._known) > 200:
                self._known.clear()
            known = self._known[number] = self._compute(number)
        return known

    def at(self, seconds: int) -> Values:
        """Return what is measured at a unix time."""
        number, rest = divmod(seconds, HOUR)
        return self.between(self.hour(number), self.hour(number + 1), rest / HOUR, seconds)

    def between(self, a: Hour, b: Hour, part: float, seconds: int) -> Values:
        """Return what is measured between two hours, with the noise of the instruments at that unix time."""
        floor = math.floor
        jitter = self._jitters[(seconds // 60 * 7 + self._jitter_from) % JITTERS]
        wind = floor((a.wind + (b.wind - a.wind) * part) * 10 + 0.5) / 10
        gust = floor((a.gust + (b.gust - a.gust) * part) * (10 + 2 * jitter) + 0.5) / 10
        return (
            floor((a.temperature + (b.temperature - a.temperature) * part + jitter * 0.15) * 10 + 0.5) / 10,
            floor((a.apparent + (b.apparent - a.apparent) * part + jitter * 0.15) * 10 + 0.5) / 10,
            floor(a.humidity + (b.humidity - a.humidity) * part + 0.5) / 1,
            floor((a.pressure + (b.pressure - a.pressure) * part) * 10 + 0.5) / 10,
            wind,
            gust if gust > wind else wind,
            floor(a.direction + (b.direction - a.direction) * part + jitter * 8 + 0.5) % 360 / 1,
            floor(a.cloud + (b.cloud - a.cloud) * part + 0.5) / 1,
            floor((a.visibility + (b.visibility - a.visibility) * part) / 100 + 0.5) * 100.0,
            floor((a.rain + (b.rain - a.rain) * part) * 10 + 0.5) / 10,
        )

    def sun(self, seconds: int) -> tuple[int | None, int | None]:
        """Return sunrise and sunset as unix times, of the day by the place's own noon; None on polar days."""
        noon = (math.floor(seconds / DAY + self._longitude / 360) + 0.5 - self._longitude / 360) * DAY
        declination = self._declination(noon)
        denominator = self._cos * math.cos(declination)
        if denominator < 1e-9:
            return None, None
        cosine = (SUN_AT_HORIZON - self._sin * math.sin(declination)) / denominator
        if not -1 < cosine < 1:
            return None, None
        half = math.acos(cosine) / (2 * math.pi) * DAY
        return math.floor(noon - half), math.floor(noon + half)

    def _declination(self, seconds: float) -> float:
        return TILT * math.sin((seconds - MARCH_EQUINOX) / YEAR * 2 * math.pi)

    def _compute(self, number: int) -> Hour:
        seconds = number * HOUR
        moved = number - self._longitude / DEGREES_EAST_A_HOUR
        mix = self._mix
        low = mix * self._pressures[0].at(moved) + (1 - mix) * self._pressures[1].at(moved)
        low = (low + 0.3 * self._ripple.at(number)) * self._restless
        warmth = mix * self._warmths[0].at(moved) + (1 - mix) * self._warmths[1].at(moved)
        cover = min(1.0, max(0.0, 0.5 - 0.55 * low + 0.65 * self._clouds.at(number)))

        declination = self._declination(seconds)
        sines, cosines = self._sin * math.sin(declination), self._cos * math.cos(declination)
        solar = (number / 24 + self._longitude / 360) * 2 * math.pi
        # The warmest hour is 3 hours after noon; clouds keep the day cool and the night mild.
        day = max(0.0, sines + cosines) * (5.5 - 3.5 * cover) * math.cos(solar - math.pi - math.pi / 4)
        season = self._mean + self._swing * math.cos((seconds - WARMEST) / YEAR * 2 * math.pi)
        base = season + 4.5 * warmth * self._restless
        temperature = min(50.0, max(-70.0, base + day))

        rain, storm = self._rain(number, cover, temperature)
        dew = min(temperature, base - 1.0 - 6.0 * (1 - cover) + min(2.0, rain))
        humidity = min(100.0, max(8.0, 100 * _vapour(dew) / _vapour(temperature)))
        wind = 1.0 + (2.2 - 3.2 * low) * (0.6 + 0.4 * self._restless) + 0.12 * max(0.0, day)
        wind = max(0.1, wind + (5.0 if storm else 0.0))
        return Hour(
            temperature=temperature,
            # Steadman's, as the Australian Bureau of Meteorology uses it: T + 0.33 e − 0.70 v − 4.00.
            apparent=temperature + 0.33 * humidity / 100 * _vapour(temperature) - 0.7 * wind - 4.0,
            humidity=humidity,
            pressure=1014.0 + 22.0 * low,
            wind=wind,
            gust=wind * 1.45 + (8.0 if storm else 0.0),
            direction=245.0 + 75.0 * self._veer.at(number) - 50.0 * low,
            cloud=100.0 * cover,
            visibility=max(300.0, 34_000.0 - 220.0 * max(0.0, humidity - 40) - 1900.0 * min(9.0, rain)),
            rain=rain,
            storm=storm,
        )

    def _rain(self, number: int, cover: float, temperature: float) -> tuple[float, bool]:
        """Return the hour's mm and whether it thunders: thick clouds rain, and where it is warm, some hours storm."""
        wet = cover - 0.72 + 0.35 * self._showers.at(number)
        # Warm air holds more water: 7 % more a degree (Clausius–Clapeyron).
        rain = 2.5 * wet * wet * math.exp(0.045 * (temperature - 10)) if wet > 0.15 else 0.0
        storm = temperature > 17.0 and cover > 0.75 and self._storms.at(number) > 0.85
        return (rain + 5.0 + 4.0 * cover if storm else rain), storm


def describe(a: Hour, b: Hour) -> str:
    """Return the condition of the hour between `a` and `b`."""
    if b.storm:
        return "thunderstorm"
    if b.rain >= 0.05:
        kind = "snow" if b.temperature < 0.8 else "rain"
        return f"light {kind}" if b.rain < 0.5 else f"moderate {kind}" if b.rain < 4 else f"heavy {kind}"
    if b.visibility < 1000 or (a.humidity > 98.5 and a.wind < 2):
        return "fog"
    names = ((12.5, "clear sky"), (37.5, "few clouds"), (62.5, "scattered clouds"), (87.5, "broken clouds"))
    return next((name for limit, name in names if a.cloud < limit), "overcast clouds")


def digest(text: str) -> int:
    """Return 64 bits of a text, the same in every process (Python's own hash is not)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def random_at(seed: int, index: int) -> float:
    """Return a number between −1 and 1 for (seed, index), by the mixer of SplitMix64 (Steele, Lea, Flood 2014)."""
    mixed = (seed + index * 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return (mixed ^ (mixed >> 31)) / 2**63 - 1


def _vapour(celsius: float) -> float:
    """Return the saturation vapour pressure in hPa (Magnus, coefficients of Sonntag 1990)."""
    return 6.112 * math.exp(17.62 * celsius / (243.12 + celsius))


@lru_cache(maxsize=8)
def _jitters(seed: int) -> tuple[float, ...]:
    return tuple(random_at(digest(f"{seed}:jitter"), index) for index in range(JITTERS))
