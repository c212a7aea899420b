"""What the Python API returns: scenes as tensors, shown in a notebook.

Axis legend: N scenes, K slots, D slot size, S scene size, H W pixels. Tensors are on the CPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from sri_cli.errors import SriError
from sri_cli.generation.sample import quantise
from sri_cli.plotting.images import blend_masks, make_grid, png_bytes

COLUMNS, SHOWN, SHOWN_IN_LAYERS = 8, 32, 8  # scenes
CELL_PX = 96  # about, of an image that is shown


@dataclass(frozen=True, repr=False)
class Latents:
    """Scenes as latents, float32, slots in the order of generation.

    Attributes:
        slots: [N,K,D], as `Model.decode` takes them.
        latent: The scene latent [N,S]; None for a model without a scene variable.
        order: Of encoded images, the segregated slot at each position [N,K]; else None, and for a
            model that does not match slots.
        keys: Names of the N scenes, which with a seed fix what `reimagine` draws.
    """

    slots: Tensor
    latent: Tensor | None
    order: Tensor | None
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, index: slice | ArrayLike) -> Self:
        """Some of the scenes; of one, too, every tensor keeps its first axis.

        `index`: as of an array, so also a tensor of numbers, or one of truth values [N].
        """
        given = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(given, np.ndarray) and given.size == 0:
            given = given.astype(int)  # of an empty list
        chosen = np.atleast_1d(np.arange(len(self))[given]).tolist()

        def of(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[chosen]
            return value and tuple(value[i] for i in chosen)

        return type(self)(**{field.name: of(getattr(self, field.name)) for field in fields(self)})

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{field.name} {list(value.shape)}"
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        )
        return f"{type(self).__name__}({shapes})"


@dataclass(frozen=True, repr=False)
class Scenes(Latents):
    """Decoded scenes with their latents. In a notebook they show themselves.

    Attributes:
        image: [N,3,H,W], the sum of masks * rgb over the slots, clipped to [0,1].
        masks: [N,K,H,W], summing to 1 over K.
        rgb: What each slot shows, [N,K,3,H,W] in [0,1]; Slot-VAE's may leave it.
        attention: Of reconstructed images, the masks of the segregation [N,K,H,W]; else None.
        rollout: Of reconstructed images, the slot prior's own scene from the scene latent
            [N,3,H,W]; else None, and for a model without one.
    """

    image: Tensor
    masks: Tensor
    rgb: Tensor
    attention: Tensor | None = None
    rollout: Tensor | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images uint8 [N,H,W,3], as `sri sample` writes them."""
        return quantise(self.image)

    def overview(self, layers: bool = False) -> Image.Image:
        """The first 32 scenes above their masks in the colours of the slots.

        With `layers` the first 8, one a row: image, masks, and what each slot adds, in order.
        SriError when there are none.
        """
        if not len(self):
            raise SriError("no scenes to show", "choose at least one")
        shown = self[: SHOWN_IN_LAYERS if layers else SHOWN]
        masks = shown.masks.numpy()
        images, coloured = shown.pixels, blend_masks(masks)
        scale = max(1, CELL_PX // images.shape[1])
        if layers:
            from sri_cli.plotting.blocks import contributions

            parts = contributions(quantise(shown.rgb), masks)
            rows = np.concatenate([np.stack([images, coloured], axis=1), parts], axis=1)
        else:
            columns = min(COLUMNS, len(shown))
            missing = ((0, 0), (0, -len(shown) % columns), *[(0, 0)] * 3)  # white in the last row
            both = np.pad(np.stack([images, coloured]), missing, constant_values=255)
            rows = both.reshape(2, -1, columns, *images.shape[1:]).swapaxes(0, 1)
        cells = rows.reshape(-1, *images.shape[1:])
        return Image.fromarray(make_grid(cells, rows.shape[-4], scale=scale))

    def show(self, layers: bool = False) -> None:
        """Show `overview` in the notebook, or else in the viewer of the desktop."""
        image, ipython = self.overview(layers), sys.modules.get("IPython")
        if ipython is None or ipython.get_ipython() is None:
            image.show()
        else:
            ipython.display.display(ipython.display.Image(png_bytes(np.asarray(image))))

    def _repr_png_(self) -> bytes | None:
        return png_bytes(np.asarray(self.overview())) if len(self) else None
