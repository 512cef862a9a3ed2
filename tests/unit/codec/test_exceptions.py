"""Exceptions that come back: type, attributes, message and the traceback from there."""

from __future__ import annotations

import base64
import json
import pickle
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from graflow_celery import errors
from graflow_celery.codec.callables import decode_callable, encode_callable
from graflow_celery.codec.exceptions import decode_exception, encode_exception
from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import RemoteError, RemoteTraceback
from tests.unit.codec.modules import main_program


class TwoPartError(Exception):
    """Its ``args`` are not what its constructor takes, as is often the case."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class KeywordError(Exception):
    def __init__(self, *, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        return f"because {self.reason}"


class PrefixError(Exception):
    """Made again from its ``args``, it would say its prefix twice."""

    def __init__(self, text: str) -> None:
        super().__init__(f"prefix {text}")


class HoldingError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def through_json(error: BaseException, *, allow_pickle: bool = True) -> BaseException:
    record = json.loads(json.dumps(encode_exception(error, allow_pickle=allow_pickle)))
    return decode_exception(record, allow_pickle=allow_pickle)


EXACT: list[BaseException] = [
    ValueError("x"),
    ValueError(),
    ValueError("x", 2),
    KeyError("k"),
    KeyError(3),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(2, "No such file or directory", "/a"),
    OSError("plain"),
    StopIteration(3),
    SystemExit(2),
    KeyboardInterrupt(),
    RecursionError("deep"),
    errors.ParameterError("t", "no value"),
    errors.SerializationError("key 'k'", "no"),
    errors.NoWorkerError(["a", "b"]),
    errors.UnknownNodeError("n", ["a"]),
    errors.RunTimeoutError("r", 1.5, "x"),
    errors.GraflowWorkflowCanceledError("stop", "t"),
    errors.ParallelGroupError("2 failed", "g", [("a", "boom"), ("b", None)], ["c"]),
]


@pytest.mark.parametrize("error", EXACT, ids=[f"{n}-{type(error).__name__}" for n, error in enumerate(EXACT)])
def test_known_types_come_back_without_pickle(error: BaseException) -> None:
    record = encode_exception(error, allow_pickle=True)
    assert "pickle" not in record
    for allow_pickle in (True, False):
        again = through_json(error, allow_pickle=allow_pickle)
        assert type(again) is type(error)
        assert again.args == error.args
        assert str(again) == str(error)
        assert getattr(again, "filename", None) == getattr(error, "filename", None)


OWN: list[BaseException] = [
    TwoPartError(3, "x"),
    KeywordError(reason="of rain"),
    PrefixError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ExceptionGroup("two", [ValueError("a"), TwoPartError(1, "b")]),
    json.JSONDecodeError("bad", "{", 1),
]


@pytest.mark.parametrize("error", OWN, ids=[type(error).__name__ for error in OWN])
def test_other_types_come_back_by_pickle(error: BaseException) -> None:
    again = through_json(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert getattr(again, "code", None) == getattr(error, "code", None)
    assert getattr(again, "reason", None) == getattr(error, "reason", None)


@pytest.mark.parametrize("error", OWN, ids=[type(error).__name__ for error in OWN])
def test_without_pickle_they_are_told_of(error: BaseException) -> None:
    record = encode_exception(error, allow_pickle=False)
    assert "pickle" not in record
    again = decode_exception(record, allow_pickle=False)
    assert isinstance(again, RemoteError)
    assert again.type_name == record["type"]
    assert again.detail == str(error)


def test_notes_and_attributes_of_a_builtin_type() -> None:
    error = ValueError("x")
    error.add_note("a note")
    assert through_json(error).__notes__ == ["a note"]
    assert type(through_json(error, allow_pickle=False)) is ValueError


def test_what_cannot_be_pickled_becomes_a_remote_error() -> None:
    again = through_json(HoldingError("x"))
    assert isinstance(again, RemoteError)
    assert str(again) == f"{HoldingError.__module__}.HoldingError: x"


def test_an_exception_that_cannot_be_told() -> None:
    record = encode_exception(MuteError(), allow_pickle=True)
    assert record["message"] == "<its text cannot be made: RuntimeError>"
    assert "MuteError" in str(record["traceback"])


def test_a_class_of_main_is_the_same_class_again() -> None:
    """So that ``except`` in the program that submitted the workflow catches it."""
    program = main_program("class OwnError(Exception): pass\ndef target(): raise OwnError('x')")
    func = decode_callable(encode_callable(program["target"], task_id="t"), task_id="t", where="worker w")
    with pytest.raises(Exception, match="x") as caught:
        func()
    assert isinstance(through_json(caught.value), program["OwnError"])


# --- the traceback ------------------------------------------------------------------------------------------


def raised(source: str) -> Mapping[str, Any]:
    func = main_program(source, "/home/user/program.py")["target"]
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        func()
    return encode_exception(caught.value, allow_pickle=False)


def test_the_traceback_is_the_cause() -> None:
    record = raised("def target():\n    return 1 / 0")
    error = decode_exception(record, allow_pickle=False)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert 'File "/home/user/program.py", line 2, in target' in str(error.__cause__)
    assert error.__cause__.text.endswith("ZeroDivisionError: division by zero\n")


def test_causes_are_told() -> None:
    record = raised(
        "def target():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise "
        "ValueError('x') from e"
    )
    assert "ZeroDivisionError: division by zero" in record["traceback"]
    assert "direct cause" in record["traceback"]


def test_frames_of_the_engine_are_left_out_down_to_the_users() -> None:
    engine = main_program("def run(func): func()", f"{errors.__file__.removesuffix('errors.py')}engine/node.py")
    user = main_program("def target(): raise ValueError('x')", "/home/user/program.py")["target"]
    with pytest.raises(ValueError, match="x") as caught:
        engine["run"](user)
    first = caught.value.__traceback__
    assert first is not None
    caught.value.__traceback__ = first.tb_next
    text = str(encode_exception(caught.value, allow_pickle=False)["traceback"])
    assert "engine/node.py" not in text
    assert "/home/user/program.py" in text


def test_an_error_of_the_engine_keeps_its_frames() -> None:
    engine = main_program(
        "def run(): raise ValueError('x')", f"{errors.__file__.removesuffix('errors.py')}engine/node.py"
    )
    with pytest.raises(ValueError, match="x") as caught:
        engine["run"]()
    first = caught.value.__traceback__
    assert first is not None
    caught.value.__traceback__ = first.tb_next
    assert "engine/node.py" in str(encode_exception(caught.value, allow_pickle=False)["traceback"])


def test_a_very_long_traceback_loses_its_middle() -> None:
    try:
        raise ValueError("y" * 200_000)
    except ValueError as error:
        record = encode_exception(error, allow_pickle=False)
    text = str(record["traceback"])
    assert len(text) < 51_000
    assert text.startswith("Traceback (most recent call last)")
    assert "characters left out" in text
    assert record["message"] == "y" * 200_000


# --- what may be unpickled ----------------------------------------------------------------------------------

_marked = threading.Event()


def _mark() -> None:
    _marked.set()


class Marker:
    def __reduce__(self) -> Any:
        return (_mark, ())


def test_nothing_is_unpickled_where_pickle_is_not_allowed() -> None:
    bad = {"type": "a.B", "message": "m", "pickle": base64.b64encode(pickle.dumps(Marker())).decode()}
    error = decode_exception(bad, allow_pickle=False)
    assert error == RemoteError("a.B", "m")
    assert not _marked.is_set()


def test_nothing_unsigned_is_unpickled_where_a_secret_is_set() -> None:
    codec, other = ValueCodec(("pickle",), (b"key",)), ValueCodec(("pickle",), (b"other",))
    for payload in (pickle.dumps(Marker()), other.seal(pickle.dumps(Marker()), "pickle"), b"", b"\xb7\x01"):
        bad = {"type": "a.B", "message": "m", "pickle": base64.b64encode(payload).decode()}
        assert decode_exception(bad, allow_pickle=True, codec=codec) == RemoteError("a.B", "m")
    bad = {"type": "a.B", "message": "m", "pickle": "no base64!"}
    assert decode_exception(bad, allow_pickle=True, codec=codec) == RemoteError("a.B", "m")
    assert not _marked.is_set()
    record = encode_exception(TwoPartError(1, "x"), allow_pickle=True, codec=codec)
    assert type(decode_exception(record, allow_pickle=True, codec=codec)) is TwoPartError


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": 3, "message": None, "traceback": 4, "args": "x", "pickle": 5},
        {"type": "ValueError", "message": "m", "args": [[]]},
        {"type": "print", "message": "m", "args": ["x"]},
        {"type": "graflow_celery.errors.annotations", "message": "m", "args": []},
        {"type": "os.system", "message": "m", "args": ["true"]},
        {"type": "ValueError", "message": "m", "pickle": base64.b64encode(pickle.dumps(3)).decode()},
        {"type": "ValueError", "message": "m", "pickle": base64.b64encode(b"\x80").decode()},
    ],
)
def test_records_that_make_no_sense_are_told_of(record: dict[str, Any]) -> None:
    assert isinstance(decode_exception(record, allow_pickle=True), RemoteError)
