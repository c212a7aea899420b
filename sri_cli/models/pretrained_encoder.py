"""A pretrained encoder from timm, frozen, with Slot Attention on its features (future work of
the paper). SRI's losses train what comes after the encoder.

Axis legend: B batch, K slots, D slot size, C channels and h w pixels of the feature map,
F features, H W pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sri_cli.errors import SriError, did_you_mean, pip_install
from sri_cli.models.base import Noise, Segregated, Segregation
from sri_cli.models.layers import FEATURES, coordinate_grid, full_precision, pixel_mlp
from sri_cli.models.slot_attention import SlotAttention
from sri_cli.rng import NoiseSpec

PREFIX = "timm/"


def unusable(spec: str, reason: str, hint: str | None = None) -> SriError:
    """The error for an encoder that cannot be used."""
    hint = hint or "model.encoder=timm/NAME, or timm/NAME@FILE"
    return SriError(f"encoder {spec}: {reason}", hint)


def parse_encoder(spec: str) -> tuple[str, str]:
    """Name and file (empty: none) of "timm/NAME" or "timm/NAME@FILE".

    Raises:
        SriError: if timm or the model is missing.
    """
    if not spec.startswith(PREFIX):
        raise unusable(spec, "not a timm model")
    try:
        import timm
    except ImportError as error:
        raise SriError(
            f"encoder {spec} needs the package timm", pip_install("sri-cli[timm]")
        ) from error
    name, _, file = spec.removeprefix(PREFIX).partition("@")
    if not timm.is_model(name):
        raise unusable(spec, f"no such model{did_you_mean(name, timm.list_models())}")
    return name, file


def weights_to_download(spec: str) -> str | None:
    """What training on the encoder downloads first, for a note; None if nothing.

    Nothing is read but the cache of the Hugging Face Hub, where timm stores weights.

    Raises:
        SriError: if timm or the model is missing.
    """
    name, file = parse_encoder(spec)
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = None if file else timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return None
    stored = ("model.safetensors", "pytorch_model.bin")
    if config.hf_hub_id and any(
        isinstance(try_to_load_from_cache(config.hf_hub_id, one), str) for one in stored
    ):
        return None
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    megabytes = sum(value.nbytes for value in model.state_dict().values()) / 1e6
    hub = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    return f"encoder {spec}: training downloads its weights once, about {megabytes:.0f} MB, {hub}"


def create_encoder(spec: str, pretrained: bool = True) -> nn.Module:
    """The timm model of "timm/NAME" with timm's weights, or of "timm/NAME@FILE" with a file's.

    The file is a state dict, as safetensors or from torch.save (read with weights_only=True);
    tensors that the encoder does not have, such as a classifier's, are ignored. `pretrained` False:
    random weights instead of timm's.

    Raises:
        SriError: if timm, the model or its weights are missing or do not fit.
    """
    name, file = parse_encoder(spec)
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained and not file, num_classes=0)
        weights = read_weights(Path(file)) if file else model.state_dict()
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except Exception as error:  # of timm, its download, pickle, safetensors, zipfile, the system
        reason = " ".join(str(error).split()[:30])
        hint = (
            None if file else f"go online once, or give them in a file: model.encoder={spec}@FILE"
        )
        raise unusable(spec, f"its weights cannot be loaded ({reason})", hint) from error
    if missing:
        raise unusable(spec, f"{file} has no tensor {missing[0]}")
    return model


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file; one below "state_dict" in it, too."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    weights: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return weights.get("state_dict", weights)


class FrozenEncoder(nn.Module):
    """Images [B,3,H,W] in [0,1] to features [B,C,h,w], by a model without gradient.

    Images are normalised as in the encoder's training, and resized to `size` pixels (None: to that
    of its training); a transformer's position embeddings are then interpolated. The weights are no
    parameters and not in the state dict, which holds their SHA-256; loading one made with others is
    refused.
    """

    sha256: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: str, image_size: int, size: int | None = None, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.spec = spec
        encoder: Any = create_encoder(spec, pretrained).eval().requires_grad_(False)
        self.hidden = (encoder,)  # in a tuple, so that it is not registered as a submodule
        config = encoder.pretrained_cfg
        self.size = tuple(config["input_size"][1:]) if size is None else (size, size)
        self.prefix_tokens = getattr(encoder, "num_prefix_tokens", 0)
        for name in ("mean", "std"):
            value = torch.tensor(config[name]).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        digest = hashlib.sha256()
        for name, value in sorted(encoder.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        self.register_buffer("sha256", torch.tensor(list(digest.digest()), dtype=torch.uint8))
        if size is not None:
            self._resize(encoder, size)
        try:
            self.shape = tuple(self(torch.rand(1, 3, image_size, image_size)).shape[1:])
        except Exception as error:  # of timm: another size than it is made for, no feature map
            reason = " ".join(str(error).split()[:30])
            raise unusable(
                spec,
                f"no features of images of {self.size[0]} px ({reason})",
                f"model.encoder_size={config['input_size'][1]}, or another encoder",
            ) from error

    def _resize(self, encoder: Any, size: int) -> None:
        """Let a transformer take images of `size` px; SriError if it cannot."""
        patch = getattr(getattr(encoder, "patch_embed", None), "patch_size", (1, 1))[0]
        if size % patch:
            raise unusable(
                self.spec,
                f"images of {size} px are no whole number of its patches of {patch} px",
                f"model.encoder_size={max(1, round(size / patch)) * patch}",
            )
        if hasattr(encoder, "set_input_size"):
            encoder.set_input_size(img_size=self.size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        images = nn.functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        (encoder,) = self.hidden
        features = encoder.forward_features((images - self.mean) / self.std).float()
        if features.ndim == 3:  # tokens [B,N,C] of a transformer, class and register tokens first
            patches = features[:, self.prefix_tokens :]
            side = round(patches.shape[1] ** 0.5)
            return patches.transpose(1, 2).unflatten(2, (side, -1))
        if features.shape[1] != encoder.num_features:  # [B,h,w,C]
            return features.permute(0, 3, 1, 2)
        return features

    def train(self, mode: bool = True) -> FrozenEncoder:
        # Never in training mode: dropout and batch statistics would change the features.
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenEncoder:
        # To another device with the module, though the weights are not registered.
        super()._apply(fn, recurse)
        self.hidden[0]._apply(fn)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}sha256")
        if stored is not None and stored.tolist() != self.sha256.tolist():
            raise SriError(
                f"encoder {self.spec}: other weights than this model was trained with"
                f" (SHA-256 {bytes(stored.tolist()).hex()[:16]}...)",
                "use the weights of the training: model.encoder=timm/NAME@FILE",
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class FrozenSegregation(Segregation):
    """Frozen features, then Slot Attention; slots start alike, so their order means nothing."""

    end_to_end = True

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int,
        encoder: str,
        encoder_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        """`encoder`, `pretrained` and errors as in `create_encoder`, `encoder_size` in pixels."""
        super().__init__()
        self.shape, self.image_size = (slots, slot_size), image_size
        self.encoder = FrozenEncoder(encoder, image_size, encoder_size, pretrained)
        channels, self.rows, self.columns = self.encoder.shape
        # Pretrained features have any scale.
        self.project = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, FEATURES))
        self.position = nn.Linear(2, FEATURES)
        self.head = pixel_mlp(FEATURES)
        self.attention = SlotAttention(1, slot_size)
        grid = coordinate_grid(self.rows, self.columns).flatten(1).T
        self.register_buffer("grid", grid, persistent=False)

    grid: Tensor  # [h*w,2]

    def noise(self) -> dict[str, NoiseSpec]:
        return {"initial": NoiseSpec(self.shape), "segregation": NoiseSpec(self.shape)}

    def forward(
        self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False
    ) -> Segregated:
        features = self.encoder(images).flatten(2).transpose(1, 2)
        with full_precision(images):
            features = self.head(self.project(features) + self.position(self.grid))
        posterior, log_attention = self.attention(features, noise["initial"])
        grid = log_attention.unflatten(2, (self.rows, self.columns))
        side = (self.image_size, self.image_size)
        pixels = nn.functional.interpolate(grid, side, mode="bilinear")
        log_masks = pixels.log_softmax(dim=1)[:, :, None]  # interpolated logs are not normalised
        return Segregated(posterior, posterior.sample(noise["segregation"]), log_masks)
