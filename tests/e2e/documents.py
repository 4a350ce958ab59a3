"""Reads the project's Markdown: its blocks by kind, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "jobs/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
PROGRAMS = ("egra-dist", "make", "python", "mlflow", "ray", "kubectl", "docker", "pip", "curl")
_KINDS = {"console": "console", "bash": "console", "sh": "console", "yaml": "yaml"}
_KINDS |= {"python": "python", "json": "json", "text": "text"}
_PROMPT = "$ "
_HERE = re.compile(r"<<'?(\w+)'?\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: The file.
        line: Where it begins.
        kind: ``console``, ``python``, ``yaml``, ``json`` or ``text``.
        text: What it holds.
        title: Name of the file that it shows; empty if it shows none.
    """

    page: Path
    line: int
    kind: str
    text: str
    title: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass
class Command:
    """A command line of a document, and what the document says it prints."""

    block: Block
    text: str
    output: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[list[str]]:
        """The words of each program of a pipeline; what follows ``>`` is left out."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        parts: list[list[str]] = [[]]
        words = iter(lexer)
        for word in words:
            if word in (">", ">>", "<"):
                next(words)
            elif set(word) <= set("|&;"):
                parts.append([])
            else:
                parts[-1].append(word)
        return [part for part in parts if part]


def blocks(page: Path) -> list[Block]:
    """Every block of code of a page, of a known kind."""
    found = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block") and token.map:
            language = token.info.split()[0] if token.info.strip() else ""
            title = re.search(r'title="([^"]+)"', token.info)
            kind = _KINDS[language] if language else _guessed(token.content)
            name = title.group(1) if title else ""
            found.append(Block(page, token.map[0] + 1, kind, token.content, name))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block; with prompts, what follows one is its output."""
    has_prompts = _PROMPT.strip() in {line[:1] for line in block.text.splitlines()}
    found: list[Command] = []
    for line in _whole_lines(block.text):
        if has_prompts and not line.startswith(_PROMPT):
            found[-1].output.append(line)
        elif line.strip() and not line.startswith("#"):
            found.append(Command(block, line.removeprefix(_PROMPT).strip()))
    return found


def inline_codes(page: Path) -> Iterator[str]:
    """What stands between backticks in the text."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def links(page: Path) -> Iterator[str]:
    """Targets of the links and pictures of a page that lie in the repository."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            target = str(child.attrs.get("href") or child.attrs.get("src") or "")
            if target and "://" not in target and not target.startswith("mailto:"):
                yield target


def is_command(line: str) -> bool:
    """Whether a line calls a program."""
    words = line.strip().removeprefix(_PROMPT).split()
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return bool(words) and words[0] in PROGRAMS and len(words) > 1


def whole_commands(page: Path) -> list[Command]:
    """Commands within the text, but for mentions of a verb and forms to fill in."""
    found = []
    for code in dict.fromkeys(inline_codes(page)):
        is_form = re.search(r"\b[A-Z]{2,}\b|\.\.\.|[<|>]", code) or len(code.split()) < 4
        if is_command(code) and (code.split()[0] in ("make", "python") or not is_form):
            found.append(Command(Block(page, 0, "console", code), code))
    return found


def scripts(block: Block) -> list[str]:
    """What a console block gives to ``python -`` by ``<<END``."""
    return [found.group(2) for found in _HERE.finditer(block.text)]


def _whole_lines(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", _HERE.sub("", text)).splitlines()


def _guessed(text: str) -> str:
    """The kind of a block that does not say it."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(is_command(line) for line in lines):
        return "console"
    if lines and lines[0].startswith(("from ", "import ")):
        return "python"
    try:
        is_mapping = isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        is_mapping = False
    return "yaml" if is_mapping else "text"
