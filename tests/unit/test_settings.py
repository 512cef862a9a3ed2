"""Settings: environment over file over defaults, errors that name the setting, secrets that stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from graflow_celery.errors import ConfigError
from graflow_celery.settings import Settings, load_settings, mask_url


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("GRAFLOW_CELERY_"):
            monkeypatch.delenv(name)


def test_the_defaults_name_one_server_for_everything() -> None:
    settings = load_settings()
    assert settings.broker == settings.backend == settings.redis_url == "redis://127.0.0.1:6379/0"


def test_the_environment_beats_the_file_and_overrides_beat_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "graflow.toml"
    file.write_text('queue = "from-file"\nkey_prefix = "from-file"\nmax_losses = 7\n')
    monkeypatch.setenv("GRAFLOW_CELERY_CONFIG", str(file))
    monkeypatch.setenv("GRAFLOW_CELERY_QUEUE", "from-env")
    monkeypatch.setenv("GRAFLOW_CELERY_KEY_PREFIX", "from-env")
    settings = load_settings(key_prefix="given")
    assert (settings.max_losses, settings.queue, settings.key_prefix) == (7, "from-env", "given")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis_url", "http://nowhere"),
        ("heartbeat_interval", "0"),
        ("heartbeat_interval", "soon"),
        ("heartbeat_timeout", "1.0"),
        ("max_losses", "0"),
        ("key_prefix", "a{b}"),
        ("serializers", '["xml"]'),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"GRAFLOW_CELERY_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"Setting {name}.*GRAFLOW_CELERY_{name.upper()}"):
        load_settings()


def test_an_unknown_name_in_the_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "graflow.toml"
    file.write_text('qeue = "typo"\n')
    monkeypatch.setenv("GRAFLOW_CELERY_CONFIG", str(file))
    with pytest.raises(ConfigError, match="qeue"):
        load_settings()


def test_a_file_that_is_missing_or_broken_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFLOW_CELERY_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        load_settings()
    broken = tmp_path / "broken.toml"
    broken.write_text("queue = ")
    monkeypatch.setenv("GRAFLOW_CELERY_CONFIG", str(broken))
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_settings()


def test_nothing_that_is_printed_holds_a_password_or_the_secret() -> None:
    settings = Settings(
        redis_url="rediss://user:pa55word@host:6380/1",
        broker_url="amqp://user:pa55word@host//",
        result_backend="redis+socket:///tmp/s?password=pa55word&db=1",
        secret_key="pa55word",  # type: ignore[arg-type]
    )
    shown = settings.masked()
    assert shown["secret_key"] == "(set)"
    assert shown["redis_url"] == "rediss://user:***@host:6380/1"
    assert "pa55word" not in str(shown)
    assert "pa55word" not in repr(settings.secret_key)


def test_valkeys_own_scheme_reads_as_redis() -> None:
    assert Settings(redis_url="valkey://h:1").redis_url == "redis://h:1"
    assert Settings(redis_url="unix:///tmp/s").broker == "redis+socket:///tmp/s"
    assert Settings(redis_url="unix:///tmp/s?db=1").broker == "redis+socket:///tmp/s?virtual_host=1"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("unix:///tmp/s?db=1&password=x", "unix:///tmp/s?db=1&password=***"),
    ],
)
def test_masking_a_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked
