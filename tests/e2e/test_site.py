"""The site builds strictly, and reads without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
LOADED = re.compile(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?((?:https?:)?//[^" >]+)')


def build(configuration: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "--config-file", str(configuration), "--site-dir", str(out)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    done = build(REPOSITORY / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    sources = {
        path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")
    }
    built = {path.relative_to(tmp_path).with_suffix(".md") for path in pages}
    assert sources <= built
    assert {found for text in pages.values() for found in LOADED.findall(text)} == set()
    css = "".join(path.read_text() for path in tmp_path.rglob("*.css"))
    assert "fonts.googleapis" not in css and "fonts.gstatic" not in css


def test_a_broken_anchor_fails_the_build(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# One\n\n[two](#two)\n")
    settings = (REPOSITORY / "mkdocs.yml").read_text()
    settings = re.sub(r"^nav:\n(.+\n)+", "", settings, flags=re.M)
    settings = settings.replace("docs_dir: docs", f"docs_dir: {docs}")
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "#two" in done.stdout + done.stderr
