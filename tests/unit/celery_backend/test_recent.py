"""What a process keeps of what it used: bounded by number, and by what it weighs."""

from __future__ import annotations

from graflow_celery.celery_backend.recent import Recent


def test_the_one_that_was_not_asked_for_goes() -> None:
    kept: Recent[str, int] = Recent(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert [kept.get(key) for key in "abc"] == [1, None, 3]


def test_large_ones_make_room_for_each_other() -> None:
    kept: Recent[str, str] = Recent(64, len, 10)
    for key in "abcd":
        kept.put(key, key * 4)
    assert [kept.get(key) for key in "abcd"] == [None, None, "cccc", "dddd"]


def test_one_that_is_too_large_is_kept_alone() -> None:
    kept: Recent[str, str] = Recent(64, len, 10)
    kept.put("a", "small")
    kept.put("b", "b" * 100)
    assert (kept.get("a"), kept.get("b")) == (None, "b" * 100)
    kept.put("c", "small")
    assert (kept.get("b"), kept.get("c")) == (None, "small")


def test_one_that_is_put_again_weighs_once() -> None:
    kept: Recent[str, str] = Recent(64, len, 10)
    for _ in range(5):
        kept.put("a", "aaaa")
    kept.put("b", "bbbb")
    assert kept.get("a") == "aaaa"
