"""sri: autoregressive slot VAEs, from data set to new scenes.

The Python API, which README.md in this folder describes, is loaded when it is used: importing
`sri_cli` alone imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sri_cli.api import Model, evaluate, load, open_data, train
    from sri_cli.data.torch_dataset import ImageDataset, OpenedData
    from sri_cli.scenes import Latents, Scenes

__version__ = "0.1.0"

__all__ = [
    "ImageDataset",
    "Latents",
    "Model",
    "OpenedData",
    "Scenes",
    "evaluate",
    "load",
    "open_data",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("sri_cli.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
