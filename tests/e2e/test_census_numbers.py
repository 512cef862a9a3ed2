"""The census example against counts of our own, which share no code with it.

A handful of packages is counted from tokens, without `ast`; the whole standard library by a recursive visitor.
"""

from __future__ import annotations

import ast
import gc
import io
import json
import keyword
import re
import shutil
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from graflow_celery import Settings, WorkflowContext
from graflow_celery.cli.loading import load_workflow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stdlib_census.py"
HANDFUL = ("argparse", "asyncio", "csv", "email", "heapq", "json", "shlex", "textwrap")
SUMS = ("files", "lines", "code", "functions", "classes", "branches", "complexity")
Json = dict[str, Any]
Census = Callable[[Path | None], Json]


def write_workflow(patch: pytest.MonkeyPatch, report: Path, roots: Path | None) -> WorkflowContext:
    """The example's workflow, loaded as the command line loads it: its tasks travel by value."""
    patch.setenv("CENSUS_REPORT_DIR", str(report))
    patch.delenv("CENSUS_ROOTS", raising=False)
    if roots is not None:
        patch.setenv("CENSUS_ROOTS", str(roots))
    return load_workflow(str(EXAMPLE))


def run_census(
    wf: WorkflowContext, backend: Literal["local", "celery"] = "local", settings: Settings | None = None
) -> Json:
    result = wf.execute(backend=backend, settings=settings, timeout=240)
    census: Json = json.loads(Path(result["json"]).read_text(encoding="utf-8"))
    census["page"] = Path(result["html"]).read_text(encoding="utf-8")
    return census


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Census:
    """Runs the census here, over a folder, and returns its report."""
    return lambda roots: run_census(write_workflow(monkeypatch, tmp_path / "report", roots))


def rows_of(census: Json) -> dict[str, Json]:
    return {row["package"]: row for row in census["ranking"]}


# --- a count from tokens ------------------------------------------------------------------------------
# Before Python 3.12 what stands inside of an f-string is no token of its own; the packages above decide nothing there.

BRANCH_WORDS = {"if", "elif", "for", "while", "except", "and", "or"}
INVISIBLE = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}
HEADS = {"def", "class"}


def statements(path: Path) -> Iterator[list[tokenize.TokenInfo]]:
    """The tokens of a file, one logical line after the other; INDENT and DEDENT stand before the line they open."""
    line: list[tokenize.TokenInfo] = []
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.NEWLINE:
                yield line
                line = []
            elif token.type not in INVISIBLE:
                line.append(token)


def count_tokens(path: Path) -> Counter[str]:
    """Counts a file from its tokens and its text."""
    with tokenize.open(path) as text:
        lines = text.readlines()
    docstring_lines: set[int] = set()
    counts: Counter[str] = Counter(files=1, lines=len(lines))
    opens_scope = True  # the first statement of a file can be a docstring
    for statement in statements(path):
        words = [token for token in statement if token.type not in (tokenize.INDENT, tokenize.DEDENT)]
        if not words or words[0].type == tokenize.ENDMARKER:
            continue
        if opens_scope and all(token.type == tokenize.STRING and is_text(token.string) for token in words):
            docstring_lines |= set(range(words[0].start[0], words[-1].end[0] + 1))
        names = [token.string for token in words if token.type == tokenize.NAME]
        counts["functions"] += names.count("def")
        counts["classes"] += names.count("class")
        counts["branches"] += sum(name in BRANCH_WORDS for name in names)
        counts["branches"] += words[0].string == "case" and words[-1].string == ":"
        head = names[1] if names[:1] == ["async"] and len(names) > 1 else names[0] if names else ""
        opens_scope = head in HEADS and words[-1].string == ":"
    for number, line in enumerate(lines, 1):
        counts["code"] += number not in docstring_lines and re.match(r"\s*[^\s#]", line) is not None
    return counts


def is_text(literal: str) -> bool:
    """Whether a string's prefix makes it neither bytes nor an f-string."""
    return not set(literal[: re.search(r"['\"]", literal).start()].lower()) & {"b", "f"}  # type: ignore[union-attr]


def files_of(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


@pytest.fixture
def handful(tmp_path: Path) -> Path:
    """A folder with a few packages of the standard library, in copies."""
    source, target = Path(sysconfig.get_path("stdlib")), tmp_path / "handful"
    for name in HANDFUL:
        for path in files_of(source / name):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return target


def test_a_handful_of_packages_counts_as_its_tokens_do(count: Census, handful: Path) -> None:
    census = count(handful)
    assert sorted(rows_of(census)) == sorted(HANDFUL)
    compared = ("files", "lines", "code", "functions", "classes", "branches")
    everything: Counter[str] = Counter()
    for name, row in rows_of(census).items():
        ours = sum((count_tokens(path) for path in files_of(handful / name)), Counter())
        assert {key: row[key] for key in compared} == {key: ours[key] for key in compared}, name
        everything += ours
    assert {key: census["totals"][key] for key in compared} == {key: everything[key] for key in compared}


@pytest.mark.workers
def test_workers_count_the_same_as_threads(
    count: Census, handful: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graflow_settings: Settings
) -> None:
    there = run_census(write_workflow(monkeypatch, tmp_path / "there", handful), "celery", graflow_settings)
    here = count(handful)
    assert not here["totals"]["work"].keys() & there["totals"]["work"].keys()
    assert numbers_of(here) == numbers_of(there)


def numbers_of(census: Json) -> Json:
    """The report without what differs from run to run: when, how long, and in which process."""
    totals, *rows = [
        {name: value for name, value in row.items() if name != "work"} for row in [census["totals"], *census["ranking"]]
    ]
    kept = {name: value for name, value in census.items() if name not in ("date", "seconds", "page")}
    return {**kept, "totals": totals, "ranking": rows}


# --- a count by a recursive visitor -------------------------------------------------------------------


class Visitor(ast.NodeVisitor):
    """Counts one parsed file. The file itself is the outermost scope."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.imports: set[str] = set()
        self.functions: list[tuple[int, int]] = []  # lines, complexity
        self.docstrings: list[ast.stmt] = []
        self.scopes: list[list[int]] = []

    def scope(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        if ast.get_docstring(node, clean=False) is not None:
            self.docstrings.append(node.body[0])
        self.scopes.append([])
        self.generic_visit(node)
        points = sum(self.scopes.pop())
        self.counts["branches"] += points
        return points

    def visit_Module(self, node: ast.Module) -> None:
        self.scope(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.counts["classes"] += 1
        self.scope(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        assert node.end_lineno is not None
        points = self.scope(node)
        self.counts["functions"] += 1
        self.counts["complexity"] += points + 1
        self.functions.append((node.end_lineno - node.lineno + 1, points + 1))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def one_way_more(self, node: ast.AST) -> None:
        self.scopes[-1].append(1)
        self.generic_visit(node)

    visit_If = visit_IfExp = visit_For = visit_AsyncFor = visit_While = visit_ExceptHandler = one_way_more  # noqa: N815

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.scopes[-1] += [1 for _ in node.values[1:]]
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.scopes[-1] += [1, *(1 for _ in node.ifs)]
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        self.scopes[-1] += [1, 1] if node.guard else [1]
        self.generic_visit(node)

    def leave(self, node: ast.AST) -> None:
        """Nothing below it is counted; to stop here saves half of the time."""

    visit_Constant = visit_Name = leave  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        self.imports |= {alias.name.partition(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self.imports.add(str(node.module).partition(".")[0])


def visit(path: Path) -> Visitor:
    """Counts a file; raises what reading and parsing it raise."""
    with tokenize.open(path) as stream:
        text = stream.read()
    visitor = Visitor()
    visitor.visit(ast.parse(path.read_bytes()))
    lines = io.StringIO(text).readlines()
    visitor.counts.update(files=1, lines=len(lines))
    for docstring in visitor.docstrings:
        first, last = docstring.lineno - 1, docstring.end_lineno or 0
        if lines[first].lstrip()[:1] in "'\"rRuU(" and not keyword.iskeyword(lines[first].split()[0]):
            lines[first:last] = ["\n"] * (last - first)
    visitor.counts["code"] = len(re.findall(r"^[^\S\n]*[^\s#]", "".join(lines), re.MULTILINE))
    return visitor


def library() -> dict[str, dict[str, Path]]:
    """{package: {file: path}} of the standard library."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for root in sorted({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).parts
            name = parts[0].removesuffix(".py")
            if not {"site-packages", "dist-packages", "__pycache__"} & set(parts) and name.isidentifier():
                found[name]["/".join(parts)] = path
    return found


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    """Room for the visitor, and a collector that does not go through all that pytest loaded: that took a third."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    gc.unfreeze()
    sys.setrecursionlimit(limit)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("deep_recursion")
def test_the_whole_standard_library_counts_as_a_visitor_does(count: Census) -> None:
    census = count(None)
    packages = library()
    known = set(packages) | sys.stdlib_module_names
    rows, totals, skipped = rows_of(census), Counter[str](), set[str]()
    lengths: list[int] = []
    complexities: list[int] = []
    assert sorted(rows) == sorted(packages)
    for package, files in packages.items():
        counts: Counter[str] = Counter()
        imports: Counter[str] = Counter()
        longest = 0
        for file, path in files.items():
            try:
                visitor = visit(path)
            except (SyntaxError, ValueError):
                skipped.add(file)
                continue
            counts += visitor.counts
            imports.update((visitor.imports & known) - {package})
            longest = max([longest, *(lines for lines, _ in visitor.functions)])
            lengths += [lines for lines, _ in visitor.functions]
            complexities += [complexity for _, complexity in visitor.functions]
        row = rows[package]
        assert {name: row[name] for name in SUMS} == {name: counts[name] for name in SUMS}, package
        assert row["imports"] == dict(imports), package
        assert [function["lines"] for function in row["longest"]] == ([longest] if longest else []), package
        totals += counts
    assert {name: census["totals"][name] for name in SUMS} == {name: totals[name] for name in SUMS}
    assert {entry["file"] for entry in census["totals"]["skipped"]} == skipped
    assert [function["lines"] for function in census["totals"]["longest"]] == sorted(lengths)[:-11:-1]
    assert [function["complexity"] for function in census["totals"]["most_complex"]] == sorted(complexities)[:-11:-1]


# --- input that is not as it should be ----------------------------------------------------------------


def test_files_that_cannot_be_counted_are_skipped_and_said(count: Census, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "mixed" / "site-packages").mkdir(parents=True)
    (tree / "mixed" / "site-packages" / "foreign.py").write_text("x = 1\n", encoding="utf-8")
    (tree / "good.py").write_text("def f(x):\n    return x if x else None\n", encoding="utf-8")
    (tree / "mixed" / "undecodable.py").write_bytes(b"name = '\xff'\n")
    (tree / "mixed" / "unknown.py").write_bytes(b"# coding: no-such-encoding\n")
    (tree / "mixed" / "unparsable.py").write_bytes(b"x = 1\ndef (:\n")
    (tree / "mixed" / "null.py").write_bytes(b"x = '\0'\n")
    (tree / "mixed" / "deep.py").write_text("x = " + "(" * 500 + ")" * 500, encoding="utf-8")
    (tree / "mixed" / "chain.py").write_text("x = " + " + ".join(["1"] * 900), encoding="utf-8")
    (tree / "mixed" / "dangling.py").symlink_to(tree / "nowhere.py")
    (tree / "mixed" / "latin.py").write_bytes(b"# coding: latin-1\nname = '\xff'\r\n")
    census = count(tree)
    reasons = {entry["file"].removeprefix("mixed/"): entry["reason"] for entry in census["totals"]["skipped"]}
    assert sorted(reasons) == ["dangling.py", "deep.py", "null.py", "undecodable.py", "unknown.py", "unparsable.py"]
    assert reasons["undecodable.py"].startswith("cannot be decoded: ")
    assert reasons["unknown.py"] == "cannot be decoded: unknown encoding: no-such-encoding"
    assert re.fullmatch(r"cannot be parsed: .*, line 2", reasons["unparsable.py"])
    assert reasons["dangling.py"].startswith("cannot be read: ")
    assert all(f"mixed/{file}" in census["page"] for file in reasons)
    assert "No package here imports another" in census["page"]
    rows = rows_of(census)
    assert {name: rows["mixed"][name] for name in ("files", "lines", "code")} == {"files": 2, "lines": 3, "code": 2}
    assert [rows["good"][name] for name in ("lines", "functions", "branches", "complexity")] == [2, 1, 1, 2]


def test_warnings_about_counted_files_stay_silent(count: Census, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "odd.py").write_text("pattern = '\\d'\n", encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        census = count(tmp_path / "tree")
    assert not caught
    assert census["totals"]["files"] == 1


def test_a_package_of_many_files_is_shared_out_and_put_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    many = tmp_path / "tree" / "many"
    many.mkdir(parents=True)
    for number in range(301):
        (many / f"m{number}.py").write_text("import json\n", encoding="utf-8")
    wf = write_workflow(monkeypatch, tmp_path / "report", tmp_path / "tree")
    assert {"many.1", "many.2", "many.3"} <= set(wf.graph.nodes)
    rows = rows_of(run_census(wf))
    assert list(rows) == ["many"]
    assert [rows["many"]["files"], rows["many"]["lines"], rows["many"]["imports"]] == [301, 301, {"json": 301}]


def test_folders_without_python_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"CENSUS_ROOTS: no Python package or module in "):
        write_workflow(monkeypatch, tmp_path, tmp_path)
