"""A checkpoint of an official implementation, read without running anything that is in it."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sri_cli.errors import SriError

MODEL_KEYS = ("model_state_dict", "model", "state_dict")
OPTIMISER_KEYS = ("optimiser_state_dict", "optimizer_state_dict", "optimiser", "optimizer")
STEP_KEYS = ("iter_idx", "step")
PARALLEL = "module."  # what DataParallel puts before every name


@dataclass(frozen=True)
class OfficialFile:
    """What the file holds; everything but the tensors may be missing.

    `tensors` by official name, in the official order; `rest` are the file's other entries.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    rest: Mapping[Any, Any]

    @property
    def step(self) -> int | None:
        """Steps trained; None where the file does not say."""
        value = self.number(*STEP_KEYS)
        return int(value) if value is not None and value >= 0 else None

    @property
    def optimiser(self) -> Any:
        """What the optimiser's `state_dict` was, unchecked; None: not there."""
        return next((self.rest[key] for key in OPTIMISER_KEYS if key in self.rest), None)

    def number(self, *keys: str) -> float | None:
        """The first finite number under one of `keys`, be it a plain one or a tensor."""
        values = (as_number(self.rest.get(key)) for key in keys)
        return next((value for value in values if value is not None), None)


def as_number(value: Any) -> float | None:
    """A finite number, plain or a tensor of one element; None for anything else."""
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_official(path: Path) -> OfficialFile:
    """Read `path`; SriError for what is no checkpoint, is cut, or wants to run code."""
    check_is_file(path)
    content = load_plain(path)
    if not isinstance(content, Mapping):
        raise no_model(path, f"holds a {type(content).__name__}")
    tensors = find_tensors(content)
    if tensors is None:
        keys = ", ".join(sorted(str(key) for key in content)[:10]) or "nothing"
        raise no_model(path, f"holds no model, but {keys}")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OfficialFile(path, digest, without_prefix(tensors), content)


def check_is_file(path: Path) -> None:
    """SriError unless there is a file with something in it."""
    if path.is_dir():
        raise SriError(f"{path} is a folder, not a checkpoint file", "name the .pth file in it")
    if not path.exists():
        raise SriError(f"{path} does not exist", "name a file that torch.save wrote")
    if path.is_file() and path.stat().st_size == 0:
        raise SriError(f"{path} is empty", "fetch it again")


def load_plain(path: Path) -> Any:
    """The file's dicts, lists, numbers and tensors; SriError for everything else."""
    try:
        with warnings.catch_warnings():  # of odd files, which are refused anyway
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes of other kinds make the reader fail in any way there is
        refused = refused_class(str(error))
        if refused is None:
            raise SriError(
                f"{path} is no checkpoint that torch.save wrote, or it is cut",
                "fetch it again, or name the .pth file of an official implementation",
            ) from error
        raise SriError(
            f"{path} is refused: reading it would run {refused}; only tensors and plain values are"
            " read",
            "if you trust where it comes from, write its model_state_dict alone to another file"
            " with torch.save, and import that",
        ) from error


def refused_class(message: str) -> str | None:
    """The class or function that torch would not unpickle, out of its message."""
    patterns = (r"GLOBAL (\S+)", r"Unsupported class (\S+)", r"unrecognized function (\S+)")
    found = [re.search(pattern, message) for pattern in patterns]
    return next((match[1].strip("`.,'") for match in found if match), None)


def find_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor] | None:
    """The model's state dict: under one of its usual keys, or the whole file."""
    for found in (*(content.get(key) for key in MODEL_KEYS), content):
        if is_state_dict(found):
            return dict(found)
    return None


def is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether it is nothing but tensors by name."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and is_plain(tensor) for name, tensor in value.items())


def is_plain(value: Any) -> bool:
    """Whether it is a tensor of real numbers in memory, neither sparse nor quantised."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_complex() or value.is_quantized)
    )


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without what DataParallel put before every name."""
    if not all(name.startswith(PARALLEL) for name in tensors):
        return tensors
    return {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}


def no_model(path: Path, what: str) -> SriError:
    """The error for a file that torch.save wrote of something else."""
    return SriError(
        f"{path} {what}", "name a checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL"
    )
