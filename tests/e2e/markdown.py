"""The pages that a person reads, as data: their code blocks, links, headings and the words in code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"`(?P<code>[^`\n]+)`")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)

#: What differs from run to run, and what it is compared as.
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{16}\b"), "<run>"),
    (re.compile(r"\b\w+@[\w.-]+"), "<worker>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<clock>"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|KB|MB|B)(?!\w)|\b\d+(\.\d+)?s\b"), "<amount>"),
    (re.compile(r"\b(process|pid) \d+\b"), r"\1 <pid>"),
    (re.compile(r"Error \d+ connecting"), "Error connecting"),
    (re.compile(r"^ +slowest .*\n", re.MULTILINE), ""),  # told of a run whose tasks took some time
    (re.compile(r"^ +(path|waiting) .*$", re.MULTILINE), r"\1"),  # which member comes last is chance
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the line of the page on which the text begins."""

    kind: str
    text: str
    line: int

    @property
    def file_name(self) -> str:
        """The name in a first line ``# etl.py``, or one made of the line's number."""
        named = re.match(r"# ([\w.-]+\.py)\n", self.text)
        return named[1] if named else f"block_{self.line}.py"


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(found["kind"], found["text"], self.text.count("\n", 0, found.start("text")) + 1)
            for found in _BLOCK.finditer(self.text)
        ]

    @cached_property
    def prose(self) -> str:
        """The text without its blocks."""
        return _BLOCK.sub("", self.text)

    @property
    def links(self) -> list[str]:
        return [found["target"] for found in _LINK.finditer(self.prose)]

    @property
    def codes(self) -> list[str]:
        return [found["code"].replace(r"\|", "|") for found in _CODE.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """The headings' names in links, as GitHub makes them."""
        return {
            re.sub(r"[^\w\- ]", "", found["text"].lower()).replace(" ", "-") for found in _HEADING.finditer(self.prose)
        }

    def rows_after(self, heading: str) -> list[list[str]]:
        """The cells of the first table after a line that begins with ``heading``, without its head."""
        lines = self.text[self.text.index(f"\n{heading}") :].splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("| ---"))
        rows: list[list[str]] = []
        for line in lines[start + 1 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        return rows


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in found]


def same_output(shown: str, real: str) -> bool:
    """Whether a page shows what really comes out, but for ids, names of workers, times and sizes.

    A line ``...`` on the page stands for any number of lines.
    """
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + r"\n" for line in normalised(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in normalised(real))) is not None


def normalised(text: str) -> list[str]:
    for pattern, name in _VARIABLE:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.strip().splitlines()]
