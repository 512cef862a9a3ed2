"""The examples do what they say, here and on workers: results are checked against computations of another kind."""

from __future__ import annotations

import ast
import asyncio
import binascii
import functools
import hashlib
import importlib.util
import inspect
import io
import json
import json.decoder
import lzma
import math
import random
import re
import sqlite3
import subprocess
import sys
import sysconfig
import time
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from graflow_celery import CheckpointManager, FeedbackRequest, Run, Settings, WorkflowContext
from graflow_celery.cli.loading import load_workflow
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorker
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.ports import EventRecord
from graflow_celery.testing import wait_until
from tests.e2e.markdown import ROOT, Page
from tests.e2e.shell import Command, Shell

FOLDER = ROOT / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("[0-9]*.py"))
LIBRARY = Path(sysconfig.get_path("stdlib"))
LONGEST = 40


class Execute(Protocol):
    """Runs the workflow of an example on the backend of the test's turn."""

    def __call__(self, name: str, **options: Any) -> Any: ...


@functools.cache
def example(name: str) -> WorkflowContext:
    return load_workflow(str(FOLDER / name))


@pytest.fixture(params=["local", pytest.param("celery", marks=pytest.mark.workers)])
def execute(request: pytest.FixtureRequest) -> Execute:
    settings = request.getfixturevalue("graflow_settings") if request.param == "celery" else None

    def run(name: str, **options: Any) -> Any:
        return example(name).execute(backend=request.param, settings=settings, timeout=60, **options)

    return run


def grep(*arguments: str) -> list[str]:
    done = subprocess.run(["grep", *arguments], cwd=LIBRARY, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.splitlines()


# --- what each is like --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short_and_begins_with_its_one_idea_and_how_to_run_it(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    idea, command = (ast.get_docstring(ast.parse(text)) or "").split("\n")
    assert text.startswith(f'"""{idea}\n{command}"""\n')
    assert re.fullmatch(r"[A-Z][\w ,-]+: [^:]+\.", idea), "one idea: what it is called, and what it means"
    assert command.startswith("Run it: ")
    assert command.count(name.removesuffix(".py")) >= 1


def test_the_table_has_every_example_with_its_idea() -> None:
    rows = Page(FOLDER / "README.md").rows_after("One idea each")
    ideas = {name: (FOLDER / name).read_text(encoding="utf-8").split("\n")[0].removeprefix('"""') for name in EXAMPLES}
    assert {row[0]: row[1] for row in rows} == {f"[{name}]({name})": idea for name, idea in ideas.items()}
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


@pytest.mark.workers
def test_the_command_in_a_header_works_as_it_is_written(lonely_shell: Shell) -> None:
    command = (FOLDER / "01_chain.py").read_text(encoding="utf-8").split("\n")[1]
    program, *words = command.removeprefix("Run it: ").removesuffix('"""').split()
    assert program == "graflow-celery"
    answer = lonely_shell(*(str(ROOT / word) if word.startswith("examples/") else word for word in words))
    assert answer.code == 0, answer.err
    assert longest_function() in answer.out


# --- what each computes -------------------------------------------------------------------------------


def longest_function() -> str:
    own = [json.decoder.JSONDecoder, json.decoder]
    found = [
        function
        for owner in own
        for _, function in inspect.getmembers(owner, inspect.isfunction)
        if function.__module__ == "json.decoder"
    ]
    lines = {function.__name__: len(inspect.getsourcelines(function)[0]) for function in found}
    name = max(lines, key=lines.__getitem__)
    return f"{name}: {lines[name]} lines"


def test_chain(execute: Execute) -> None:
    assert execute("01_chain.py") == longest_function()


def test_fan_out(execute: Execute) -> None:
    count = 0
    for seed in range(6):
        dice = random.Random(seed)
        count += sum(abs(complex(dice.random(), dice.random())) < 1 for _ in range(20_000))
    pi = execute("02_fan_out.py")
    assert pi == pytest.approx(4 * count / 120_000)
    assert pi == pytest.approx(math.pi, abs=0.02)


def test_join(execute: Execute) -> None:
    names = [name for name in sys.stdlib_module_names if not name.startswith("_")]
    missing = sorted(name for name in names if importlib.util.find_spec(name) is None)
    assert "winreg" in missing or sys.platform == "win32"
    assert execute("03_join.py") == missing


def test_dynamic_fan_out(execute: Execute) -> None:
    index = execute("04_dynamic_fan_out.py")
    files = sorted(path.name for path in (LIBRARY / "email").glob("*.py"))
    assert {file for found in index.values() for file in found} == set(files)
    for word in ("charset", "self", "yield", "quoprimime"):
        found = grep("--word-regexp", "--files-with-matches", word, *(f"email/{file}" for file in files))
        assert index[word] == [Path(line).name for line in found]
    assert execute("04_dynamic_fan_out.py", initial_channel={"package": "json"})["scanner"] == sorted(
        Path(line).name for line in grep("-wl", "scanner", *(str(path) for path in (LIBRARY / "json").glob("*.py")))
    )


def test_agent_loop(execute: Execute) -> None:
    found = execute("05_agent_loop.py")
    data = (LIBRARY / "argparse.py").read_bytes()
    assert 0 < found < len(data)
    assert len(zlib.compress(data[:found])) <= 4096 < len(zlib.compress(data[: found + 1]))


def test_retry(execute: Execute) -> None:
    began = time.monotonic()
    result = execute("06_retry.py")
    assert result == {"text": ast.get_docstring(ast.parse((FOLDER / "06_retry.py").read_text())), "retries": 2}
    assert time.monotonic() - began >= 0.05 + 0.1, "the waits before the retries, each half of itself at least"


def test_policies(execute: Execute) -> None:
    expected: dict[str, int] = {}
    for encoding in ("ascii", "utf-8", "cp1252", "cp932", "big5"):
        try:
            text = io.TextIOWrapper(io.BytesIO((LIBRARY / "heapq.py").read_bytes()), encoding, newline="").read()
        except UnicodeError:
            continue
        expected[encoding] = len(text)
    assert "ascii" not in expected
    assert execute("07_policies.py") == expected


def test_channels(execute: Execute) -> None:
    files = ("ast.py", "locale.py", "logging/__init__.py", "threading.py", "typing.py", "unittest/case.py")
    found = [tuple(line.split(":")[:2]) for line in grep("--line-number", "--with-filename", "deprecated", *files)]
    assert execute("08_channels.py") == {
        "lines": sum((LIBRARY / file).read_bytes().count(b"\n") for file in files),
        "found": sorted((file, int(number)) for file, number in found),
    }


def functions_of(package: str) -> dict[str, int]:
    """{file: how many `def` it has}, by its tokens."""
    counts: dict[str, int] = {}
    for path in (LIBRARY / package).glob("*.py"):
        with tokenize.open(path) as file:
            found = sum(token[:2] == (tokenize.NAME, "def") for token in tokenize.generate_tokens(file.readline))
        counts |= {path.name: found} if found else {}
    return counts


@pytest.mark.parametrize("backend", ["local", pytest.param("celery", marks=pytest.mark.workers)])
def test_checkpoint_and_resume(
    execute: Execute, backend: Literal["local", "celery"], tmp_path: Path, graflow_settings: Settings
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        execute("09_checkpoint_and_resume.py", initial_channel={"folder": str(tmp_path)})
    (tmp_path / "databases").mkdir()
    context, metadata = CheckpointManager.resume_from_checkpoint(tmp_path / "scanned.ckpt", settings=graflow_settings)
    events: list[EventRecord] = []
    assert context.execute(backend=backend, timeout=60, progress=events.append) == functions_of("email")
    assert metadata.user_metadata["task_id"] == "store"
    assert {event["node"] for event in events if event["event"] == "node_started"} == {"store"}, "scanned only once"


def archived() -> dict[str, int]:
    files = [path for path in (LIBRARY / "logging").rglob("*.py") if "__pycache__" not in path.parts]
    return {path.relative_to(LIBRARY / "logging").as_posix(): len(path.read_bytes()) for path in files}


def test_feedback(execute: Execute) -> None:
    asked: list[FeedbackRequest] = []

    def person(request: FeedbackRequest) -> str:
        asked.append(request)
        return "logging"

    assert execute("10_feedback.py", feedback=person) == archived()
    (request,) = asked
    assert request.options == ("email", "html", "json", "logging")
    assert str(sum(path.stat().st_size for path in (LIBRARY / "json").glob("*.py"))) in request.prompt


@pytest.mark.workers
def test_feedback_from_another_process(graflow_settings: Settings, shell: Shell) -> None:
    run = example("10_feedback.py").submit(settings=graflow_settings)
    (request,) = wait_until(run.feedback, description="the task to ask")
    answer = shell("feedback", "answer", request.feedback_id, "logging")
    assert answer.code == 0, answer.err
    run.wait(timeout=60)
    assert run.result() == archived()


def package_digest(package: str) -> str:
    """What coreutils' `sha256sum *.py | sha256sum` gives."""
    whole = hashlib.new("sha256")
    for path in sorted((LIBRARY / package).glob("*.py")):
        with path.open("rb") as file:
            whole.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n".encode())
    return whole.hexdigest()


def test_async(execute: Execute) -> None:
    assert execute("11_async.py", initial_channel={"package": "html"}) == package_digest("html")


@pytest.mark.parametrize("backend", ["local", pytest.param("celery", marks=pytest.mark.workers)])
def test_async_runs_are_awaited(backend: Literal["local", "celery"], request: pytest.FixtureRequest) -> None:
    settings = request.getfixturevalue("graflow_settings") if backend == "celery" else None
    wf = example("11_async.py")

    async def both() -> list[Any]:
        channels = [{"package": name} for name in ("html", "xml/dom")]
        runs = [wf.execute_async(initial_channel=channel, backend=backend, settings=settings) for channel in channels]
        return await asyncio.gather(*runs)

    assert asyncio.run(both()) == [package_digest("html"), package_digest("xml/dom")]


def test_async_as_a_program() -> None:
    command = [sys.executable, str(FOLDER / "11_async.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ast.literal_eval(done.stdout) == [package_digest("json"), package_digest("email")]


PATIENT = ["argparse.py", "ast.py", "calendar.py", "pdb.py"]
URGENT = ["heapq.py", "queue.py"]


def packed_sizes() -> dict[str, int]:
    sizes: dict[str, int] = {}
    for file in PATIENT + URGENT:
        packer = lzma.LZMACompressor()
        sizes[file] = len(packer.compress((LIBRARY / file).read_bytes()) + packer.flush())
    return sizes


def test_priorities_and_queues_here_where_they_mean_nothing() -> None:
    result = example("12_priorities_and_queues.py").execute(timeout=60)
    assert result["sizes"] == packed_sizes()
    assert sorted(result["order"]) == sorted(PATIENT + URGENT)


@pytest.fixture
def packer(graflow_settings: Settings) -> Iterator[EmbeddedWorker]:
    """A worker for the queue of its name, which the test starts."""
    scratch = ScratchDirectory()
    worker = EmbeddedWorker(graflow_settings, scratch, name="packer@%h", queues=("packing",))
    yield worker
    worker.stop(0.0)
    scratch.remove()


@pytest.mark.workers
def test_priorities_and_queues_on_workers(graflow_settings: Settings, packer: EmbeddedWorker) -> None:
    run: Run = example("12_priorities_and_queues.py").submit(settings=graflow_settings)
    packer.start()
    run.wait(timeout=60)
    assert run.result() == {"sizes": packed_sizes(), "order": URGENT + PATIENT}
    workers = {name: str(report.worker).partition("@")[0] for name, report in run.nodes().items() if report}
    assert {name for name, worker in workers.items() if worker == "packer"} == {*PATIENT, *URGENT}


# --- an app that was there before ---------------------------------------------------------------------


def checksums() -> dict[str, int]:
    return {path.name: binascii.crc32(path.read_bytes()) for path in (LIBRARY / "json").glob("*.py")}


def test_existing_app_here(lonely_shell: Shell) -> None:
    answer = lonely_shell("run", str(FOLDER / "13_existing_app.py"), "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out.splitlines()[-1])["result"] == checksums()


@pytest.mark.workers
def test_existing_app_on_workers_of_its_own(server: EmbeddedServer, tmp_path: Path) -> None:
    home = Shell(tmp_path, {"GRAFLOW_CELERY_REDIS_URL": server.url, "PYTHONPATH": str(FOLDER)})
    worker = [sys.executable, "-m", "celery", "-A", "13_existing_app", "worker", "--concurrency=1", "--loglevel=INFO"]
    with Command(worker, tmp_path, home.env) as running:
        running.says("ready.")
        with Command([sys.executable, str(FOLDER / "13_existing_app.py")], tmp_path, home.env) as client:
            answer = client.wait()
    assert answer.code == 0, answer.err
    own = binascii.crc32((FOLDER / "13_existing_app.py").read_bytes())
    assert ast.literal_eval(answer.out) == {"workflow": checksums(), "own task": own}


@pytest.mark.workers
@pytest.mark.parametrize("backend", ["local", "embedded"])
def test_the_shell_sends_what_is_registered_on_a_workflow(backend: str, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "graflow-celery"), "run", str(FOLDER / "05_agent_loop.py")]
    done = subprocess.run(
        [*command, "--backend", backend, "--no-progress"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3 run" in done.stdout
    assert "result" in done.stdout
