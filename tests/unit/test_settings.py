"""Settings: environment over file over defaults, errors that name the setting, secrets that stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from graflow_celery.errors import ConfigError
from graflow_celery.settings import Settings, celery_url, load_settings, mask_url, sentinel_of


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
        ("serializers", "json,xml"),
        ("serializers", "[]"),
        ("serializers", '["json"'),
        ("secret_key", ""),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"GRAFLOW_CELERY_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"Setting {name}.*GRAFLOW_CELERY_{name.upper()}"):
        load_settings()


@pytest.mark.parametrize("text", ["json,msgpack", " json , msgpack ", '["json", "msgpack"]'])
def test_a_list_is_json_or_has_commas(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GRAFLOW_CELERY_SERIALIZERS", text)
    monkeypatch.setenv("GRAFLOW_CELERY_SECRET_KEY", "new")
    monkeypatch.setenv("GRAFLOW_CELERY_SECRET_KEYS_ACCEPTED", text)
    settings = load_settings()
    assert settings.serializers == ("json", "msgpack")
    assert [secret.get_secret_value() for secret in settings.secret_keys_accepted] == ["json", "msgpack"]


def test_a_wrong_serializer_is_told_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFLOW_CELERY_SERIALIZERS", "json,yaml")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    text = "Setting serializers.1 (GRAFLOW_CELERY_SERIALIZERS): Input should be 'json', 'msgpack' or 'pickle'"
    assert str(caught.value) == text


@pytest.mark.parametrize("accepted", ["hidden-one,", '["hidden-one", ""]', '["hidden-one"', "[1]"])
def test_an_error_of_a_secret_does_not_tell_it(monkeypatch: pytest.MonkeyPatch, accepted: str) -> None:
    monkeypatch.setenv("GRAFLOW_CELERY_SECRET_KEYS_ACCEPTED", accepted)
    with pytest.raises(ConfigError, match="secret_keys_accepted") as caught:
        load_settings()
    assert "hidden" not in str(caught.value)


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
        secret_key="pa55word",
    )
    shown = settings.masked()
    assert shown["secret_key"] == "(set)"
    assert shown["redis_url"] == "rediss://user:***@host:6380/1"
    assert "pa55word" not in str(shown)
    assert "pa55word" not in repr(settings)


def test_valkeys_own_scheme_reads_as_redis() -> None:
    assert Settings(redis_url="valkey://h:1").redis_url == "redis://h:1"
    assert Settings(redis_url="unix:///tmp/s").broker == "redis+socket:///tmp/s"
    assert Settings(redis_url="unix:///tmp/s?db=1").broker == "redis+socket:///tmp/s?virtual_host=1"


@pytest.mark.parametrize(
    ("url", "celerys"),
    [
        ("redis://u:p@h:1/2", "redis://u:p@h:1/2"),
        ("redis://h:1?db=2", "redis://h:1/2"),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        (
            "rediss://h:1/0?ssl_cert_reqs=none&ssl_ca_certs=/a/ca.pem",
            "rediss://h:1/0?ssl_cert_reqs=none&ssl_ca_certs=/a/ca.pem",
        ),
        ("unix://u:p%2F@/tmp/s?db=1", "redis+socket://u:p%2F@/tmp/s?virtual_host=1"),
        ("unix:///tmp/s?password=p/&username=u", "redis+socket://u:p%2F@/tmp/s"),
        ("sentinel://:p@a:1,b:2/3?master_name=m", "sentinel://:p@a:1/3;sentinel://:p@b:2/3"),
        ("amqp://u:p@h//", "amqp://u:p@h//"),
    ],
)
def test_a_server_as_celery_spells_it(url: str, celerys: str) -> None:
    assert celery_url(url) == celerys


def test_sentinels_for_celery_and_for_the_store() -> None:
    settings = load_settings(redis_url="sentinel://u:p@a:1,[::1],b:2/3?master_name=m&sentinel_password=q")
    expected = {"master_name": "m", "sentinel_kwargs": {"password": "q"}}
    assert settings.broker_options == settings.backend_options == expected
    found = sentinel_of(settings.redis_url)
    assert found.nodes == (("a", 1), ("::1", 26379), ("b", 2))
    assert (found.database, found.username, found.password) == (3, "u", "p")
    own = load_settings(redis_url="redis://h", broker_url="sentinel://a:1/0?master_name=m")
    assert (own.broker, own.broker_options["master_name"], own.backend_options) == ("sentinel://a:1/0", "m", {})


@pytest.mark.parametrize("url", ["sentinel://a:1/0", "sentinel://a:x/0?master_name=m", "sentinel://a/x?master_name=m"])
def test_a_sentinel_url_that_cannot_be_used_says_why(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Setting redis_url.*(master_name=mymaster|number)"):
        load_settings(redis_url=url)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("unix:///tmp/s?db=1&password=x", "unix:///tmp/s?db=1&password=***"),
        (
            "sentinel://:x@a,b/0?master_name=m&sentinel_password=y",
            "sentinel://:***@a,b/0?master_name=m&sentinel_password=***",
        ),
        ("sentinel://:x@a:1/0;sentinel://:x@b:2/0", "sentinel://:***@a:1/0;sentinel://:***@b:2/0"),
    ],
)
def test_masking_a_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked
