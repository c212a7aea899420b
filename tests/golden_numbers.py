"""Numbers that an official implementation computed once (tests/golden/README.md)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sri_cli.models.official import our_name

GOLDEN = Path(__file__).parent / "golden"
RTOL, ATOL = 1e-4, 1e-5


def formula(name: str, shape: list[int]) -> torch.Tensor:
    """The rule by which every parameter of the golden runs was filled."""
    count = int(np.prod(shape))
    c = zlib.crc32(name.encode()) % 1000
    v = np.sin(12.9898 * np.arange(1, count + 1, dtype=np.float64) + 78.233 * c) * 43758.5453
    r = (2 * (v - np.floor(v)) - 1) * np.sqrt(3)
    if len(shape) > 1:
        r = r / np.sqrt(count / shape[0])
    elif name.endswith("weight"):
        r = 1 + 0.1 * r
    else:
        r = 0.1 * r
    return torch.from_numpy(r.reshape(shape).astype(np.float32))


def check(ours: torch.Tensor, golden: torch.Tensor, what: str = "") -> None:
    torch.testing.assert_close(
        ours.detach(), golden, rtol=RTOL, atol=ATOL, msg=lambda text: f"{what}: {text}"
    )


class Golden:
    """One stored file, and the names by which its system's parameters map to ours."""

    def __init__(self, file: str, system: str) -> None:
        self.numbers = np.load(GOLDEN / file)
        self.system = system

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.numbers[key])

    def json(self, key: str) -> Any:
        return json.loads(str(self.numbers[f"meta/{key}"]))

    def fill(self, model: torch.nn.Module) -> torch.nn.Module:
        """Every parameter of the model, no more and no fewer, by the formula."""
        scalars = self.json("kept_scalars") if "meta/kept_scalars" in self.numbers else {}
        ours = dict(model.named_parameters())
        for name, shape in self.json("parameters"):
            value = torch.tensor(scalars[name]) if name in scalars else formula(name, shape)
            parameter = ours.pop(our_name(self.system, name))
            assert list(parameter.shape) == shape, name
            parameter.data.copy_(value)
        assert not ours, f"parameters that the official model lacks: {sorted(ours)}"
        return model

    def check_gradients(self, model: torch.nn.Module, zero: tuple[str, ...] = ()) -> None:
        """Norms of all gradients; where a name ends as in `zero`, 0 but for rounding."""
        ours = dict(model.named_parameters())
        for name, _ in self.json("parameters"):
            norm = ours[our_name(self.system, name)].grad.norm()
            if name.endswith(zero):
                assert norm < 1e-3, name
            else:
                check(norm, self[f"gradnorm/{name}"], name)
