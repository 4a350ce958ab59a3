"""The command line as a user meets it: help, examples, quick starts, one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from egra_dist.cli import main; main()"]
REPOSITORY = Path(__file__).parent.parent.parent
HEAVY = ("torch", "ray", "mlflow", "torchrec", "pandas", "matplotlib", "faiss")
CPU_SECONDS_TO_START = 1.5

HELP_OF_EVERY_VERB = f"""
import json, sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

import typer

from egra_dist import cli

for module in cli._MODULES:
    import_module(f"egra_dist.cli.{{module}}").register(cli.app)

def verbs(command, path=()):
    if not hasattr(command, "commands"):
        yield path
        return
    for name, child in command.commands.items():
        yield from verbs(child, (*path, name))

texts = {{}}
for path in verbs(typer.main.get_command(cli.app)):
    with redirect_stdout(StringIO()) as text:
        cli.app([*path, "--help"], standalone_mode=False)
    texts[" ".join(path)] = text.getvalue()
json.dump(
    {{
        "texts": texts,
        "heavy": sorted(set({HEAVY}) & set(sys.modules)),
    }},
    sys.stdout,
)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def helped():
    command = [sys.executable, "-c", HELP_OF_EVERY_VERB]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_every_verb_shows_an_example_of_itself(helped):
    assert {"doctor", "synth", "ingest mmrec", "ingest events"} <= set(helped["texts"])
    without = [verb for verb, text in helped["texts"].items() if f"egra-dist {verb}" not in text]
    assert without == []


def test_help_imports_no_heavy_library(helped):
    assert helped["heavy"] == []


def test_the_command_starts_quickly():
    """CPU time of the whole process, which other processes cannot lengthen."""
    code = (
        "import resource, subprocess, sys;"
        f"subprocess.run({[*COMMAND, '--help']!r}, stdout=subprocess.DEVNULL, check=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < CPU_SECONDS_TO_START


def test_without_arguments_it_lists_the_verbs():
    done = run()
    assert "doctor" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("ingest mmrec {folder}/absent --out {folder}/made", ["{folder}/absent"]),
        ("run {folder}/absent.yaml --catalog c --out {folder}/made", ["{folder}/absent.yaml"]),
        (
            "run {configs}/default.yaml --catalog c --out {folder}/made --set train.batchsize=3",
            ["train.batchsize", "did you mean 'train.batch_size'?"],
        ),
        (
            "run {configs}/default.yaml --catalog {folder}/absent --out {folder}/made",
            ["{folder}/absent", "not a catalog folder"],
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(tmp_path, arguments, words):
    def filled(text: str) -> str:
        return text.format(folder=tmp_path, configs=REPOSITORY / "configs")

    done = run(*filled(arguments).split())
    assert done.returncode == 2
    assert done.stderr.startswith("egra-dist: error: ")
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert filled(word) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_nothing_wrong_where_the_tests_run():
    done = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    problems = [one for one in findings.values() if one["status"] == "problem"]
    assert problems == []
    assert done.returncode == 0
    assert findings["torch"]["found"].startswith("torch 2.13.0")
