"""Values as short text."""

from typing import Any

import pytest

from visionsweep.text import (
    counted,
    duration_text,
    first_line,
    is_masked,
    mask_passwords,
    masked,
    objective_text,
    params_text,
)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"optim.lr": 0.0031234567, "loss": "focal"}, "optim.lr=0.00312 loss=focal"),
        ({"a": 1e-05, "b": 12345.678, "c": 0.5, "d": 3}, "a=1e-5 b=12345.7 c=0.5 d=3"),
        ({"a": None, "b": True, "c": "x y"}, "a=null b=true c=x y"),
        ({}, ""),
    ],
)
def test_params_text(params: dict[str, Any], text: str) -> None:
    assert params_text(params) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93119, "0.9312"),
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (-0.000123456, "-0.0001235"),
        (61706.0, "61706"),
        (1234.5678, "1234.57"),
        (None, "-"),
    ],
)
def test_objective_text(value: float | None, text: str) -> None:
    assert objective_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 00 s"),
        (252, "4 min 12 s"),
        (7500, "2 h 05 min"),
        (2e5, "2 d 07 h"),
    ],
)
def test_duration_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counted() -> None:
    assert [counted(n, "trial") for n in (0, 1, 2000)] == ["0 trials", "1 trial", "2,000 trials"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:secret@lab/db", "postgresql://me:***@lab/db"),
        ("a 'https://x:p@y.z' b", "a 'https://x:***@y.z' b"),
        ("postgresql+psycopg://me:s@e:c@lab:5432/db", "postgresql+psycopg://me:***@lab:5432/db"),
        ("mysql://u:p/w:2@host/db", "mysql://u:***@host/db"),
        ("postgresql://u:p,w'x]@host/db", "postgresql://u:***@host/db"),
        ("[a=http://h:80,b='mysql://u:p@h/d',c=1]", "[a=http://h:80,b='mysql://u:***@h/d',c=1]"),
        ("http://u:a://b@host", "http://u:***@host"),
        ("uri=http\\://u\\:p@lab\\:9", "uri=http\\://u\\:***@lab\\:9"),  # as Hydra escapes it
        ("redis://:secret@host", "redis://:***@host"),
        ("['http://u:p@h','http://v:q@i']", "['http://u:***@h','http://v:***@i']"),
        ("https://token@lab, https://token:@lab", "https://***@lab, https://***@lab"),
        ("'postgresql:///d?sslpassword=s3c&a=b'", "'postgresql:///d?sslpassword=***&a=b'"),
        ("http://lab?access_token=s3c'x", "http://lab?access_token=***"),
        ("host=lab password=s3c dbname=d", "host=lab password=*** dbname=d"),
        ("http://u:${oc.env:PW,s3c}@lab", "http://u:***@lab"),  # a default is no secret's name
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    assert mask_passwords(text) == masked
    assert mask_passwords(masked) == masked
    assert is_masked(masked)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///a@b.db",
        "me@lab and no URL",
        "http://host:5000 and me@lab",
        "postgresql://me@lab/db",  # a database may need no password
        "http://${oc.env:USER}:${oc.env:PW}@lab?token=${oc.env:TOKEN}",
        "http://${oc.env:TOKEN}@lab",
        "model.num_tokens=3",
    ],
)
def test_text_without_a_password_stays(text: str) -> None:
    assert mask_passwords(text) == text
    assert not is_masked(text)


def test_masking_reaches_into_containers_and_errors() -> None:
    found = masked({"a": ["http://u:p@h", 1], "b": {"c": ("x", None)}})
    assert found == {"a": ["http://u:***@h", 1], "b": {"c": ["x", None]}}
    assert first_line(ValueError("no http://u:p@h\nmore")) == "no http://u:***@h"
