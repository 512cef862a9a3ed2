"""What a setting may be, as text from the environment and as it is."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest

from graflow_celery.errors import ConfigError
from graflow_celery.fields import Read, SecretStr, flag, listed, number, one_of, optional, secret, text, whole
from graflow_celery.settings import Settings

NAMES = one_of("auto", otherwise=whole(least=1, most=9))


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (text(), "", ""),
        (text(pattern="[a-c]+"), "abc", "abc"),
        (number(over=0), "0.5", 0.5),
        (number(over=0), 3, 3.0),
        (whole(least=0), "0", 0),
        (whole(least=0), " 7 ", 7),
        (whole(least=0), 7.0, 7),
        (flag, True, True),
        (flag, "false", False),
        (flag, "0", False),
        (flag, "YES", True),
        (NAMES, "auto", "auto"),
        (NAMES, "9", 9),
        (listed(text()), ["a"], ("a",)),
        (listed(text()), "a, b,", ("a", "b")),
        (listed(text()), '["a"]', ("a",)),
        (optional(secret), None, None),
    ],
    ids=itertools.count(),
)
def test_a_value_is_read(read: Read, value: Any, found: Any) -> None:
    assert read(value) == found
    assert type(read(value)) is type(found)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (text(), 1),
        (text(least=1), ""),
        (text(pattern="[a-c]+"), "abcd"),
        (text(pattern="[a-c]+"), "abc\n"),
        (number(over=0), "0"),
        (number(over=0), "nan"),
        (number(over=0), "soon"),
        (number(over=0), True),
        (whole(least=0), "1.5"),
        (whole(least=0), 1.5),
        (whole(least=0), float("inf")),
        (whole(least=0), "-1"),
        (whole(least=0, most=3), 4),
        (whole(least=0), True),
        (flag, "perhaps"),
        (flag, None),
        (NAMES, "10"),
        (NAMES, "never"),
        (listed(text()), 1),
        (listed(text()), "[1"),
        (secret, ""),
        (secret, 1),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_used_is_refused(read: Read, value: Any) -> None:
    with pytest.raises(ValueError, match=r"nput|tring|secret|list"):
        read(value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(max_losses=0, fuse="maybe", qeue="x")
    assert all(f"Setting {name} (" in str(caught.value) for name in ("max_losses", "fuse", "qeue"))


def test_settings_are_frozen_equal_by_value_and_travel() -> None:
    settings = Settings(secret_key="hidden", queue="one")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(Settings(secret_key="hidden", queue="one"))
    assert "hidden" not in repr(settings) + str(settings) + repr(settings.secret_key) + str(settings.secret_key)
    with pytest.raises(AttributeError, match="frozen"):
        settings.queue = "two"
    with pytest.raises(AttributeError, match="stays"):
        del settings.queue


def test_a_copy_is_checked_and_reads_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(queue="one")
    monkeypatch.setenv("GRAFLOW_CELERY_MAX_LOSSES", "7")
    copied = settings.model_copy(update={"queue": "two"})
    assert (copied.queue, copied.max_losses, settings.queue) == ("two", settings.max_losses, "one")
    with pytest.raises(ConfigError, match="max_losses"):
        settings.model_copy(update={"max_losses": 0})


def test_a_secret_of_pydantic_is_taken() -> None:
    from pydantic import SecretStr as Theirs

    key = Settings(secret_key=Theirs("hidden")).secret_key
    assert isinstance(key, SecretStr)
    assert key.get_secret_value() == "hidden"


def test_large_and_small_letters_are_the_same_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("graflow_celery_queue", "small")
    assert Settings().queue == "small"
