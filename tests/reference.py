"""docs/reference.md, made from the public names and their docstrings: ``python -m tests.reference`` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import graflow_celery
from graflow_celery.errors import GraflowError
from tests.e2e.markdown import ROOT

PAGE = ROOT / "docs" / "reference.md"

HEAD = """# Reference

Every name that `graflow_celery` offers, with the first paragraph of its docstring: your editor and
`help(graflow_celery.task)` have the rest. What things mean is told in [what a workflow means](meaning.md).

<!-- made by `python -m tests.reference`; a test holds it to the code -->
"""

#: Titles by the package that a name comes from.
SECTIONS = {
    "workflows": "Workflows",
    "core": "Tasks, groups and policies",
    "engine": "Inside of a run",
    "runs": "Runs on workers",
    "celery_backend": "Runs on workers",
    "resuming": "Checkpoints",
    "feedback": "Answers for tasks that ask",
    "settings": "Settings",
}
OTHERS = "More"
PUBLIC = {getattr(graflow_celery, name) for name in graflow_celery.__all__}
ERRORS = "Errors"


def reference() -> str:
    """The page."""
    sections: dict[str, list[str]] = {title: [] for title in (*SECTIONS.values(), OTHERS, ERRORS)}
    for name in sorted(graflow_celery.__all__, key=str.lower):
        found = getattr(graflow_celery, name)
        if inspect.isclass(found) and issubclass(found, GraflowError):
            meaning = paragraph(found).replace("|", r"\|")
            sections[ERRORS].append(f"| `{name}` | {meaning} | {found.exit_code} |")
        else:
            home = found.__module__.split(".")[1]
            sections[SECTIONS.get(home, OTHERS)].append("\n".join(entry(name, found)))
    table = ["| error | meaning | exit status |", "| --- | --- | --- |", *sections.pop(ERRORS)]
    parts = [f"## {title}\n\n" + "\n\n".join(entries) for title, entries in sections.items() if entries]
    return "\n".join([HEAD, "\n\n".join(parts), f"\n## {ERRORS}\n", *table]) + "\n"


def entry(name: str, found: Any) -> Iterator[str]:
    """A function or a class, and of that what it offers itself."""
    yield f"### {name}\n"
    made_by_nobody = inspect.isclass(found) and (issubclass(found, Enum) or getattr(found, "_is_protocol", False))
    yield paragraph(found) if made_by_nobody else f"`{signature(name, found)}`: {paragraph(found)}"
    if inspect.isclass(found):
        members = list(offered(found))
        if members:
            yield ""
        yield from members


def offered(kind: type) -> Iterator[str]:
    """The public members of a class in the order of their writing, without those of a base that has an entry itself."""
    if issubclass(kind, Enum):
        yield "Values: " + ", ".join(f"`{member.value!r}`" for member in kind) + "."
        return
    seen: set[str] = set()
    for owner in kind.__mro__:
        if not owner.__module__.startswith("graflow_celery.") or (owner is not kind and owner in PUBLIC):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(function, property):
                yield item(f"`{name}`", paragraph(function))
            elif inspect.isfunction(function):
                wait = "await " if inspect.iscoroutinefunction(function) else ""
                called = signature(name, function, bound=not isinstance(member, staticmethod))
                yield item(f"`{wait}{called}`", paragraph(function))


def item(shown: str, text: str) -> str:
    return f"- {shown}: {text}" if text else f"- {shown}"


def signature(name: str, found: Any, *, bound: bool = False) -> str:
    """How it is called, without types."""
    parameters = list(inspect.signature(found).parameters.values())[int(bound) :]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{name}{inspect.Signature(bare)}"


def paragraph(found: Any) -> str:
    """The first paragraph of its docstring as Markdown, on one line."""
    text = (inspect.getdoc(found) or "").partition("\n\n")[0]
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split()).removesuffix("::")


def main() -> None:
    PAGE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
