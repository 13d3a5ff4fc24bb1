"""What a support bundle masks: secrets that are known, wherever they stand, and others by what stands before them."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from types import ModuleType
from typing import get_args
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from meteo_common.settings import Settings

PATH = Path(__file__).parents[2] / "ansible" / "module_utils" / "masking.py"
SECRET = "s3kr/t &\"'ü+"
"""With what is written otherwise in an address, in JSON and in a shell."""


@pytest.fixture(scope="module")
def masking() -> ModuleType:
    spec = importlib.util.spec_from_file_location("masking", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_known_secret_is_found_in_each_of_its_forms(masking: ModuleType) -> None:
    forms = [SECRET, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], shlex.quote(SECRET), repr([SECRET])[2:-2]]
    text = masking.Masks([SECRET, "short-one", "short-one-and-more"])("\n".join([*forms, "short-one-and-more"]))
    assert text.splitlines() == [masking.MASK] * (len(forms) + 1)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://meteo:geheim@127.0.0.1:5432/weatherdb", "postgresql://********@127.0.0.1:5432/weatherdb"),
        ("see http://a:b@c@proxy.example:3128/x", "see http://********@proxy.example:3128/x"),
        ("host=db password=geheim dbname=w", "host=db password=******** dbname=w"),
        ("PGPASSWORD='ge heim' psql", "PGPASSWORD='********' psql"),
        ('{"api_key": "a\\"b", "x": 1}', '{"api_key": "********", "x": 1}'),
        ("https://api.example/v1?q=Paris&appid=0123abc&units=metric", "https://api.example/v1?q=Paris&appid=********&units=metric"),
        ("GET /timeline?key=ABC HTTP/1.1", "GET /timeline?key=******** HTTP/1.1"),
        ("Authorization: Basic bWV0ZW8=", "Authorization: Basic ********"),
        ("ALTER ROLE meteo PASSWORD 'geheim'", "ALTER ROLE meteo PASSWORD '********'"),
        (
            "<name>ssl.server.keystore.password</name><value>geheim</value>",
            "<name>ssl.server.keystore.password</name><value>********</value>",
        ),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(masking: ModuleType, text: str, masked: str) -> None:
    assert masking.Masks([])(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "sasl.jaas.config = null, ssl.key.password = null",
        '"secrets_file": "/var/lib/meteo/stacks/meteo/secrets.yml"',
        "weather-api 1/0: 8706 records",
        "key=station, value=replay:JFK",
        "the password belongs to the data; mail me@example.org",
    ],
)
def test_the_rest_stays_as_it_is(masking: ModuleType, text: str) -> None:
    assert masking.Masks(["", "abc"])(text) == text


def test_only_values_that_may_be_shown_are(masking: ModuleType) -> None:
    text = f"CITY='Oslo,NO'\n# A_KEY=old\nexport OPENWEATHER_API_KEY=new\nOTHER={shlex.quote(SECRET)}\nCITY2=\n"
    shown = masking.shown_values(text, {"CITY", "OPENWEATHER_API_KEY"})
    assert shown == "CITY=Oslo,NO\nOPENWEATHER_API_KEY=********\nOTHER=********\nCITY2=\n"


def test_secrets_of_a_structure_are_found_by_their_names(masking: ModuleType) -> None:
    tree = {
        "alertmanager_webhook_url": "https://hooks.example.org/T0K3N",
        "alertmanager_receiver": {
            "telegram_configs": [{"bot_token": "123:ABC", "chat_id": -1001}],
            "webhook_configs": [{"url": "https://x.example", "http_config": {"headers": {"X-Team": "blue-42"}}}],
            "pushover_configs": [{"user_key": 99887766, "send_resolved": True}],
        },
        "bind_address": "127.0.0.1",
        "proxy": "http://me:word%21@proxy.example:3128",
    }
    found = set(masking.secrets_in_tree(tree))
    wanted = {
        "https://hooks.example.org/T0K3N",
        "123:ABC",
        "https://x.example",
        "blue-42",
        "99887766",
        "word!",
        "word%21",
    }
    assert wanted <= found
    assert not {"127.0.0.1", "-1001", "True"} & found


def test_each_secret_setting_is_known_for_one(masking: ModuleType) -> None:
    secret = [
        name.upper()
        for name, field in Settings.model_fields.items()
        if SecretStr in {field.annotation, *get_args(field.annotation)}
    ]
    assert len(secret) > 2
    for name in secret:
        value = "postgresql://meteo:geheim@db/weatherdb" if name == "DATABASE_URL" else "geheim"
        assert "geheim" in set(masking.secrets_of(name, value)), name
