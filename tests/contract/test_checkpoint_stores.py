"""Where checkpoints are kept: a directory or Redis, with one contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from graflow_celery.checkpointing import find, open_store
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import CheckpointError
from graflow_celery.ports import CheckpointStore
from graflow_celery.settings import Settings

Load = Callable[[str], bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[Settings]:
    with EmbeddedServer() as here:
        yield Settings(redis_url=here.url)


@pytest.fixture(params=["directory", "redis"])
def settings(request: pytest.FixtureRequest) -> Settings:
    found: Settings = request.getfixturevalue("server") if request.param == "redis" else Settings()
    return found


@pytest.fixture
def store(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> CheckpointStore:
    where = "redis:" if request.node.callspec.params["settings"] == "redis" else tmp_path / "here"
    return open_store(where, settings)


def test_what_was_saved_is_loaded_by_name_and_by_path(store: CheckpointStore, settings: Settings) -> None:
    data = bytes(range(256))
    path = store.save("run1/a.ckpt", data)
    assert store.load("run1/a.ckpt") == data
    found, name = find(path, settings)
    assert found.load(name) == data


def test_a_name_is_written_over_as_a_whole(store: CheckpointStore) -> None:
    store.save("run2/a.ckpt", b"long" * 1000)
    store.save("run2/a.ckpt", b"short")
    store.save("run2/b.ckpt", b"")
    assert store.load("run2/a.ckpt") == b"short"
    assert store.load("run2/b.ckpt") == b""
    assert [name for name in store.names() if name.startswith("run2/")] == ["run2/a.ckpt", "run2/b.ckpt"]


def test_an_unknown_name_says_where_it_was_looked_for(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt: there is"):
        store.load("nowhere.ckpt")


def test_a_directory_is_made_when_something_is_saved(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new", Settings())
    assert store.names() == []
    assert not (tmp_path / "new").exists()
    store.save("a/b/c.ckpt", b"1")
    assert [path.name for path in (tmp_path / "new" / "a" / "b").iterdir()] == ["c.ckpt"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/run\.ckpt: it cannot be written"):
        open_store(tmp_path / "file", Settings()).save("run.ckpt", b"1")


def test_in_redis_it_lives_as_long_as_a_run(server: Settings) -> None:
    open_store("redis:", server).save("run3/a.ckpt", b"1")
    with redis.Redis.from_url(server.redis_url) as client:
        assert 0 < client.ttl(f"{server.key_prefix}:checkpoint:run3/a.ckpt") <= server.run_ttl


@pytest.mark.parametrize(
    ("path", "address", "name"),
    [
        ("redis://h:1/2/run/a.ckpt", "redis://h:1/2", "run/a.ckpt"),
        ("redis://h/run/a.ckpt", "redis://h/0", "run/a.ckpt"),
        ("rediss://u:secret@h:1/0/a", "rediss://u:***@h:1/0", "a"),
    ],
)
def test_other_servers_have_addresses_that_tell_no_password(path: str, address: str, name: str) -> None:
    store, found = find(path, Settings())
    assert found == name
    assert getattr(store, "path")(name) == f"{address}/{name}"  # noqa: B009 - of this adapter alone
