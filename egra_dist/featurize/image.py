"""Image encoders of torchvision and open_clip, and how image files are read."""

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from egra_dist.catalog.files import content_digest
from egra_dist.errors import UserError
from egra_dist.featurize.encoders import Encode, best_device, loading, require


def read_images(paths: list[Path]) -> list[Any]:
    """Images in RGB; None where a file is absent or not a readable image."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(_read_image, paths))


def _read_image(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # Pillow has no error of its own for a broken file


@dataclass(frozen=True)
class TorchvisionEncoder:
    """A classifier of torchvision without its last layer.

    Attributes:
        name: Its architecture, e.g. ``resnet50``.
        weights: File of its state dict; torchvision's own weights are downloaded when None.
    """

    name: str
    weights: Path | None = None

    def identity(self) -> dict[str, str]:
        """Architecture, and the digest of the weights' file."""
        models = require("torchvision", self.name).models
        known = models.list_models(module=models)
        if self.name not in known:
            near = difflib.get_close_matches(self.name, known) or known
            raise UserError(
                f"--encoder {self.name}: torchvision has no such classifier, but {', '.join(near)}"
            )
        return {"encoder": f"torchvision {self.name}", **_weights_digest(self.weights)}

    def load(self) -> Encode:
        """Builds the network and loads its weights."""
        import torch

        models = require("torchvision", self.name).models
        with loading(f"--weights {self.weights}" if self.weights else f"--encoder {self.name}"):
            network = models.get_model(self.name, weights=None if self.weights else "DEFAULT")
            if self.weights:
                state = torch.load(self.weights, map_location="cpu", weights_only=True)
                network.load_state_dict(state)
        _drop_last_linear(network)
        transform = models.get_model_weights(self.name).DEFAULT.transforms()
        return _batched(network.eval().to(best_device()), transform, torch.nn.Module.__call__)


@dataclass(frozen=True)
class OpenClipEncoder:
    """The image tower of a CLIP model of open_clip.

    Attributes:
        name: ``ARCHITECTURE`` or ``ARCHITECTURE/TAG`` of pretrained weights.
        weights: File of weights; those of the tag are downloaded when None.
    """

    name: str
    weights: Path | None = None

    def identity(self) -> dict[str, str]:
        """Architecture, tag, and the digest of the weights' file."""
        package = require("open_clip", f"open_clip:{self.name}")
        architecture, _, tag = self.name.partition("/")
        if architecture not in package.list_models():
            raise UserError(f"--encoder open_clip:{self.name}: no architecture {architecture!r}")
        tags = package.list_pretrained_tags_by_model(architecture)
        if self.weights is None and tag not in tags:
            raise UserError(
                f"--encoder open_clip:{self.name}: give --weights FILE, or "
                f"open_clip:{architecture}/TAG with one of the tags {', '.join(tags)}"
            )
        return {"encoder": f"open_clip {self.name}", **_weights_digest(self.weights)}

    def load(self) -> Encode:
        """Builds the model and loads its weights."""
        package = require("open_clip", f"open_clip:{self.name}")
        architecture, _, tag = self.name.partition("/")
        weights = str(self.weights) if self.weights else tag
        with loading(
            f"--weights {weights}" if self.weights else f"--encoder open_clip:{self.name}"
        ):
            model, _, transform = package.create_model_and_transforms(
                architecture, pretrained=weights
            )
        return _batched(model.eval().to(best_device()), transform, type(model).encode_image)


def _batched(model: Any, transform: Callable[[Any], Any], call: Callable[..., Any]) -> Encode:
    import torch

    device = best_device()

    def encode(images: list[Any]) -> NDArray[Any]:
        batch = torch.stack([transform(image) for image in images])
        with torch.inference_mode():
            return call(model, batch.to(device)).float().cpu().numpy()

    return encode


def _weights_digest(weights: Path | None) -> dict[str, str]:
    return {"weights": content_digest([weights])} if weights else {}


def _drop_last_linear(network: Any) -> None:
    """Replaces the layer that gives the classes, so that its input comes out."""
    import torch

    linear = [name for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)]
    if not linear:
        raise UserError(f"--encoder {type(network).__name__}: has no linear layer of classes")
    parent, _, name = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), name, torch.nn.Identity())
