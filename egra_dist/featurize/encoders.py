"""Which encoder a name stands for. It is checked where the command runs and loaded by workers."""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from egra_dist.catalog.files import content_digest
from egra_dist.errors import UserError
from egra_dist.extension import is_own, load_own, source_of
from egra_dist.featurize.contents import Kind

Encode = Callable[[list[Any]], NDArray[Any]]
"""Maps texts, or PIL images in RGB, to vectors ``[num_inputs, dim]`` in the same order."""

_PACKAGES = {
    "sentence_transformers": "sentence-transformers",
    "torchvision": "torchvision",
    "open_clip": "open-clip-torch",
}


class EncoderSpec(Protocol):
    """Says what to load; travels to the workers."""

    def identity(self) -> dict[str, str]:
        """What decides the vectors: name, digest of weights or code.

        Raises:
            UserError: If it cannot be loaded here: a package, file or name is absent.
        """

    def load(self) -> Encode:
        """Loads it, onto the accelerator if there is one.

        Raises:
            UserError: If that fails.
        """


@dataclass(frozen=True)
class OwnEncoder:
    """The user's own: ``factory()`` of ``module`` returns a function of type :data:`Encode`.

    Attributes:
        name: ``package.module:factory``.
        folder: Where the command was started; modules are also looked for there.
    """

    name: str
    folder: str

    def identity(self) -> dict[str, str]:
        """Name of the factory, and digest of the file of its module."""
        self._factory()
        source = source_of(self.name)
        digest = {"source": content_digest([source])} if source else {}
        return {"encoder": self.name, **digest}

    def load(self) -> Encode:
        """Calls the factory."""
        return self._factory()()

    def _factory(self) -> Any:
        return load_own(self.name, "--encoder", Path(self.folder))


def choose_encoder(kind: Kind, name: str, weights: Path | None = None) -> EncoderSpec:
    """The encoder that a name stands for.

    Args:
        kind: What it encodes.
        name: ``package.module:factory``; for texts else a folder or hub name of
            sentence-transformers; for images ``open_clip:ARCHITECTURE[/TAG]``, else an
            architecture of torchvision.
        weights: A file of weights, for images.
    """
    from egra_dist.featurize.image import OpenClipEncoder, TorchvisionEncoder
    from egra_dist.featurize.text import SentenceEncoder

    if weights is not None and kind == "text":
        raise UserError(f"--weights {weights}: texts take a model folder, --encoder DIR")
    prefix, colon, rest = name.partition(":")
    if prefix == "open_clip" and colon and kind == "image":
        return OpenClipEncoder(rest, weights)
    if is_own(name):
        if weights is not None:
            raise UserError(f"--weights {weights}: {name} has to load its weights itself")
        return OwnEncoder(name, os.getcwd())  # noqa: PTH109 (a plain text travels to workers)
    return SentenceEncoder(name) if kind == "text" else TorchvisionEncoder(name, weights)


def require(package: str, encoder: str) -> Any:
    """Imports an optional package.

    Raises:
        UserError: If it is absent (says what to install) or broken.
    """
    wanted = _PACKAGES[package]
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"--encoder {encoder}: needs {wanted}, which is not installed: pip install {wanted} "
            f"(or egra-dist's extra 'featurize')"
        )
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # as when torchvision is not of torch's build
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--encoder {encoder}: {wanted} cannot be imported: {reason}") from None


@contextmanager
def loading(option: str) -> Iterator[None]:
    """Says of anything that fails in the block that what the option gives cannot be loaded."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # for a bad file or name each library has several kinds
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{option}: cannot be loaded: {reason}") from None


def best_device() -> str:
    """The accelerator that this process may use, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return str(accelerator) if accelerator else "cpu"
