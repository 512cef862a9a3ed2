"""A census of the Python standard library: what lies in it, counted package by package, told on a page.

    discover >> packages (a group: one member for each top-level package or module) >> rank >> report

Run it:

    graflow-celery demo                                       a server and two workers of its own
    graflow-celery run examples/stdlib_census.py              on workers
    python examples/stdlib_census.py --backend local|celery   here in threads, or on workers

What is counted (the names are those of census.json):

    lines       lines of a file
    code        lines that are not blank, do not start with "#" and do not belong to a docstring; a docstring is a
                string that opens a module, class or function on a line of its own
    functions   every `def`, methods, nested and async ones too; no lambdas
    branches    points where a program decides: if, elif, for, while, except, case, a condition in an expression, each
                further operand of `and` and `or`, each `for` and `if` of a comprehension
    complexity  of a function: 1 + its branches, without those of functions and classes defined in it (McCabe's number,
                for Python); of a package: the sum over its functions
    imports     {top-level module of the standard library: files that import it}, absolute imports of others only
    skipped     files that cannot be read, decoded or parsed, with the reason; they count in nothing else

A member that dies with its worker is counted again elsewhere. A package of many files (`test` holds half of all code)
is shared out to several members, whose counts `rank` adds up.

Environment: CENSUS_REPORT_DIR, where the report goes (./report); CENSUS_ROOTS, folders to count instead of the standard
library, separated as in PATH. Both are read where the workflow is written; workers need neither.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import html
import json
import math
import os
import platform
import socket
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from functools import reduce
from importlib.util import decode_source
from pathlib import Path
from string import Template
from typing import Any

from graflow_celery import GraflowError, ParallelGroup, WorkflowContext, task, workflow

Json = dict[str, Any]
Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

NOT_OURS = ("site-packages", "dist-packages", "__pycache__")
FILES_PER_MEMBER = 150
TOP = 10
GRAPH_SIZE = 20
PARSE_RETRIES = 4
SOURCE_NAME = "<census>"  # what `ast` takes for the name of every file, so that its warnings can be told from others
SUMS = ("files", "lines", "code", "functions", "classes", "branches", "complexity")
INNER_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)


# --- what there is ------------------------------------------------------------------------------------


def stdlib_roots() -> list[str]:
    """Where this Python keeps its standard library: one folder on most systems, two on some."""
    return list(dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")))


def list_packages(roots: Sequence[str]) -> dict[str, dict[str, int]]:
    """{package: {file: which root}} of all importable packages and modules under the roots, in order."""
    found: dict[str, dict[str, int]] = {}
    for index, root in enumerate(roots):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in NOT_OURS]
            for name in names:
                file = Path(folder, name).relative_to(root).as_posix()
                package = file.split("/")[0].removesuffix(".py")
                if file.endswith(".py") and package.isidentifier():
                    found.setdefault(package, {}).setdefault(file, index)
    return {package: dict(sorted(files.items())) for package, files in sorted(found.items())}


# --- counting -----------------------------------------------------------------------------------------


def no_tally(package: str) -> Json:
    """The counts of nothing: what :func:`added` starts from."""
    empty: Json = {"longest": [], "most_complex": [], "skipped": [], "imports": {}, "work": {}}
    return {"package": package, **dict.fromkeys(SUMS, 0), **empty}


def added(one: Json, other: Json) -> Json:
    """The sum of two tallies. Of the functions, the first few by length and by complexity are kept."""
    total: Json = {"package": one["package"], **{name: one[name] + other[name] for name in SUMS}}
    for name, size in (("longest", "lines"), ("most_complex", "complexity")):
        functions = one[name] + other[name]
        functions.sort(key=lambda function: (-function[size], function["file"], function["line"]))
        total[name] = functions[:TOP]
    total["skipped"] = one["skipped"] + other["skipped"]
    for name in ("imports", "work"):
        total[name] = dict(Counter(one[name]) + Counter(other[name]))
    return total


def tally_of(source: str, file: str, package: str, stdlib: Container[str]) -> Json:
    """Counts one file. Walks without recursion: some files nest deeper than Python's stack.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: what `ast.parse` says of a source it cannot parse.
    """
    tree = parsed(source)
    lines = source.removesuffix("\n").split("\n") if source else []
    total = no_tally(package) | {"files": 1, "lines": len(lines), "code": sum(map(is_code, lines))}
    imports: set[str] = set()
    functions: list[Json] = []
    scopes: list[tuple[Scope, str]] = [(tree, "")]
    while scopes:
        scope, name = scopes.pop()
        branches = 0
        stack: list[ast.AST] = [scope]
        while stack:
            for child in ast.iter_child_nodes(stack.pop()):
                if isinstance(child, INNER_SCOPES):
                    scopes.append((child, f"{name}.{child.name}" if name else child.name))
                    continue
                stack.append(child)
                branches += decisions(child)
                imports.update(imported(child))
        total["branches"] += branches
        total["code"] -= sum(map(is_code, docstring_lines(scope, lines)))
        if isinstance(scope, ast.ClassDef):
            total["classes"] += 1
        elif not isinstance(scope, ast.Module):
            length = (scope.end_lineno or scope.lineno) - scope.lineno + 1
            place = {"name": name, "file": file, "line": scope.lineno}
            functions.append({**place, "lines": length, "complexity": branches + 1})
    total |= {"functions": len(functions), "complexity": sum(function["complexity"] for function in functions)}
    total["imports"] = {name: 1 for name in sorted(imports) if name != package and name in stdlib}
    return added(no_tally(package), total | {"longest": functions, "most_complex": list(functions)})


def parsed(source: str) -> ast.Module:
    """The tree of a source. Threads that parse at the same time can disturb each other in some releases of Python 3.11
    and 3.12 (python/cpython#106905), which ends in a SystemError; a second try helps."""
    for _ in range(PARSE_RETRIES):
        with contextlib.suppress(SystemError):
            return ast.parse(source, SOURCE_NAME)
    return ast.parse(source, SOURCE_NAME)


def is_code(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith("#")


def docstring_lines(scope: Scope, lines: Sequence[str]) -> Sequence[str]:
    """The lines of a scope's docstring; none if it stands behind other code, as in `def f(): "..."`."""
    match scope.body:
        case [ast.Expr(value=ast.Constant(value=str())) as first, *_]:
            alone = not lines[first.lineno - 1][: first.col_offset].strip()
            return lines[first.lineno - 1 : first.end_lineno] if alone else ()
    return ()


def decisions(node: ast.AST) -> int:
    """How many ways out of a node there are beside the straight one."""
    if isinstance(node, DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return 1 + (node.guard is not None) if isinstance(node, ast.match_case) else 0


def imported(node: ast.AST) -> Iterable[str]:
    """The top-level modules that a statement imports by their absolute names."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return ()


# --- the tasks ----------------------------------------------------------------------------------------


@task
def discover(roots: list[str] | None = None) -> Json:
    """Lists the files of every package on the machine that runs this."""
    roots = roots or stdlib_roots()
    return {
        "roots": roots,
        "packages": list_packages(roots),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "started": time.time(),
    }


@task
def census_package(discover: Json, package: str, part: int = 0, parts: int = 1) -> Json:
    """Counts every `parts`-th file of a package, beginning with file number `part`."""
    warnings.filterwarnings("ignore", module=SOURCE_NAME)  # what the counted sources do wrong is not our news
    began = time.thread_time()
    stdlib = {*sys.stdlib_module_names, *discover["packages"]}
    total = no_tally(package)
    for file, root in [*discover["packages"].get(package, {}).items()][part::parts]:
        step = "read"
        try:
            data = Path(discover["roots"][root], file).read_bytes()
            step = "decoded"
            source = decode_source(data)
            step = "parsed"
            total = added(total, tally_of(source, file, package, stdlib))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            said = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            total["skipped"].append({"file": file, "reason": f"cannot be {step}: {said}{where}"})
    total["work"] = {f"{socket.gethostname()}, process {os.getpid()}": round(time.thread_time() - began, 6)}
    return total


@task
def rank(packages: dict[str, Json]) -> Json:
    """Adds up the members' counts: by package, largest first, and all together. Says who imports whom."""
    merged: dict[str, Json] = {}
    for part in packages.values():
        name = part["package"]
        merged[name] = added(merged.get(name, no_tally(name)), part)
    totals = reduce(added, merged.values(), no_tally("all"))
    importers = Counter(name for row in merged.values() for name in row["imports"])
    ranking = sorted(merged.values(), key=lambda row: (-row["lines"], row["package"]))
    for row in ranking:
        row["imported_by"] = importers[row["package"]]
        row["longest"], row["most_complex"] = row["longest"][:1], row["most_complex"][:1]
    return {"totals": totals | {"packages": len(merged)}, "ranking": ranking, "graph": graph_of(ranking)}


def graph_of(rows: Sequence[Json]) -> Json:
    """The imports among the packages with the most of them. `test` is left out: it imports everything."""
    counted = {row["package"] for row in rows} - {"test"}
    links = [
        [row["package"], name, files]
        for row in rows
        for name, files in row["imports"].items()
        if counted.issuperset((row["package"], name))
    ]
    degrees = Counter(name for link in links for name in link[:2])
    chosen = sorted(sorted(degrees), key=lambda name: -degrees[name])[:GRAPH_SIZE]
    return {"packages": sorted(chosen), "links": [link for link in links if link[0] in chosen and link[1] in chosen]}


@task
def report(rank: Json, discover: Json, directory: str) -> Json:
    """Writes census.json and census.html. A second writing puts the same in place of the first."""
    about = {name: discover[name] for name in ("python", "platform", "roots")}
    seconds = round(time.time() - discover["started"], 2)
    missed = sorted(discover["packages"].keys() - {row["package"] for row in rank["ranking"]})
    skipped = [{"file": name, "reason": "not on the machine where the workflow was written"} for name in missed]
    totals = rank["totals"] | {"skipped": rank["totals"]["skipped"] + skipped}
    census = {**about, "date": time.strftime("%Y-%m-%d %H:%M %Z"), "seconds": seconds, **rank, "totals": totals}
    texts = {"json": json.dumps(census, indent=1), "html": page(census)}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    places = {kind: str(folder / f"census.{kind}") for kind in texts}
    for kind, text in texts.items():
        unfinished = Path(f"{places[kind]}.{socket.gethostname()}.{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(places[kind])
    sums = {name: totals[name] for name in ("packages", *SUMS)} | {"skipped": len(totals["skipped"])}
    top = [{name: row[name] for name in ("package", "files", "lines", "functions")} for row in rank["ranking"][:TOP]]
    return {**places, "totals": sums, "top": top}


def build() -> WorkflowContext:
    """The workflow for the packages of this machine.

    Raises:
        ValueError: CENSUS_ROOTS names folders without a Python file.
    """
    chosen = [str(Path(root).resolve()) for root in os.environ.get("CENSUS_ROOTS", "").split(os.pathsep) if root]
    directory = str(Path(os.environ.get("CENSUS_REPORT_DIR") or "report").resolve())
    found = list_packages(chosen or stdlib_roots())
    if not found:
        raise ValueError(f"CENSUS_ROOTS: no Python package or module in {os.pathsep.join(chosen)}.")
    with workflow("stdlib_census") as wf:
        members = []
        for package in sorted(found, key=lambda name: -len(found[name])):  # small ones fill up at the end
            parts = math.ceil(len(found[package]) / FILES_PER_MEMBER)
            for part in range(parts):
                member = f"{package}.{part + 1}" if parts > 1 else package
                members.append(census_package(task_id=member, package=package, part=part, parts=parts))
        first = discover(task_id="discover", roots=chosen or None)
        last = report(task_id="report", directory=directory)
        first >> ParallelGroup(members, name="packages") >> rank >> last
    return wf


# --- the page -----------------------------------------------------------------------------------------


def page(census: Json) -> str:
    """The report as one HTML file that needs nothing else."""
    totals, rows, processes = census["totals"], census["ranking"], len(census["totals"]["work"])
    shown = ("packages", "files", "lines", "code", "functions", "classes", "branches")
    skipped = [f"<tr><td>{html.escape(it['file'])}<td>{html.escape(it['reason'])}" for it in totals["skipped"]]
    return Template(PAGE).substitute(
        {name: html.escape(census[name]) for name in ("python", "platform", "date")},
        seconds=f"{census['seconds']:.1f}",
        processes=f"{processes} processes" if processes > 1 else "one process",
        tiles="".join(f"<div><b>{totals[name]:,}</b><span>{name}</span></div>" for name in shown),
        band=band(rows, totals["lines"]),
        rows="".join(ranking_rows(rows)),
        row_count=len(rows),
        graph=drawing(census["graph"], {row["package"]: row["lines"] for row in rows}),
        longest=bars(totals["longest"], "lines"),
        complex=bars(totals["most_complex"], "complexity"),
        skipped="".join(skipped),
        skipped_count=len(skipped) or "none",
    )


def band(rows: Sequence[Json], lines: int) -> str:
    """All lines as one band, cut by package: the seven largest and the rest."""
    parts = [(row["package"], row["lines"]) for row in rows[:7]]
    parts.append((f"{len(rows) - len(parts)} others", lines - sum(size for _, size in parts)))
    shares = [(name, 100 * size / lines, index) for index, (name, size) in enumerate(parts) if size > 0]
    pieces = "".join(f'<i class=s{index} style="flex:{share:.2f}"></i>' for _, share, index in shares)
    key = "".join(f"<li><i class=s{index}></i>{name} <b>{share:.0f} %</b>" for name, share, index in shares)
    return f"<div class=band>{pieces}</div><ul class=key>{key}</ul>"


def ranking_rows(rows: Sequence[Json]) -> Iterable[str]:
    """Rows with bars to the scale of the second: the first may be many times as large, and its bar says so."""
    scale = max([row["lines"] for row in rows[1:]], default=0) or 1
    for place, row in enumerate(rows, 1):
        wide = [f"<td class='n w'>{row[name]:,}" for name in ("files", "code", "classes", "imported_by")]
        mean = f"{row['complexity'] / row['functions']:.1f}" if row["functions"] else "&ndash;"
        yield (
            f"<tr><td class='n dim'>{place}<th>{row['package']}<span class='bar{' beyond' * (row['lines'] > scale)}' "
            f"style='--w:{min(100, 100 * row['lines'] / scale):.1f}%'></span><td class=n>{row['lines']:,}"
            f"{''.join(wide)}<td class=n>{row['functions']:,}<td class='n w'>{mean}"
        )


def bars(functions: Sequence[Json], size: str) -> str:
    """Functions as a list of bars."""
    return "".join(
        f"<li><code>{html.escape(it['name'])}</code><b>{it[size]:,}</b>"
        f"<span class=bar style='--w:{100 * it[size] / functions[0][size]:.1f}%'></span>"
        f"<small>{html.escape(it['file'])}:{it['line']}</small>"
        for it in functions
    )


def drawing(graph: Json, lines: dict[str, int]) -> str:
    """Packages on a circle, imports as threads through it; a dot's area is the package's lines."""
    names, links, out = graph["packages"], graph["links"], []
    if not names:
        return "<p>No package here imports another."
    turn = {name: 2 * math.pi * index / len(names) for index, name in enumerate(names)}
    at = {name: (130 * math.sin(angle), -130 * math.cos(angle)) for name, angle in turn.items()}
    for source, target, files in links:
        (x, y), (u, v) = at[source], at[target]
        curve = f"M{x:.1f} {y:.1f}Q{(x + u) / 6:.1f} {(y + v) / 6:.1f} {u:.1f} {v:.1f}"
        width = 0.7 + math.log2(files) / 3
        out.append(f"<path data-a={source} data-b={target} d='{curve}' stroke-width={width:.2f} />")
    for name in names:
        (x, y), right = at[name], turn[name] < math.pi
        uses, used = (sum(link[side] == name for link in links) for side in (0, 1))
        radius = 2.5 + 6 * math.sqrt(lines[name] / max(lines[each] for each in names))
        degrees = math.degrees(turn[name]) - (90 if right else 270)
        place = f"transform='rotate({degrees:.1f}) translate({142 if right else -142})'"
        out.append(
            f"<g tabindex=0 data-n={name} data-says='imports {uses} of these and is imported by {used}'>"
            f"<circle cx={x:.1f} cy={y:.1f} r={radius:.1f} />"
            f"<text {place} dy=.35em text-anchor={'start' if right else 'end'}>{name}</text></g>"
        )
    return f"<svg viewBox='-220 -220 440 440' role=img aria-label='Import graph'>{''.join(out)}</svg>"


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">
<title>Census of the standard library: $python</title>
<style>
:root{color-scheme:light dark;--paper:#faf9f6;--card:#fff;--ink:#1c2430;--dim:#667080;--rule:#e4e1da;--blue:#2f6ca3;
--gold:#d99a00;--deep:#946500}
@media(prefers-color-scheme:dark){:root{--paper:#12161c;--card:#1a2028;--ink:#e6e9ee;--dim:#97a1af;--rule:#2b333e;
--blue:#6fb1ea;--gold:#ffd343;--deep:#ffd343}}
*{box-sizing:border-box}[hidden]{display:none!important}
body{margin:0 auto;max-width:1060px;padding:48px 24px 80px;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:clamp(28px,5vw,46px);line-height:1.1;letter-spacing:-.02em;margin:0 0 12px;text-wrap:balance}
h2{font-size:21px;margin:56px 0 4px}
p{margin:4px 0 16px;color:var(--dim);max-width:70ch;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(7,1fr);gap:1px;margin:28px 0 32px;
background:var(--rule);border:1px solid var(--rule);border-radius:12px;overflow:hidden}
.tiles div{background:var(--card);padding:14px 16px}
.tiles b{display:block;font-size:22px;letter-spacing:-.02em}
.tiles span,small,.dim{color:var(--dim);font-size:13px}
.band{display:flex;gap:2px;height:34px;border-radius:8px;overflow:hidden}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:12px 0 0;font-size:14px}
.key i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
i{background:color-mix(in srgb,var(--blue) var(--m,100%),var(--rule))}
.s0{background:var(--gold)}.s2{--m:85%}.s3{--m:70%}.s4{--m:56%}.s5{--m:43%}.s6{--m:30%}.s7{--m:8%}
table{border-collapse:collapse;width:100%;font-size:15px}
td,th{padding:7px 10px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top;font-weight:400}
thead th{position:sticky;top:0;background:var(--paper);font-size:13px;color:var(--dim);vertical-align:bottom}
tbody th{font-weight:600;width:34%}
.n{text-align:right;font-variant-numeric:tabular-nums}
button{all:unset;cursor:pointer;border-radius:4px}
button:hover,a{color:var(--blue)}
button:focus-visible,g:focus-visible{outline:2px solid var(--blue)}
th[aria-sort] button{color:var(--ink);font-weight:600}
th[aria-sort=descending] button::after{content:" \\2193"}th[aria-sort=ascending] button::after{content:" \\2191"}
.bar{display:block;height:5px;margin-top:4px;border-radius:3px;width:max(var(--w),2px);background:var(--blue)}
.beyond{background:linear-gradient(90deg,var(--gold) 80%,transparent)}
.few tbody tr:nth-child(n+26){display:none}
.all{margin:16px 0;padding:7px 16px;border:1px solid var(--rule);border-radius:99px;font-size:14px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 48px}
ol{list-style:none;padding:0;margin:12px 0 0}
ol li{display:grid;grid-template-columns:1fr auto;gap:0 12px;padding:7px 0;font-size:14px}
ol .bar,ol small{grid-column:1/-1}
code,small,.files td:first-child{font:13px ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
ol small{margin-top:4px}.files{font-size:14px}.files td:first-child{width:40%}
figure{margin:12px 0;display:grid;justify-items:center}
figcaption{min-height:3em;text-align:center;color:var(--dim);font-size:14px}
svg{width:100%;max-width:680px;height:auto}
path{fill:none;stroke:var(--blue);opacity:.26;transition:opacity .15s}
g{cursor:pointer;outline-offset:2px}circle{fill:var(--blue);stroke:var(--paper);stroke-width:1.5}
text{fill:var(--ink);font-size:12.5px}
.lit path{opacity:.04}.lit .out{opacity:.95}.lit .in{opacity:.95;stroke:var(--gold)}
.lit g{opacity:.3}.lit g.near{opacity:1}
.out{color:var(--blue)}.in{color:var(--deep)}
@media(max-width:900px){.tiles{grid-template-columns:repeat(4,1fr)}.tiles div:first-child{grid-column:span 2}}
@media(max-width:640px){body{padding:28px 16px 56px}.w{display:none}.two{display:block}td,th{padding:7px 6px}
.files td{display:block;width:auto!important;border:0;padding:0}.files td+td{margin-bottom:12px}
table{font-size:14px}.tiles{grid-template-columns:1fr 1fr}.tiles div:first-child{grid-column:1/-1}}
</style>
<header><h1>The standard library of $python, counted</h1>
<p>On $date by $processes in $seconds seconds.<br>$platform</header>
<section class=tiles>$tiles</section>
$band
<h2>Packages by size</h2>
<p>One row for each top-level package or module. Press a heading to sort by it.
<table id=ranking><thead><tr><th class=n>#<th><button>package</button>
<th class=n aria-sort=descending><button>lines</button><th class="n w"><button>files</button>
<th class="n w"><button>code</button><th class="n w"><button>classes</button>
<th class="n w"><button>imported by</button><th class=n><button>functions</button>
<th class="n w"><button>complexity</button><tbody>$rows</table>
<button class=all hidden>Show all $row_count</button>
<h2>Who imports whom</h2>
<p>The packages with the most imports among each other (<code>test</code> imports everything and is left out).
Point at a name: <b class=out>what it imports</b>, <b class=in>what imports it</b>.
<figure>$graph<figcaption aria-live=polite>Dots show size, threads the number of importing files.</figcaption></figure>
<div class=two>
<section><h2>The longest functions</h2><p>Lines, from <code>def</code> to the end.<ol>$longest</ol></section>
<section><h2>The most complex functions</h2><p>One, and one more for each branch.<ol>$complex</ol></section></div>
<h2>Skipped files: $skipped_count</h2>
<p>They count in nothing above. Most such files are broken on purpose, for a test.
<table class=files><tbody>$skipped</table>
<h2>What the words mean</h2>
<p><b>Code</b>: lines that are not blank, no comment and no docstring. <b>Branches</b>: if, elif, for, while, except,
case, conditional expressions, further operands of and/or, each for and if of a comprehension.
<b>Complexity</b> of a package: the mean of its functions. All numbers: <a href=census.json>census.json</a>.
<script>
const table = document.querySelector("#ranking"), body = table.tBodies[0], more = document.querySelector(".all");
const compare = new Intl.Collator("en", {numeric: true}).compare;
const value = (row, i) => row.cells[i].textContent.replaceAll(",", "");
table.querySelectorAll("button").forEach(button => button.onclick = () => {
  const head = button.parentElement, i = head.cellIndex, old = head.getAttribute("aria-sort");
  const sign = (old ? old == "ascending" : i != 1) ? -1 : 1;
  table.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
  body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, i), value(b, i))));
});
if (body.rows.length > 30) { table.className = "few"; more.hidden = false; }
more.onclick = () => { table.className = ""; more.hidden = true; };
const svg = document.querySelector("svg"), caption = document.querySelector("figcaption"), says = caption.textContent;
const light = it => {
  const name = it?.dataset.n, near = new Set([name]);
  svg.classList.toggle("lit", !!it);
  svg.querySelectorAll("path").forEach(({dataset: {a, b}, classList}) => {
    classList.toggle("out", a == name); classList.toggle("in", b == name);
    if (a == name) near.add(b);
    if (b == name) near.add(a);
  });
  svg.querySelectorAll("g").forEach(({dataset, classList}) => classList.toggle("near", near.has(dataset.n)));
  caption.textContent = it ? name + " " + it.dataset.says : says;
};
svg.querySelectorAll("g").forEach(g => {
  g.onpointerenter = g.onfocus = () => light(g);
  g.onpointerleave = g.onblur = () => light();
});
</script>
"""


# --- the program --------------------------------------------------------------------------------------

wf = build()


def main() -> int:
    parser = argparse.ArgumentParser(description="A census of the Python standard library.")
    parser.add_argument("--backend", choices=("local", "celery"), default="local", help="threads here, or workers")
    backend = parser.parse_args().backend
    try:
        result: Json = wf.execute(backend=backend)
    except GraflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("  ".join(f"{size:,} {name}" for name, size in result["totals"].items()))
    for row in result["top"][:5]:
        print(f"{row['lines']:>10,} lines  {row['package']}")
    print(f"Report: {result['html']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
