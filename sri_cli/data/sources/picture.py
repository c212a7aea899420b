"""A picture on its way from a source's file to a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.source import Scenario
from sri_cli.data.transforms import Resizing


@dataclass(frozen=True)
class Picture:
    """An image on its way to a worker: cropped, not yet resized; labels [H,W]."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    factors: dict[str, NDArray[Any]] = field(default_factory=dict)


def make(resizing: Resizing, picture: Picture) -> Scenario:
    """In a worker: one image's row."""
    return Scenario(
        name=picture.name,
        images=resizing.picture(picture.image)[None],
        masks=resizing.labels(picture.labels)[None],
        factors={name: np.asarray(values)[None] for name, values in picture.factors.items()},
    )
