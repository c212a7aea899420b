"""What every source hands over, simulated or read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scenario:
    """One scene from all its V views.

    images uint8 [V,H,W,3]; masks uint8 [V,H,W], None when unknown: 0..background_labels-1 are
    parts of the background, then one label per object; factors: arrays with leading axis V, see
    each source; discarded: how many scenes were drawn before this one and broke a rule.
    """

    name: str
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    discarded: int = 0
