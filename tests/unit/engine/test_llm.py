from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from graflow_celery.engine.llm import LLMAgent, LLMRegistry
from graflow_celery.engine.llm_client import LLMClient, extract_text, make_message
from graflow_celery.errors import (
    ConfigError,
    ExtraMissingError,
    GraflowError,
    GraflowRuntimeError,
    LLMNotRegisteredError,
    UnavailableError,
)


class Echo:
    """An agent by nothing but its ``run``."""

    def __init__(self, session: str = "") -> None:
        self.session = session

    def run(self, input_text: str, **kwargs: Any) -> dict[str, Any]:
        return {"output": input_text, **kwargs}


@dataclass
class Counted:
    """A factory that counts its calls."""

    make: Callable[[], Any] = Echo
    calls: list[int] = field(default_factory=list)

    def __call__(self) -> Any:
        self.calls.append(len(self.calls))
        return self.make()


@dataclass
class Run:
    session_id: str


# --- agents -------------------------------------------------------------------------------------------


def test_an_agent_is_made_when_it_is_first_asked_for_and_kept() -> None:
    factory = Counted()
    registry = LLMRegistry()
    registry.register_agent("echo", factory)
    assert factory.calls == []
    first = registry.agent("echo")
    assert registry.agent("echo") is first
    assert factory.calls == [0]
    assert first.run("hello") == {"output": "hello"}


def test_any_object_with_run_is_an_agent_and_is_not_called() -> None:
    agent = Echo()
    registry = LLMRegistry()
    registry.register_agent("echo", agent)
    assert isinstance(agent, LLMAgent)
    assert registry.agent("echo") is agent


def test_a_class_is_a_factory_although_it_has_run() -> None:
    registry = LLMRegistry()
    registry.register_agent("echo", Echo)
    assert isinstance(registry.agent("echo"), Echo)


def test_registering_again_replaces_what_was_made() -> None:
    registry = LLMRegistry()
    registry.register_agent("echo", Echo)
    first = registry.agent("echo")
    registry.register_agent("echo", Echo)
    assert registry.agent("echo") is not first


@pytest.mark.parametrize("given", [None, 3, "gpt"])
def test_neither_agent_nor_factory(given: Any) -> None:
    with pytest.raises(TypeError, match=r"LLM agent 'x': an object with run\(\.\.\.\) or a factory"):
        LLMRegistry().register_agent("x", given)


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_is_a_non_empty_string(name: Any) -> None:
    with pytest.raises(TypeError, match="non-empty string"):
        LLMRegistry().register_agent(name, Echo())


def test_a_factory_takes_one_argument_at_most() -> None:
    def factory(context: Any, extra: Any) -> Echo:
        raise AssertionError(context, extra)

    with pytest.raises(TypeError, match="no argument, or one, the ExecutionContext"):
        LLMRegistry().register_agent("x", factory)


@pytest.mark.parametrize("made", [None, 3])
def test_a_factory_that_makes_no_agent_is_named_and_may_be_tried_again(made: Any) -> None:
    registry = LLMRegistry()
    factory = Counted(lambda: made)
    registry.register_agent("x", factory)
    for _ in range(2):
        with pytest.raises(TypeError, match="LLM agent 'x': its factory returned"):
            registry.agent("x")
    assert len(factory.calls) == 2


def test_an_error_of_a_factory_is_the_users_own_and_nothing_is_kept() -> None:
    def fail() -> Echo:
        raise OSError("no model file")

    registry = LLMRegistry()
    registry.register_agent("x", fail)
    with pytest.raises(OSError, match="no model file"):
        registry.agent("x")
    registry.register_agent("x", Echo)
    assert registry.agent("x")


def test_an_unknown_name_says_what_is_there_and_how_to_register() -> None:
    registry = LLMRegistry()
    registry.register_agent("writer", Echo)
    registry.register_agent("critic", Echo)
    with pytest.raises(LLMNotRegisteredError) as caught:
        registry.agent("editor")
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == (
        "No LLM agent 'editor' is registered; there are: critic, writer. "
        "Register it on the workflow before it runs: register_llm_agent('editor', ...)."
    )
    with pytest.raises(LLMNotRegisteredError, match=r"No LLM client 'small' .* register_client\('small', ...\)"):
        registry.client("small")


# --- threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [True, False])
def test_threads_that_ask_at_once_share_one_agent(guarded: bool) -> None:
    together = threading.Barrier(8)
    factory = Counted()
    registry = LLMRegistry(threading.RLock() if guarded else None)
    registry.register_agent("echo", factory)

    def ask(_: int) -> Any:
        together.wait(10)
        return registry.agent("echo")

    with ThreadPoolExecutor(8) as pool:
        agents = list(pool.map(ask, range(8)))
    assert len({id(agent) for agent in agents}) == 1
    if guarded:
        assert factory.calls == [0]


def test_a_factory_may_ask_the_registry_for_its_client() -> None:
    registry = LLMRegistry(threading.RLock())
    registry.register_client("default", lambda: LLMClient("small"))
    seen: list[Any] = []

    def factory() -> Echo:
        seen.append(registry.client())
        return Echo()

    registry.register_agent("echo", factory)
    registry.agent("echo")
    assert seen == [registry.client()]


# --- clients ------------------------------------------------------------------------------------------


def test_without_registration_the_default_client_is_an_llm_client_for_all() -> None:
    registry = LLMRegistry()
    assert isinstance(registry.client(), LLMClient)
    assert registry.scope().client() is registry.scope().client() is registry.client()
    with pytest.raises(LLMNotRegisteredError):
        registry.client("default")


def test_a_client_is_made_by_its_factory_or_given() -> None:
    registry = LLMRegistry()
    ready = LLMClient("given")
    registry.register_client("default", Counted(lambda: LLMClient("made")))
    registry.register_client("ready", ready)
    assert registry.client().model == "made"
    assert registry.client() is registry.client("default")
    assert registry.client("ready") is ready


# --- runs and other processes -------------------------------------------------------------------------


def test_a_scope_shares_what_is_made_and_keeps_what_is_its_own() -> None:
    registry = LLMRegistry()
    factory = Counted()
    registry.register_agent("shared", factory)
    one, other = registry.scope(), registry.scope()
    one.register_agent("own", Echo)
    assert one.agent("shared") is other.agent("shared") is registry.agent("shared")
    assert factory.calls == [0]
    assert one.agent("own")
    for elsewhere in (other, registry):
        with pytest.raises(LLMNotRegisteredError):
            elsewhere.agent("own")


def test_a_factory_with_a_parameter_gets_the_run_once_for_each() -> None:
    registry = LLMRegistry()
    registry.register_agent("echo", lambda context: Echo(context.session_id))
    one, other = registry.scope(Run("one")), registry.scope(Run("other"))
    assert one.agent("echo") is one.agent("echo")
    assert (one.agent("echo").session, other.agent("echo").session) == ("one", "other")
    with pytest.raises(GraflowRuntimeError, match="takes an ExecutionContext, and outside of a run there is none"):
        registry.agent("echo")


def test_factories_travel_and_what_they_made_does_not() -> None:
    factory = Counted()
    registry = LLMRegistry(threading.RLock())
    registry.register_agent("echo", factory)
    registry.register_agent("ready", Echo("packed"))
    registry.register_client("default", LLMClient)
    registry.agent("echo")

    arrived: LLMRegistry = pickle.loads(cloudpickle.dumps(registry))
    assert list(arrived.factories()["agent"]) == ["echo", "ready"]
    assert list(arrived.factories()["client"]) == ["default"]
    assert arrived.agent("echo") is not registry.agent("echo")
    assert arrived.agent("ready").session == "packed"

    again = LLMRegistry.from_factories(arrived.scope().factories(), threading.RLock())
    assert again.agent("ready").session == "packed"


def test_an_agent_with_an_open_connection_travels_by_its_factory_alone() -> None:
    def factory() -> Echo:
        agent = Echo()
        agent.lock = threading.Lock()  # type: ignore[attr-defined]
        return agent

    registry = LLMRegistry()
    registry.register_agent("echo", factory)
    registry.agent("echo")
    assert pickle.loads(cloudpickle.dumps(registry)).agent("echo").run("x") == {"output": "x"}


# --- the client over LiteLLM --------------------------------------------------------------------------

FAKE_LITELLM = """
from types import SimpleNamespace

calls = []

def completion(**arguments):
    calls.append(arguments)
    message = SimpleNamespace(content=f"{arguments['model']}: {arguments['messages'][-1]['content']}")
    return SimpleNamespace(choices=[SimpleNamespace(message=message)])
"""


@pytest.fixture
def litellm_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A litellm on the path that answers by itself, and what it was called with."""
    (tmp_path / "litellm.py").write_text(FAKE_LITELLM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    yield importlib.import_module("litellm").calls
    sys.modules.pop("litellm", None)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GRAFLOW_CELERY_LLM_MODEL", "GRAFLOW_LLM_MODEL"):
        monkeypatch.delenv(variable, raising=False)


def test_a_completion_takes_the_clients_parameters_and_the_calls_over_them(litellm_calls: list[Any]) -> None:
    client = LLMClient("small", temperature=0.1, max_tokens=9)
    text = client.completion_text([make_message("user", "hello")], temperature=0.9)
    assert text == "small: hello"
    assert litellm_calls == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.9,
            "max_tokens": 9,
        }
    ]


def test_a_call_names_another_model_and_labels_for_traces(litellm_calls: list[Any]) -> None:
    metadata = {"user": "u"}
    client = LLMClient("small", metadata=metadata)
    client.completion([make_message("user", "x")], model="large", generation_name="greet", tags=["t"])
    assert litellm_calls[0]["model"] == "large"
    assert litellm_calls[0]["metadata"] == {"user": "u", "generation_name": "greet", "tags": ["t"]}
    assert metadata == {"user": "u"}


@pytest.mark.usefixtures("no_model")
def test_the_model_comes_from_the_environment_of_the_process_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    client: LLMClient = pickle.loads(pickle.dumps(LLMClient()))
    with pytest.raises(ConfigError, match="GRAFLOW_CELERY_LLM_MODEL names it"):
        _ = client.model
    monkeypatch.setenv("GRAFLOW_LLM_MODEL", "graflows")
    assert client.model == "graflows"
    monkeypatch.setenv("GRAFLOW_CELERY_LLM_MODEL", "ours")
    assert client.model == "ours"
    assert LLMClient("given").model == "given"


@pytest.mark.parametrize("secret", ["api_key", "aws_secret_access_key"])
def test_a_client_takes_no_secret(secret: str) -> None:
    with pytest.raises(ConfigError, match=f"{secret} is a secret") as caught:
        LLMClient("small", enable_tracing=False, **{secret: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_graflows_switch_for_tracing_is_taken_off_only() -> None:
    assert LLMClient("small", enable_tracing=False).default_params == {}
    with pytest.raises(ConfigError, match="enable_tracing"):
        LLMClient("small", enable_tracing=True)


@pytest.mark.parametrize("response", [object(), None])
def test_a_response_without_text_gives_none(response: Any) -> None:
    assert extract_text(response) == ""


def test_without_litellm_the_error_names_the_extra() -> None:
    """In a process of its own, in which litellm is not there whether or not it is installed."""
    program = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "litellm":
            raise ModuleNotFoundError("No module named 'litellm'", name="litellm")

sys.meta_path.insert(0, Absent())
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.engine.llm_client import ExtraMissingError
client = LLMRegistry().client()
try:
    client.completion([], model="small")
except ExtraMissingError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "litellm is not installed here. Install it: pip install 'graflow-celery[llm]'" in done.stdout


def test_the_registry_and_the_client_import_no_llm_library() -> None:
    program = """
import sys
from graflow_celery.engine.llm import LLMRegistry
LLMRegistry().client()
print([name for name in ("litellm", "openai", "httpx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "error",
    [ExtraMissingError("litellm", "llm"), LLMNotRegisteredError("agent", "x", ("a", "b"))],
    ids=lambda error: type(error).__name__,
)
def test_the_errors_are_of_the_tree_and_survive_pickle(error: GraflowError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(error, GraflowError)
    assert copy == error
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_what_is_missing_outside_exits_as_such() -> None:
    assert issubclass(ExtraMissingError, UnavailableError)
    assert ExtraMissingError.exit_code == 3
