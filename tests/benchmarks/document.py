"""Puts measured tables into the documents."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def replace_between(name: str, markers: tuple[str, str], table: str) -> None:
    """Replaces what stands between two markers of a document in ``docs``."""
    begin, end = markers
    document = DOCS / name
    head, rest = document.read_text().split(begin)
    document.write_text(f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}")
