"""The settings: environment ``GRAFLOW_CELERY_*`` over a file over the defaults written here.

Only the distributed part reads them; ``import graflow_celery`` and local runs do not load this module. The file is
TOML, with the field names below as keys: the one that ``GRAFLOW_CELERY_CONFIG`` names (``config/graflow.toml`` in the
repository is a commented example).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from graflow_celery.errors import ConfigError
from graflow_celery.fields import (
    FieldSpec,
    SecretStr,
    WrongItemError,
    field,
    flag,
    listed,
    number,
    one_of,
    optional,
    secret,
    text,
    whole,
)

ENV_PREFIX = "GRAFLOW_CELERY_"
CONFIG_FILE_VARIABLE = "GRAFLOW_CELERY_CONFIG"
SerializerName = Literal["json", "msgpack", "pickle"]


class Settings:
    """What a client, a worker or a monitor needs to know. Frozen; make one with :func:`load_settings`.

    What is not given comes from the environment, from the file, or is the default.
    """

    #: Every setting by its name.
    model_fields: ClassVar[dict[str, FieldSpec]] = {}

    redis_url: str = field("redis://127.0.0.1:6379/0", "Where runs, content and channels live.", text())
    broker_url: str = field("", "Celery's broker; the redis_url if empty.", text())
    result_backend: str = field(
        "",
        "Celery's result backend; the redis_url if empty. Runs store nothing there: any will do, and `disabled://` is "
        "none.",
        text(),
    )
    key_prefix: str = field("graflow", "First part of every key.", text(pattern=r"[A-Za-z0-9_.-]+"))
    queue: str = field("celery", "The queue of tasks that name none.", text(least=1))
    heartbeat_interval: float = field(1.0, "Seconds between two beats of a worker.", number(over=0))
    heartbeat_timeout: float = field(3.0, "Seconds without a beat after which a worker is missing.", number(over=0))
    death_watch: bool = field(
        True, "A small process beside each worker reports its death before its lease runs out.", flag
    )
    health_file: str = field(
        "",
        "What `graflow-celery health` reads: a file, or a directory with a file for each process; in the temp "
        "directory if empty.",
        text(),
    )
    metrics_port: int = field(
        0, "Where `graflow-celery monitor` serves Prometheus metrics; 0: nowhere.", whole(least=0, most=65535)
    )
    metrics_address: str = field("127.0.0.1", "The address that it listens at.", text(least=1))
    metrics_labels: int = field(
        200, "Pairs of workflow and node with metrics of their own; the rest are `other`.", whole(least=1)
    )
    collect_logs: bool = field(False, "Workers keep what nodes log in the store, for `graflow-celery logs`.", flag)
    log_format: Literal["text", "json"] = field(
        "text", "How workers write their log: text, or a JSON object a line.", one_of("text", "json")
    )
    dispatch_grace: float = field(2.0, "Seconds before an unsent command is sent by the monitor.", number(over=0))
    reconnect_timeout: float = field(
        300.0, "Seconds for which clients and workers wait for a server that is away or full.", number(over=0)
    )
    batch: Literal["auto"] | int = field(
        "auto",
        "Members of a group that one message carries: auto (by how long they take), or a number; 1: none together.",
        one_of("auto", otherwise=whole(least=1, most=1000)),
    )
    fuse: Literal["auto", "off"] = field(
        "auto",
        "Whether a worker's process goes on with the node that follows, and with a group's barrier: auto, "
        "or off (each has a message).",
        one_of("auto", "off"),
    )
    events: Literal["on", "off"] = field(
        "on", "Whether runs' events are written, which progress, Flower, metrics and traces read.", one_of("on", "off")
    )
    prefetch: int = field(
        1,
        "Messages that a worker takes from the broker for each of its processes, those that run among them.",
        whole(least=1),
    )
    max_losses: int = field(3, "Workers that a task may lose before it counts as poison.", whole(least=1))
    result_ttl: int = field(86400, "Seconds for which an ended run stays readable.", whole(least=60))
    run_ttl: int = field(2592000, "Seconds without any event after which a run expires.", whole(least=3600))
    value_threshold: int = field(65536, "Bytes over which a value goes to the content store.", whole(least=256))
    value_limit: int = field(
        500000000, "Bytes that a value or function may have; larger ones are refused.", whole(least=1000000)
    )
    worker_cache_bytes: int = field(67108864, "Bytes of content that a worker process keeps.", whole(least=0))
    shared_cache_bytes: int = field(
        268435456, "Bytes of large values that the processes of a worker share.", whole(least=0)
    )
    serializers: tuple[SerializerName, ...] = field(
        ("json", "pickle"),
        "Formats that values may take: json, msgpack, pickle.",
        listed(one_of("json", "msgpack", "pickle")),
    )
    secret_key: SecretStr | None = field(None, "Signs content; workers then refuse unsigned content.", optional(secret))
    secret_keys_accepted: tuple[SecretStr, ...] = field(
        (), "Further secrets whose signatures are accepted: old ones, and the one to come.", listed(secret)
    )
    code_mismatch: Literal["warn", "error", "ignore"] = field(
        "warn",
        "Where a worker imports other code of a task than its client: warn, error (fail it), or ignore.",
        one_of("warn", "error", "ignore"),
    )
    tracing: Literal["off", "otel", "langfuse"] = field(
        "off",
        "What traces runs whose workflow names no tracer: off, otel, or langfuse.",
        one_of("off", "otel", "langfuse"),
    )
    compat: bool = field(False, "Workers run modules that import graflow: the name means this package there.", flag)

    def __init__(self, **given: Any) -> None:
        """Raises ConfigError: values cannot be used, or names are unknown; the message has each of them."""
        self._fill({**_of_file(), **_of_environment(type(self).model_fields), **given})

    def _fill(self, given: Mapping[str, Any]) -> None:
        found: dict[str, Any] = {}
        unknown = [name for name in given if name not in self.model_fields]
        problems = [_problem((name,), "there is no setting of this name") for name in unknown]
        for name, spec in self.model_fields.items():
            try:
                value = spec.read(given.get(name, spec.default))
                found[name] = _CHECKS[name](value, found) if name in _CHECKS else value
            except WrongItemError as error:
                problems.append(_problem((name, error.number), str(error)))
            except ValueError as error:
                problems.append(_problem((name,), str(error)))
        if problems:
            raise ConfigError("; ".join(problems))
        self.__dict__.update(found)

    def model_copy(self, *, update: Mapping[str, Any]) -> Settings:
        """The same settings but for some. Neither the environment nor the file is read again."""
        made = object.__new__(type(self))
        made._fill({**self.__dict__, **update})
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Settings are frozen: make others with model_copy(update={{'{name}': ...}}).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Settings are frozen: '{name}' stays.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.masked().items())})"

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


for _name, _spec in list(vars(Settings).items()):
    if isinstance(_spec, FieldSpec):
        Settings.model_fields[_name] = _spec


def _known_scheme(value: str, _: Mapping[str, Any]) -> str:
    schemes = ("redis", "rediss", "unix", "sentinel", "valkey", "valkeys")
    if urlsplit(value).scheme not in schemes:
        raise ValueError(f"needs a URL that starts with one of: {', '.join(s + '://' for s in schemes)}")
    if value.startswith("sentinel://"):
        sentinel_of(value)
    return value.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)


def _at_least_one(value: tuple[SerializerName, ...], _: Mapping[str, Any]) -> tuple[SerializerName, ...]:
    if not value:
        raise ValueError("at least one is needed. Name some of json, msgpack, pickle")
    return value


def _beside_a_secret(value: tuple[SecretStr, ...], others: Mapping[str, Any]) -> tuple[SecretStr, ...]:
    if value and others.get("secret_key") is None:
        raise ValueError("it is set without secret_key, which signs. Set that too, or nothing would be checked")
    return value


def _longer_than_a_beat(value: float, others: Mapping[str, Any]) -> float:
    interval = others.get("heartbeat_interval", 0.0)
    if value <= interval:
        raise ValueError(f"must be longer than heartbeat_interval ({interval:g} s), or every worker seems missing")
    return value


#: What a setting has to be besides what its field says, given the settings before it.
_CHECKS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "redis_url": _known_scheme,
    "serializers": _at_least_one,
    "secret_keys_accepted": _beside_a_secret,
    "heartbeat_timeout": _longer_than_a_beat,
}


def _of_file() -> dict[str, Any]:
    """What the file says, if one is named and there."""
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if path is None or not Path(path).is_file():
        return {}
    found: dict[str, Any] = importlib.import_module("tomllib").loads(Path(path).read_text("utf-8"))
    return found


def _of_environment(names: Iterable[str]) -> dict[str, str]:
    """What the environment says of these settings. Large and small letters are the same in a variable's name."""
    known = {f"{ENV_PREFIX}{name}".upper(): name for name in names}
    found = {variable.upper(): value for variable, value in os.environ.items()}
    return {name: found[variable] for variable, name in known.items() if variable in found}


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
    except ConfigError:
        raise
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
    return f"Setting {name} ({ENV_PREFIX}{variable.upper()}): {text}"
