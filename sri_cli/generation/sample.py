"""Seeds to scenes: what sampling, the order figure and evaluation draw from a model.

Axis legend: N images of a request, B images of a chunk, K slots, H W pixels.
But for rounding, image i depends on (seed, i) only, never on chunk size, device or process state;
with fewer slots it uses a prefix of the noise of more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.console import counting
from sri_cli.device import choose_precision, keep_freed_memory
from sri_cli.errors import SriError, SriFailure
from sri_cli.models.base import Scene, SlotVAE
from sri_cli.rng import indexed_noise

Result = TypeVar("Result")

# Slot images decoded at once, in units of 64 x 64 pixels: activations that stay in the cache
# are fastest on a CPU (4 to 16 images of 9 slots), a GPU wants more work at once.
CPU_SLOT_IMAGES, GPU_SLOT_IMAGES = 72, 2304
MAX_CHUNK = 256  # images


@dataclass(frozen=True)
class DrawnScene(Scene):
    """A scene with the slots [B,K,D] that it was decoded from, and their scene latent [B,S].

    `latent` is None for a model without a scene variable.
    """

    slots: Tensor
    latent: Tensor | None

    @functools.cached_property
    def image(self) -> Tensor:
        """The blend [B,3,H,W], which the test for finite values and its user need."""
        return super().image


def decode_drawn(model: SlotVAE, slots: Tensor, latent: Tensor | None) -> DrawnScene:
    """Decode slots [B,K,D]; the scene is in float32."""
    scene = model.decode(slots)
    latent = None if latent is None else latent.float()
    return DrawnScene(scene.rgb.float(), scene.log_masks.float(), slots.float(), latent)


def decode_slots(
    model: SlotVAE, slots: Tensor, latent: Tensor | None = None
) -> Iterator[DrawnScene]:
    """Decode slots [N,K,D] in chunks that fit into memory; `latent` [N,S] is passed through.

    Raises:
        SriFailure: after the last chunk, when a scene is not finite.
    """
    device = device_of(model)
    size = chunk_size(slots.shape[1], model.image_size, device)

    def decode(start: int, count: int) -> DrawnScene:
        rows = slice(start, start + count)
        return decode_drawn(model, slots[rows].to(device), None if latent is None else latent[rows])

    return checked(in_chunks(decode, len(slots), size, device))


def sample_noise(
    model: SlotVAE, seed: int, start: int, count: int, slots: int
) -> dict[str, Tensor]:
    """The noise of images start .. start+count-1 for `model.sample`, on the CPU."""
    return indexed_noise(model.sampling_noise(slots), seed, range(start, start + count), "sample")


def evaluation_noise(
    model: SlotVAE, seed: int, indices: NDArray[np.intp], device: torch.device
) -> dict[str, Tensor]:
    """The noise for `model.losses` and `reconstruct` of the images at `indices` of a split."""
    noise = indexed_noise(model.training_noise(), seed, indices.tolist(), "evaluate")
    return {name: value.to(device) for name, value in noise.items()}


def sample_scenes(
    model: SlotVAE,
    num: int,
    slots: int,
    temperature: float = 1.0,
    seed: int = 0,
    chunk: int | None = None,
    precision: str = "auto",
    first: int = 0,
) -> Iterator[DrawnScene]:
    """Draw scenes first .. first+num-1 of a seed, a chunk of images at a time, in float32.

    Raises:
        SriError: for settings out of range (at once, not at the first chunk).
        SriFailure: when even a single image does not fit into memory; after the last chunk, when
            a scene is not finite.
    """
    check_request(num, slots, temperature, seed)
    device = device_of(model)
    size = chunk or chunk_size(slots, model.image_size, device)

    def draw(start: int, count: int) -> DrawnScene:
        noise = sample_noise(model, seed, first + start, count, slots)
        own = {name: value.to(device) for name, value in noise.items()}
        latent = model.drawn_scene(own, temperature, None)
        return decode_drawn(model, model.slots(own, temperature, scene=latent), latent)

    return checked(in_chunks(draw, num, size, device, precision))


def checked(scenes: Iterable[DrawnScene]) -> Iterator[DrawnScene]:
    """All scenes; after the last one SriFailure if any is not finite (8 bits would hide it)."""
    finite = []
    for scene in scenes:
        finite.append(is_finite(scene.image))
        if not finite[-1].all():  # as black, without warnings of numpy
            rgb, log_masks = scene.rgb.nan_to_num(0.0), scene.log_masks.nan_to_num(0.0)
            scene = replace(scene, rgb=rgb, log_masks=log_masks)
        yield scene
    check_finite(torch.cat(finite))


def is_finite(image: Tensor) -> Tensor:
    """Whether all values of each image [B,C,H,W] are finite, bool [B] on the CPU."""
    return image.isfinite().flatten(1).all(dim=1).cpu()


def check_finite(finite: Tensor, what: str = "scenes") -> None:
    """SriFailure unless all of the flags [N] are true."""
    broken = int((~finite).sum())
    if broken:
        raise SriFailure(
            f"{broken} of {len(finite)} {what} hold values that are not finite",
            "lower the temperature, or name another run or checkpoint:"
            " --run RUN/checkpoints/step-N",
        )


class Scenes(NamedTuple):
    """Scenes: images uint8 [N,H,W,3], what each slot shows uint8 [N,K,H,W,3], masks [N,K,H,W]."""

    images: NDArray[np.uint8]
    rgb: NDArray[np.uint8]
    masks: NDArray[np.float32]


def draw_scenes(
    model: SlotVAE, num: int, slots: int, temperature: float, seed: int, label: str = "drawing"
) -> Scenes:
    """Scenes 0 .. num-1 of a seed as arrays, with a progress bar."""
    with counting(label, num) as advance:
        return as_arrays(sample_scenes(model, num, slots, temperature, seed), advance)


def as_arrays(
    scenes: Iterable[Scene], advance: Callable[[int], None] = lambda done: None
) -> Scenes:
    """The chunks of `sample_scenes` as arrays; `advance` is called with the size of each."""
    parts = []
    for scene in scenes:
        masks = scene.masks[:, :, 0].cpu().numpy()
        parts.append(Scenes(quantise(scene.image), quantise(scene.rgb), masks))
        advance(len(masks))
    return Scenes(*map(np.concatenate, zip(*parts, strict=True)))


def check_request(num: int, slots: int, temperature: float, seed: int = 0) -> None:
    """SriError unless num >= 1, slots >= 1, temperature > 0 and seed >= 0."""
    if num < 1:
        raise SriError(f"--num {num}: the number of images must be at least 1", "--num 64")
    if slots < 1:
        raise SriError(f"--slots {slots}: a scene has at least 1 slot", "--slots 9")
    if not 0 < temperature < float("inf"):
        raise SriError(f"--temp {temperature:g}: a temperature is above 0", "--temp 0.7")
    if seed < 0:
        raise SriError(f"--seed {seed}: a seed is not negative", "--seed 0")


def in_chunks(
    compute: Callable[[int, int], Result],
    num: int,
    size: int,
    device: torch.device,
    precision: str = "auto",
) -> Iterator[Result]:
    """compute(start, count) over `num` items without gradients; chunks shrink to fit memory."""
    if device.type == "cpu":
        keep_freed_memory()  # decoding is twice as fast
    bf16 = choose_precision(precision, device) == "bf16"
    start = 0
    while start < num:
        count = min(size, num - start)
        try:
            autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
            with torch.no_grad(), autocast:
                result = compute(start, count)
        except (MemoryError, RuntimeError) as error:
            # Running out of memory has many messages: any error is tried again with fewer items.
            if count > 1:
                size = count // 2
                continue
            if isinstance(error, MemoryError | torch.OutOfMemoryError):
                reason = "not enough memory for a single image"
                raise SriFailure(reason, "use fewer slots") from error
            raise
        yield result
        start += count


def joined(chunks: Sequence[Result]) -> Result:
    """Dataclasses of tensors [B,...] as one; what is no tensor is that of the first."""
    first: Any = chunks[0]
    columns = {field.name: [getattr(one, field.name) for one in chunks] for field in fields(first)}
    cat = {
        name: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]
        for name, parts in columns.items()
    }
    return type(first)(**cat)


def chunk_size(slots: int, image_size: int, device: torch.device) -> int:
    """How many images of `slots` slots go through the decoder at once."""
    budget = CPU_SLOT_IMAGES if device.type == "cpu" else GPU_SLOT_IMAGES
    return int(min(MAX_CHUNK, max(1, budget * (64 / image_size) ** 2 // slots)))


def device_of(model: SlotVAE) -> torch.device:
    """Where the model's parameters lie."""
    return next(model.parameters()).device


def quantise(image: Tensor) -> NDArray[np.uint8]:
    """[..., C, H, W] in [0,1] -> uint8 [..., H, W, C]: floor(255 x), as the papers' figures."""
    levels = (image.float() * 255).floor().clamp(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def layers_of(rgb: Tensor, masks: Tensor) -> NDArray[np.uint8]:
    """Every slot as an RGBA layer, uint8 [B,K,H,W,4]: laid over one another in order, the first at
    the bottom, the layers give the image. rgb [B,K,3,H,W] in [0,1], masks [B,K,H,W].

    The alpha of a layer is the share of its slot in the masks up to its own, m_k / (m_1 + ... +
    m_k): the mask that it would have if the slots after it were not there. The first is opaque.
    """
    alpha = (masks / masks.cumsum(dim=1)).nan_to_num(0.0)
    alpha[:, 0] = 1.0
    levels = (torch.cat([rgb, alpha[:, :, None]], dim=2) * 255).round().clamp(0, 255).byte()
    return levels.movedim(2, -1).contiguous().cpu().numpy()


def to_tensor(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B,S,S,3] -> float32 [B,3,S,S] in [0,1]."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float().div_(255)
