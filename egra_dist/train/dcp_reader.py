"""Reads checkpoints of ``torch.distributed.checkpoint`` without trusting them.

Their ``.metadata`` is a pickle, which could run anything. Here it may name only what describes
tensors, and only files of the checkpoint's own folder.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

from egra_dist.files import inside

_DCP = "torch.distributed.checkpoint"
_ALLOWED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    (f"{_DCP}.filesystem", "_StorageInfo"),
    *(
        (f"{_DCP}.metadata", name)
        for name in (
            # Not BytesStorageMetadata: what it describes is unpickled without restriction.
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorStorageMetadata",
            "ChunkStorageMetadata",
            "TensorProperties",
            "_MEM_FORMAT_ENCODING",
        )
    ),
}


class DamagedError(ValueError):
    """A checkpoint that cannot be what was written."""


class SafeReader(FileSystemReader):
    """A reader of checkpoints that may come from anywhere."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Reads the description of the tensors.

        Raises:
            DamagedError: If it is not readable, or describes something else.
        """
        path = Path(self.path) / ".metadata"
        try:
            with path.open("rb") as file:
                metadata = _Unpickler(file).load()
            _check(metadata, Path(self.path))
        except FileNotFoundError:
            raise DamagedError(f"{path}: not there") from None
        except Exception as error:  # an arbitrary pickle raises arbitrary exceptions
            reason = " ".join(str(error).split())
            raise DamagedError(f"{path}: not readable: {reason}") from None
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise DamagedError(f"{module}.{name} has no place in it")


def _check(metadata: Any, folder: Path) -> None:
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise DamagedError("it is no description of tensors")
    for info in metadata.storage_data.values():
        path = info.relative_path
        if Path(path).name != path:
            raise DamagedError(f"{path!r} is outside of the folder")
        inside(folder, folder / path)
