"""A pretrained encoder that stays as it is, with Slot Attention on its features.

Any module from images [B,3,H,W] in [0,1] to a feature map [B,C,h,w], written to a file by
`torch.export.save` (the paper's future work). What it wants of its images, such as other colours or
another size, is part of the module. SRI's losses train what stands behind it.
Axis legend: B batch, K slots, D slot size, C channels and h w places of the feature map,
F features, H W pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sri_cli.errors import SriError
from sri_cli.models.base import Noise
from sri_cli.models.convolution import FEATURES
from sri_cli.models.exported import CannotRun, Program
from sri_cli.models.layers import coordinate_grid
from sri_cli.models.segregation import Segregated
from sri_cli.models.slot_attention import SlotAttention, attention_noise
from sri_cli.rng import NoiseSpec

HINT = "torch.export.save(torch.export.export(module.eval(), (images,), dynamic_shapes=...), FILE)"


class FrozenEncoder(nn.Module):
    """The program in a file: no parameters, no gradient, nothing of it in a state dict.

    What a state dict holds is the SHA-256 of the file, and loading one made with another file is
    refused.
    """

    sha256: Tensor

    def __init__(self, file: str | Path, image_size: int) -> None:
        """Raises SriError for a file that is no such encoder."""
        super().__init__()
        self.file = str(file)
        try:
            data = Path(file).read_bytes()
            self.program = Program(data)
        except OSError as error:
            raise SriError(f"encoder {file} cannot be read ({error.strerror})", HINT) from error
        except CannotRun as error:
            raise SriError(f"encoder {file}: {error}", HINT) from error
        digest = hashlib.sha256(data).digest()
        self.register_buffer("sha256", torch.tensor(list(digest), dtype=torch.uint8))
        self.shape = self._probe(image_size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """images [B,3,H,W] in [0,1] to features [B,C,h,w] in float32."""
        return self.program(images).float()

    def _probe(self, image_size: int) -> tuple[int, int, int]:
        """(C, h, w), after seeing that an image's features are its own and always the same."""
        draw = torch.Generator().manual_seed(0)
        images = torch.rand(3, 3, image_size, image_size, generator=draw)
        try:
            together, alone = self(images), self(images[:1])
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise SriError(
                f"encoder {self.file} fails on {image_size} px, or on another number of images"
                f" than it was exported with ({reason})",
                HINT,
            ) from error
        if together.ndim != 4 or len(together) != 3:
            raise SriError(
                f"encoder {self.file} gives {list(together.shape)} for 3 images, not [3,C,h,w]",
                HINT,
            )
        if not torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-3 * float(alone.std())):
            raise SriError(
                f"encoder {self.file} sees an image differently beside others or a second time:"
                " it was exported in training mode",
                HINT,
            )
        c, h, w = together.shape[1:]
        return c, h, w

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenEncoder:
        # The weights are no buffers, but follow the module to its device all the same.
        super()._apply(fn, recurse)
        tensors = self.program.tensors
        tensors.update({name: fn(tensor) for name, tensor in tensors.items()})
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}sha256")
        if stored is not None and stored.tolist() != self.sha256.tolist():
            raise SriError(
                f"encoder {self.file} is not the file that this model was trained with"
                f" (SHA-256 {bytes(stored.tolist()).hex()[:16]}...)",
                "put that file back in its place",
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class FrozenSegregation(nn.Module):
    """Frozen features, then Slot Attention; slots start alike, so their order means nothing."""

    trained_by_sri = True
    ordered = False

    def __init__(self, *, image_size: int, slots: int, slot_size: int, encoder: str | Path) -> None:
        """`encoder` is the file."""
        super().__init__()
        self.slots, self.slot_size, self.image_size = slots, slot_size, image_size
        self.encoder = FrozenEncoder(encoder, image_size)
        channels, self.rows, self.columns = self.encoder.shape
        # Pretrained features have any scale.
        self.project = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, FEATURES))
        self.position = nn.Linear(2, FEATURES)
        self.head = nn.Sequential(
            nn.LayerNorm(FEATURES),
            nn.Linear(FEATURES, FEATURES),
            nn.ReLU(),
            nn.Linear(FEATURES, FEATURES),
        )
        self.attention = SlotAttention(1, slot_size)
        grid = coordinate_grid(self.rows, self.columns).flatten(1).T
        self.register_buffer("grid", grid, persistent=False)

    grid: Tensor  # [h*w,2]

    def noise(self) -> dict[str, NoiseSpec]:
        return attention_noise(self.slots, self.slot_size)

    def forward(self, images: Tensor, noise: Noise) -> Segregated:
        features = self.encoder(images).flatten(2).transpose(1, 2)
        features = self.head(self.project(features) + self.position(self.grid))
        posterior, log_attention = self.attention(features, noise["initial"])
        log_masks = self._upsampled(log_attention)
        return Segregated(posterior, posterior.sample(noise["segregation"]), log_masks)

    def _upsampled(self, log_attention: Tensor) -> Tensor:
        """[B,K,h*w] to log-masks [B,K,1,H,W]; normalised again, as interpolation of logs is not."""
        grid = log_attention.unflatten(2, (self.rows, self.columns))
        side = (self.image_size, self.image_size)
        pixels = nn.functional.interpolate(grid, side, mode="bilinear")
        return pixels.log_softmax(dim=1)[:, :, None]
