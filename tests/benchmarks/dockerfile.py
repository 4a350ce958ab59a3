"""Runs every step of the Dockerfile in clean roots, without a container engine.

    unshare --mount --pid --fork python -m tests.benchmarks.dockerfile --root DIR

Needs root, mmdebstrap and a Debian mirror. Each stage starts from Debian bookworm with Python 3.11
as `python`, which is what `python:3.11-slim-bookworm` is made of. COPY takes what `.dockerignore`
lets through, ENV, ARG, WORKDIR and USER hold as they do in an engine, and CMD is run at the end.
`--bind` shows files of this machine inside (a pip.conf, a folder of wheels).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
BASE_PACKAGES = "python3.11,python3.11-venv,python3-pip,ca-certificates"


@dataclass
class Stage:
    """A root that is being filled, and what holds for its next step."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = "root"

    def run(self, *command: str) -> None:
        """Runs a command in the root, as an engine does."""
        enter = ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i"]
        enter += [f"--chdir={self.workdir}"]
        enter += [f"{name}={value}" for name, value in self.environment.items()]
        subprocess.run([*enter, *command], check=True, stdin=subprocess.DEVNULL)

    def path(self, inside: str) -> Path:
        """Where a path inside lies outside."""
        return self.root / os.path.join(self.workdir, inside).lstrip("/")  # noqa: PTH118


class Build:
    """Carries the instructions of a Dockerfile out.

    Args:
        folder: Takes the roots of the stages; removed before.
        binds: Files and folders of this machine that are seen inside.
        arguments: Values of ARGs.
    """

    def __init__(self, folder: Path, binds: list[Path], arguments: dict[str, str]) -> None:
        self._folder = folder
        self._binds = binds
        self._arguments = arguments
        self._stages: dict[str, Stage] = {}
        self._stage = Stage(folder)
        self._command: list[str] = []

    def carry_out(self, instruction: str, rest: str) -> None:
        """One instruction; an unknown one is an error, so that none is passed over."""
        getattr(self, f"_{instruction.lower()}")(rest)

    def finish(self) -> None:
        """Runs CMD."""
        self._stage.run(*self._command)

    def _from(self, rest: str) -> None:
        image, *name = rest.split(" AS ")
        assert image == BASE, f"{image}: only {BASE} is known"
        stage = Stage(self._folder / (name[0] if name else "final"))
        make_base(stage.root)
        for source in self._binds:
            bind(source, stage.root)
        self._stage = self._stages[stage.root.name] = stage

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        self._stage.environment[name] = self._arguments.get(name, default.strip('"'))

    def _env(self, rest: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", rest):
            filled = re.sub(r"\$(\w+)", lambda m: self._stage.environment.get(m[1], ""), value)
            self._stage.environment[name] = filled

    def _workdir(self, rest: str) -> None:
        self._stage.workdir = rest
        self._stage.path(".").mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self._stage.user = rest

    def _run(self, rest: str) -> None:
        self._stage.run("/bin/sh", "-ec", rest)

    def _cmd(self, rest: str) -> None:
        self._command = re.findall(r'"([^"]*)"', rest)

    def _copy(self, rest: str) -> None:
        *options, source, target = rest.split()
        there = self._stage.path(target)
        if options:
            other = self._stages[options[0].removeprefix("--from=")]
            there.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", str(other.path(source)), str(there)], check=True)
            return
        for file in context():
            if source == "." or file.is_relative_to(source):
                place = there / (file if source == "." else file.relative_to(source))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / file, place)


def context() -> list[Path]:
    """The files of the repository that `.dockerignore` lets through."""
    patterns = (REPOSITORY / ".dockerignore").read_text().split()
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    listing = ["git", "ls-files", "--", *kept]
    names = subprocess.check_output(listing, cwd=REPOSITORY, text=True)
    return [Path(name) for name in names.splitlines()]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in their order."""
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text).splitlines()
    pairs = (line.split(maxsplit=1) for line in joined if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def make_base(root: Path) -> None:
    """Debian with Python 3.11 under the name `python`."""
    tarball = root.parent / "base.tar"
    if not tarball.exists():
        variant = ["--variant=minbase", f"--include={BASE_PACKAGES}"]
        subprocess.run(["mmdebstrap", *variant, "bookworm", str(tarball)], check=True)
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(tarball), "-C", str(root)], check=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    subprocess.run(["mount", "--bind", "/proc", str(root / "proc")], check=True)
    subprocess.run(["mount", "--rbind", "/dev", str(root / "dev")], check=True)


def bind(source: Path, root: Path) -> None:
    """Shows a file or folder of this machine inside a root, for reading."""
    place = root / str(source).lstrip("/")
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    subprocess.run(["mount", "--bind", "-o", "ro", str(source), str(place)], check=True)


def main() -> None:
    """Carries the whole Dockerfile out, and says how long each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="Folder for the roots.")
    parser.add_argument("--bind", type=Path, action="append", default=[])
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    build = Build(
        options.root, options.bind, dict(pair.split("=", 1) for pair in options.build_arg)
    )
    for instruction, rest in instructions():
        started = time.monotonic()
        build.carry_out(instruction, rest)
        print(f"{time.monotonic() - started:7.1f} s  {instruction} {rest[:90]}", flush=True)
    build.finish()
    print("every step succeeded")


if __name__ == "__main__":
    sys.exit(main())
