"""The settings: environment ``GRAFLOW_CELERY_*`` over a file over the defaults written here.

Only the distributed part reads them; ``import graflow_celery`` and local runs do not load this module. The file is
TOML, with the field names below as keys: the one that ``GRAFLOW_CELERY_CONFIG`` names (``config/graflow.toml`` in the
repository is a commented example).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from graflow_celery.errors import ConfigError

ENV_PREFIX = "GRAFLOW_CELERY_"
CONFIG_FILE_VARIABLE = "GRAFLOW_CELERY_CONFIG"
SerializerName = Literal["json", "msgpack", "pickle"]


class Settings(BaseSettings):
    """What a client, a worker or a monitor needs to know. Frozen; make one with :func:`load_settings`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Where runs, content and channels live.")
    broker_url: str = Field(default="", description="Celery's broker; the redis_url if empty.")
    result_backend: str = Field(
        default="",
        description="Celery's result backend; the redis_url if empty. Runs store nothing there: any will do, and "
        "`disabled://` is none.",
    )
    key_prefix: str = Field(
        default="graflow", min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="First part of every key."
    )
    queue: str = Field(default="celery", min_length=1, description="The queue of tasks that name none.")
    heartbeat_interval: float = Field(default=1.0, gt=0, description="Seconds between two beats of a worker.")
    heartbeat_timeout: float = Field(
        default=3.0, gt=0, description="Seconds without a beat after which a worker is missing."
    )
    death_watch: bool = Field(
        default=True, description="A small process beside each worker reports its death before its lease runs out."
    )
    health_file: str = Field(
        default="",
        description="What `graflow-celery health` reads: a file, or a directory with a file for each process; in the "
        "temp directory if empty.",
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Where `graflow-celery monitor` serves Prometheus metrics; 0: nowhere."
    )
    metrics_address: str = Field(default="127.0.0.1", min_length=1, description="The address that it listens at.")
    metrics_labels: int = Field(
        default=200, ge=1, description="Pairs of workflow and node with metrics of their own; the rest are `other`."
    )
    collect_logs: bool = Field(
        default=False, description="Workers keep what nodes log in the store, for `graflow-celery logs`."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How workers write their log: text, or a JSON object a line."
    )
    dispatch_grace: float = Field(
        default=2.0, gt=0, description="Seconds before an unsent command is sent by the monitor."
    )
    reconnect_timeout: float = Field(
        default=300.0, gt=0, description="Seconds for which clients and workers wait for a server that is away or full."
    )
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        default="auto",
        description="Members of a group that one message carries: auto (by how long they take), or a number; 1: none "
        "together.",
    )
    fuse: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether a worker's process goes on with the node that follows, and with a group's barrier: auto, "
        "or off (each has a message).",
    )
    events: Literal["on", "off"] = Field(
        default="on", description="Whether runs' events are written, which progress, Flower, metrics and traces read."
    )
    max_losses: int = Field(default=3, ge=1, description="Workers that a task may lose before it counts as poison.")
    result_ttl: int = Field(default=86_400, ge=60, description="Seconds for which an ended run stays readable.")
    run_ttl: int = Field(default=2_592_000, ge=3600, description="Seconds without any event after which a run expires.")
    value_threshold: int = Field(
        default=65_536, ge=256, description="Bytes over which a value goes to the content store."
    )
    value_limit: int = Field(
        default=500_000_000,
        ge=1_000_000,
        description="Bytes that a value or function may have; larger ones are refused.",
    )
    worker_cache_bytes: int = Field(
        default=67_108_864, ge=0, description="Bytes of content that a worker process keeps."
    )
    shared_cache_bytes: int = Field(
        default=268_435_456, ge=0, description="Bytes of large values that the processes of a worker share."
    )
    serializers: Annotated[tuple[SerializerName, ...], NoDecode] = Field(
        default=("json", "pickle"), description="Formats that values may take: json, msgpack, pickle."
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Signs content; workers then refuse unsigned content."
    )
    secret_keys_accepted: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="Further secrets whose signatures are accepted: old ones, and the one to come."
    )
    code_mismatch: Literal["warn", "error", "ignore"] = Field(
        default="warn",
        description="Where a worker imports other code of a task than its client: warn, error (fail it), or ignore.",
    )
    tracing: Literal["off", "otel", "langfuse"] = Field(
        default="off", description="What traces runs whose workflow names no tracer: off, otel, or langfuse."
    )
    compat: bool = Field(
        default=False, description="Workers run modules that import graflow: the name means this package there."
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        schemes = ("redis", "rediss", "unix", "sentinel", "valkey", "valkeys")
        if urlsplit(value).scheme not in schemes:
            raise ValueError(f"needs a URL that starts with one of: {', '.join(s + '://' for s in schemes)}")
        if value.startswith("sentinel://"):
            sentinel_of(value)
        return value.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)

    @field_validator("serializers", "secret_keys_accepted", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A list in the environment: JSON, or names with commas between them."""
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        try:
            return tuple(json.loads(value))
        except (ValueError, TypeError):
            raise ValueError('it is no JSON list. Write ["a", "b"], or a,b') from None

    @field_validator("serializers")
    @classmethod
    def _at_least_one(cls, value: tuple[SerializerName, ...]) -> tuple[SerializerName, ...]:
        if not value:
            raise ValueError("at least one is needed. Name some of json, msgpack, pickle")
        return value

    @field_validator("secret_key", "secret_keys_accepted")
    @classmethod
    def _not_empty(cls, value: SecretStr | tuple[SecretStr, ...] | None) -> SecretStr | tuple[SecretStr, ...] | None:
        given = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(secret.get_secret_value() for secret in given):
            raise ValueError("a secret is empty. Give it some characters, or leave it out")
        return value

    @field_validator("secret_keys_accepted")
    @classmethod
    def _beside_a_secret(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if value and info.data.get("secret_key") is None:
            raise ValueError("it is set without secret_key, which signs. Set that too, or nothing would be checked")
        return value

    @field_validator("heartbeat_timeout")
    @classmethod
    def _longer_than_a_beat(cls, value: float, info: ValidationInfo) -> float:
        interval = info.data.get("heartbeat_interval", 0.0)
        if value <= interval:
            raise ValueError(f"must be longer than heartbeat_interval ({interval:g} s), or every worker seems missing")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        if path is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))

    @property
    def broker(self) -> str:
        """Celery's broker, as Celery spells it."""
        return celery_url(self.broker_url or self.redis_url)

    @property
    def backend(self) -> str:
        """Celery's result backend, as Celery spells it."""
        return celery_url(self.result_backend or self.redis_url)

    @property
    def broker_options(self) -> dict[str, Any]:
        """What Celery needs to know of the broker besides its URL."""
        return _sentinel_options(self.broker_url or self.redis_url)

    @property
    def backend_options(self) -> dict[str, Any]:
        """What Celery needs to know of the result backend besides its URL."""
        return _sentinel_options(self.result_backend or self.redis_url)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return list(self.masked().items())

    def masked(self) -> dict[str, str]:
        """The effective settings as text, without passwords and secrets: fit to be printed."""
        shown: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "secret_key":
                shown[name] = "(set)" if value else "(not set)"
            elif name == "secret_keys_accepted":
                shown[name] = f"({len(value)} set)" if value else "(not set)"
            elif isinstance(value, str) and "://" in value:
                shown[name] = mask_url(value)
            else:
                shown[name] = ", ".join(value) if isinstance(value, tuple) else str(value)
        shown["broker_url"] = mask_url(self.broker)
        shown["result_backend"] = mask_url(self.backend)
        return shown


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; ``overrides`` beat the environment.

    Raises:
        ConfigError: a value is unusable, a name is unknown or the file cannot be read; the message names it.
    """
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if path is not None and not Path(path).is_file():
        raise ConfigError(f"{CONFIG_FILE_VARIABLE}={path}: no such file. Unset it or name a TOML file.")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(_problem(item["loc"], item["msg"]) for item in error.errors(include_input=False))
        raise ConfigError(problems) from None
    except ValueError as error:
        raise ConfigError(f"Settings cannot be read from {path or 'the environment'}: {error}") from None


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """``sentinel://[user:password@]host:port[,host:port...]/DB?master_name=mymaster``, taken apart.

    User and password are those of the servers; ``credentials`` those of the sentinels themselves, if they ask for any:
    ``sentinel_username`` and ``sentinel_password`` in the query.
    """

    nodes: tuple[tuple[str, int], ...]
    database: int
    master_name: str
    username: str | None
    password: str | None
    credentials: Mapping[str, str]


def sentinel_of(url: str) -> SentinelUrl:
    """A ``sentinel://`` URL, taken apart. Raises ValueError: it names no master, or a port that is no number."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if not query.get("master_name"):
        raise ValueError("a sentinel:// URL needs the name of the master: sentinel://host:26379/0?master_name=mymaster")
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    nodes = []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        try:
            nodes.append(((name if colon else host).strip("[]"), int(port) if colon else 26379))
        except ValueError:
            raise ValueError(f"a sentinel's port has to be a number, and is {port!r}") from None
    database = parts.path.strip("/") or query.get("db", "0")
    if not database.isdigit():
        raise ValueError(f"the database has to be a number, and is {database!r}")
    given = {name.removeprefix("sentinel_"): value for name, value in query.items() if name.startswith("sentinel_")}
    return SentinelUrl(
        tuple(nodes), int(database), query["master_name"], unquote(user) or None, unquote(password) or None, given
    )


def celery_url(url: str) -> str:
    """The same server as Celery spells it.

    ``unix:///s?db=1`` becomes ``redis+socket:///s?virtual_host=1``; ``rediss://h`` says that certificates are checked;
    of ``sentinel://a,b/0?master_name=m`` it makes one URL for each sentinel, with ``;`` between them.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        user, password = query.pop("username", ""), query.pop("password", "")
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        options = {("virtual_host" if name == "db" else name): value for name, value in query.items()}
        return f"redis+socket://{parts.netloc if '@' in parts.netloc else login}{parts.path}{_query(options)}"
    if parts.scheme == "sentinel" and "master_name" in query:
        login, at, hosts = parts.netloc.rpartition("@")
        database = sentinel_of(url).database
        return ";".join(f"sentinel://{login}{at}{host}/{database}" for host in hosts.split(","))
    if parts.scheme in ("redis", "rediss"):
        path = f"/{query.pop('db')}" if "db" in query else parts.path
        if parts.scheme == "rediss":
            query.setdefault("ssl_cert_reqs", "required")
        return f"{parts.scheme}://{parts.netloc}{path}{_query(query)}"
    return url


def socket_of(url: str) -> str | None:
    """The path of the socket that a ``unix://`` URL names; None for any other URL."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "unix" else None


def _query(options: Mapping[str, str]) -> str:
    return f"?{urlencode(options, safe='/')}" if options else ""


def _sentinel_options(url: str) -> dict[str, Any]:
    if not (url.startswith("sentinel://") and "master_name=" in url):
        return {}
    found = sentinel_of(url)
    return {"master_name": found.master_name, "sentinel_kwargs": dict(found.credentials)}


def mask_url(url: str) -> str:
    """``url`` with its passwords, in the authority or the query, replaced by ``***``. Celery's lists of URLs too."""
    return ";".join(_masked(urlsplit(one)) for one in url.split(";"))


def _masked(parts: SplitResult) -> str:
    authority = parts.netloc
    if "@" in authority:
        user, _, host = authority.rpartition("@")
        name = user.partition(":")[0]
        authority = f"{name}:***@{host}" if ":" in user else f"{name}@{host}"
    query = "&".join(
        f"{item.partition('=')[0]}=***" if "password" in item.partition("=")[0].lower() else item
        for item in parts.query.split("&")
        if item
    )
    return f"{parts.scheme}://{authority}{parts.path}" + (f"?{query}" if query else "")


def _problem(location: tuple[int | str, ...], text: str) -> str:
    name = ".".join(str(part) for part in location)
    variable = str(location[0]) if location else ""
    return f"Setting {name} ({ENV_PREFIX}{variable.upper()}): {text.removeprefix('Value error, ')}"
