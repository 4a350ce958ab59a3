"""A reader who does what a page says: writes its files, runs its code and its commands.

Commands of egra-dist run in this process, which has the libraries loaded; what talks to a cluster,
serves, or belongs to another program has a process of its own.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Container, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

from egra_dist.cli import main
from tests.clusters import LocalCluster, free_ports, wait_for
from tests.e2e.documents import REPOSITORY, Block, Command, commands, scripts

SECONDS = 900
_MODULES = {"egra-dist": "egra_dist", "mlflow": "mlflow", "ray": "ray.scripts.scripts"}
PROGRAMS = (*_MODULES, "python", "curl")
_ONCE = ("ray job", "python -m")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass
class Reader:
    """Follows pages in one folder.

    Attributes:
        folder: Where the reader is; the working folder, too.
        replaced: Patterns of what pages have for illustration, and what stands for it here.
        added: Patterns of commands, and the words that cut them short.
        not_run: Programs with their arguments that are passed over.
        compares: Whether what is printed has to be what the page shows, but for durations.
        cluster: Starts, or finds, the cluster for commands that name one.
        done: Commands of which nothing that follows needs the result, and which need no second run.
        answers: What ``curl`` has printed.
        servers: Processes that do not end by themselves and where they listen, by the page's port.
    """

    folder: Path
    replaced: Mapping[str, str]
    added: Mapping[str, str]
    not_run: Container[str]
    compares: bool = False
    cluster: Callable[[], LocalCluster] | None = None
    done: set[str] = field(default_factory=set)
    answers: list[str] = field(default_factory=list)
    servers: dict[str, tuple[subprocess.Popen, str]] = field(default_factory=dict)
    _names: dict[str, object] = field(default_factory=dict)

    def do(self, block: Block) -> None:
        """Writes the file that a block shows, or runs it."""
        if block.title:
            (self.folder / block.title).write_text(self.adapted(block.text))
        elif block.kind == "python":
            self.execute(block.text, block)
        elif block.kind == "console":
            given = iter(scripts(block))
            for command in commands(block):
                if command.text == "python -":
                    self.execute(next(given), block)
                else:
                    self.call(command)

    def execute(self, text: str, where: object) -> None:
        """Runs Python; its names are known to what follows."""
        exec(compile(self.adapted(text), str(where), "exec"), self._names)

    def call(self, command: Command) -> None:
        """Runs a command line but for what cannot be; its exit status has to be as it is shown."""
        if command.text.startswith(_ONCE):
            if command.text in self.done:
                return
            self.done.add(command.text)
        expected = 2 if "error: " in "".join(command.output) else 0
        adapted = replace(command, text=self.adapted(command.text))
        for said, words in zip(command.parts, adapted.parts, strict=True):
            if shlex.join(said) in self.not_run:
                continue
            more = [] if expected else self.shortened_by(words)
            status, printed = self.run([*words, *more])
            where = f"{command.block}: {shlex.join([*words, *more])}\n{printed}"
            assert status == expected, where
            if self.compares and not more:
                shown = [without_durations(line) for line in command.output]
                printed = without_durations(printed)
                assert [line for line in shown if line and line not in printed] == [], where
            if file := re.search(r"> (\S+)$", adapted.text):
                (self.folder / file.group(1)).write_text(printed)

    def adapted(self, text: str) -> str:
        """A text with what stands here for what it has for illustration."""
        for pattern, here in self.replaced.items():
            if re.search(pattern, text):
                if "{cluster" in here:
                    here = here.format(cluster=self.cluster())
                text = re.sub(pattern, here, text)
        for port, (_, own) in self.servers.items():
            text = text.replace(f"localhost:{port}", f"127.0.0.1:{own}")
        return text

    def shortened_by(self, words: list[str]) -> list[str]:
        text = shlex.join(words)
        found = [more for pattern, more in self.added.items() if re.search(pattern, text)]
        return shlex.split(" ".join(found))

    def run(self, words: list[str]) -> tuple[int, str]:
        """Exit status and output of a program."""
        variables, (program, *rest) = without_variables(words)
        assert program in PROGRAMS, f"who runs {program}?"
        if program == "mlflow":
            return self.serve(rest, variables)
        if self.cluster and (program == "ray" or "--address" in rest):
            own = {**self.cluster().environment, "RAY_API_SERVER_ADDRESS": self.cluster().url}
            return self.spawn([program, *rest], own | variables)
        if program == "egra-dist" or (program == "python" and rest[0] != "-m"):
            return run_here([program, *rest])
        return self.spawn([program, *rest], {**os.environ, **variables})

    def spawn(self, words: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        """Runs a program in a process of its own."""
        done = subprocess.run(
            command_of(words),
            cwd=self.folder,
            env={**variables, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if words[0] == "curl":
            self.answers.append(done.stdout)
        return done.returncode, done.stdout + done.stderr

    def serve(self, words: list[str], variables: Mapping[str, str]) -> tuple[int, str]:
        """Starts a server in place of the one at the same port of the page, until it answers."""
        port = words[words.index("--port") + 1] if "--port" in words else "5000"
        (own,) = free_ports(1)
        self.end(port)
        log = self.folder / f"server-{own}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command_of(["mlflow", *words]), "--port", own, "--workers", "1"],
                cwd=self.folder,
                env={**os.environ, **_QUIET, **variables, "PATH": _path()},
                stdout=output,
                stderr=output,
            )
        self.servers[port] = process, own

        def answers() -> bool:
            assert process.poll() is None, f"the server ended: {log.read_text()}"
            return urllib.request.urlopen(f"http://127.0.0.1:{own}/health", timeout=5).status == 200

        wait_for(answers, SECONDS, f"an answer of mlflow {shlex.join(words)}")
        return 0, log.read_text()

    def end(self, *ports: str) -> None:
        """Ends servers."""
        for port in ports:
            if port in self.servers:
                process, _ = self.servers.pop(port)
                process.terminate()
                process.wait(timeout=60)


def without_variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that are set before a command, and the command."""
    count = next(n for n, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def command_of(words: list[str]) -> list[str]:
    """A command line with the programs of this environment."""
    program, *rest = words
    if program in _MODULES:
        return [sys.executable, "-m", _MODULES[program], *rest]
    return [sys.executable if program == "python" else program, *rest]


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def run_here(words: list[str]) -> tuple[int, str]:
    """Runs a command of egra-dist, or a script, in this process."""
    program, *rest = words
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            if program == "python":
                runpy.run_path(rest[0], run_name="__main__")
            else:
                main(rest)
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def without_durations(text: str) -> str:
    return re.sub(r"\d+(\.\d+)? s\b", "", text)
