"""README and docs: every command exists as written, every block is what it says it is."""

import argparse
import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import typer
import yaml

from egra_dist import cli
from egra_dist.config import ClusterSettings, Config, load_config, parse_config
from egra_dist.config.errors import known_keys
from egra_dist.errors import UserError
from egra_dist.sweep.space import SearchSpace, parse_space
from tests.e2e.documents import (
    PAGES,
    REPOSITORY,
    Block,
    blocks,
    commands,
    inline_codes,
    is_command,
    links,
    scripts,
)

NOT_HERE = ("kubectl", "docker", "pip", "curl", "cd", "export", "source")
"""Programs whose options the tests cannot look up."""
USAGE = (typer.BadParameter, typer.exceptions.TyperException)
SHOWN = {block.title for page in PAGES for block in blocks(page) if block.title}
KEYS = set(known_keys(Config))
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)


@pytest.fixture(scope="module")
def verbs():
    """Every verb of the command line by its words."""
    for module in cli._MODULES:
        importlib.import_module(f"egra_dist.cli.{module}").register(cli.app)
    found = {}

    def collect(command, path):
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                collect(child, (*path, name))
        else:
            found[path] = command

    collect(typer.main.get_command(cli.app), ())
    return found


def of_kind(page: Path, kind: str) -> list[Block]:
    return [block for block in blocks(page) if block.kind == kind]


@every_page
def test_every_command_exists_as_it_is_written(page, verbs, monkeypatch):
    for block in of_kind(page, "console"):
        for command in commands(block):
            is_refused = any("error: " in line for line in command.output)
            for words in command.parts:
                where = f"{block}: {command.text}"
                check(words, where, verbs, monkeypatch, None if is_refused else True)


@every_page
def test_commands_in_the_text_exist(page, verbs, monkeypatch):
    for code in inline_codes(page):
        if is_command(code) and code.split()[0] in ("egra-dist", "make", "python"):
            is_whole = not re.search(r"[<|>]|\.\.\.", code)
            for part in re.split(r"[<|>]", code)[:1]:
                check(part.split(), f"{page.name}: {code}", verbs, monkeypatch, is_whole and None)


@every_page
def test_settings_in_the_text_exist(page):
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    names = [code for code in inline_codes(page) if re.fullmatch(r"\w+(\.\w+)+", code)]
    files = ("npy", "parquet", "yaml", "md", "py", "json")
    dotted = [name for name in names if name.partition(".")[0] in sections]
    assert {name for name in dotted if name.rpartition(".")[2] not in files} <= KEYS


@every_page
def test_yaml_blocks_are_settings(page):
    for block in of_kind(page, "yaml"):
        fields = yaml.safe_load(block.text)
        if fields.keys() <= Config.model_fields.keys():
            parse_config(fields, str(block))
        elif fields.keys() <= ClusterSettings.model_fields.keys():
            parse_config({"cluster": fields}, str(block))
        else:
            assert fields.keys() <= SearchSpace.model_fields.keys(), f"{block}: what is this?"
            parse_space(fields, block)


@every_page
def test_other_blocks_are_what_they_say(page):
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, str(block), "exec")
        elif block.kind == "console":
            for script in scripts(block):
                compile(script, str(block), "exec")
        elif block.kind == "json":
            json.loads(block.text)
        elif block.kind == "text":
            hidden = [line for line in block.text.splitlines() if is_command(line)]
            assert not hidden, f"{block}: say ```console, so that this is tested: {hidden}"


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ egra-dist rnu c.yaml --catalog c --out r\n```",
        "```console\n$ egra-dist run c.yaml --catalog c --out r --wrokers 2\n```",
        "```console\n$ egra-dist run c.yaml --catalog c\n```",
        "```console\n$ egra-dist run c.yaml --catalog c --out r --set train.aligment=3\n```",
        "    egra-dist synth --items many --users 3 --interactions 9 --out c",
        "    make teas",
        "    python -m tests.benchmarks.knn --sises 3",
        "    python jobs/absent.py c.yaml --catalog c --out r",
        "    ray job submit --working-dri . -- python jobs/train.py c.yaml --catalog c --out r",
        "    ray job submit --working-dir . -- python jobs/train.py c.yaml --out r",
        "    mlflow ui --backend-store-url sqlite:///m.db",
        "```console\n$ hocus pocus\n```",
        "say `egra-dist plan --memory 3G`",
        "set `train.alignment.fokus`",
        "```yaml\ntrain: {batchsize: 3}\n```",
        "```yaml\nbatch: 3\n```",
        "```python\nfor\n```",
        "```text\negra-dist run c.yaml\n```",
        "```jsonx\n3\n```",
    ],
)
def test_what_is_wrong_in_a_page_is_found(text, tmp_path, verbs, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, UserError, SyntaxError, KeyError, *USAGE, SystemExit)):
        test_every_command_exists_as_it_is_written(page, verbs, monkeypatch)
        test_commands_in_the_text_exist(page, verbs, monkeypatch)
        test_settings_in_the_text_exist(page)
        test_yaml_blocks_are_settings(page)
        test_other_blocks_are_what_they_say(page)


@pytest.mark.parametrize("page", PAGES[:3], ids=lambda page: page.name)
def test_links_outside_of_the_site_lead_somewhere(page):
    """Those of the site are checked when it is built."""
    for target in links(page):
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def check(words, where, verbs, monkeypatch, is_complete=True):
    """Whether a program would take these words; nothing is run."""
    program, *rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)] or ["?"]
    program = Path(program).name
    if program == "egra-dist":
        check_own(rest, where, verbs, is_complete)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets), where
    elif program == "python":
        check_python(rest, where, verbs, monkeypatch, is_complete)
    elif program in ("mlflow", "ray"):
        check_library(program, rest, where, verbs)
    else:
        assert program in NOT_HERE, f"{where}: {program} is neither run nor checked"


def check_own(words, where, verbs, is_complete):
    path = next((path for path in verbs if tuple(words[: len(path)]) == path), None)
    if words[:1] in (["--help"], ["VERB"]):
        return
    assert path, f"{where}: no such verb"
    command, rest = verbs[path], words[len(path) :]
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
    assert given <= options | {"--help"}, f"{where}: {given - options}"
    if is_complete and "..." not in rest:
        found = command.make_context(" ".join(path), list(rest)).params
        check_settings(found, where)


def check_settings(params, where):
    """Whether the settings that a command gives are settings, on top of a shipped file."""
    if "overrides" not in params:
        return
    files = [
        REPOSITORY / str(params[name]) if params.get(name) else None
        for name in ("config", "cluster")
    ]
    config, cluster = (file if file and file.exists() else None for file in files)
    assert load_config(config, params["overrides"] or [], cluster), where


def check_python(words, where, verbs, monkeypatch, is_complete):
    if words[0] != "-m":
        file = REPOSITORY / words[0]
        assert file.exists() or words[0] in (*SHOWN, "-"), f"{where}: no file {words[0]}"
        if is_complete and file.parent.name == "jobs":
            check_own(["run", *words[1:]], where, verbs, is_complete)
        return
    module = importlib.util.find_spec(words[1])
    assert module, f"{where}: no module {words[1]}"
    source = Path(module.origin)
    entry = source.with_name("__main__.py") if source.name == "__init__.py" else source
    if "parse_args" in entry.read_text():
        check_arguments(words[1], words[2:], where, monkeypatch)
    else:
        assert not [word for word in words[2:] if word.startswith("-")], where


class Parsed(Exception):
    """The arguments are understood; nothing more is to happen."""


def check_arguments(module, arguments, where, monkeypatch):
    """Starts a module and stops it when it has parsed its arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *given):
        parse(self, *given)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__", alter_sys=True)


def check_library(program, words, where, verbs):
    """Whether verbs and options stand in the library's own command line."""
    own = words.index("--") if "--" in words else len(words)
    folder = Path(importlib.util.find_spec(program).origin).parent
    parts = {
        "mlflow": ["cli/*.py", "models/*.py", "utils/cli_args.py"],
        "ray": ["scripts/*.py", "dashboard/modules/job/*.py"],
    }[program]
    text = "".join(path.read_text() for part in parts for path in folder.glob(part))
    for word in words[:own]:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in text, f"{where}: {word}"
    if words[own + 1 :]:
        check(words[own + 1 :], where, verbs, None)
