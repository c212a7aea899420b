"""`sri segment`: a folder of images as a model segments them, on disk.

    masks/NAME.png           the strongest slot of every pixel: indexed, in slot colours
    layers/NAME-slot-01.png  every slot as an RGBA layer, at the size of the model
    latents.npz              names, slots, scene_latents and order of all images, empty slots
    sheet.png                the first images with masks, reconstructions and slots
    segment.json             the settings, what was left out, scores where true masks are known

Axis legend: B images of a block, K slots, S side of the model's images, H W pixels of an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sri_cli.console import counted, counting
from sri_cli.data.image_files import Frame, Unreadable, decode_image, decode_labels
from sri_cli.data.sources.listing import Entry, MaskNames, list_images
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError
from sri_cli.generation.encode import Encoding, encode_images
from sri_cli.generation.sample import layers_of
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.records import mean_estimate
from sri_cli.metrics.segmentation import ari_fg, labels_of, mean_iou, msc_fg
from sri_cli.plotting.blocks import VOID_GREY, segmentation_panel
from sri_cli.plotting.figures import PAGE, draw, images_that_fit, write_figure
from sri_cli.plotting.images import Pixels, slot_colours
from sri_cli.plotting.outputs import SEGMENTS, record_of, write_folder
from sri_cli.plotting.titles import title_of
from sri_cli.strict_json import Record

RECORD = "segment.json"
BLOCK = 32  # images in memory at once, a multiple of the encoder's chunk on a CPU
OUTSIDE = 255  # the label of pixels outside of the crop
SHEET_IMAGES, SHEET_NAME = 8, 16  # characters of a name
MAX_LISTED = 20  # files in a note


class Decoded(NamedTuple):
    """An image at the size of the model [S,S,3], and its true labels [S,S] if they are known."""

    name: str
    pixels: Pixels
    frame: Frame
    truth: Pixels | None


def segment_folder(
    trained: TrainedRun,
    images: Path,
    out: Path | None = None,
    *,
    seed: int = 0,
    crop: int | None = None,
    model_size: bool = False,
    masks: MaskNames | None = None,
) -> tuple[Path, Record, list[str]]:
    """Segment all images of a folder, also in the folders below it, and write the results.

    Args:
        trained: The run.
        images: The folder. Files that cannot be read are left out and named.
        out: A new or empty folder, by default a numbered one in the run's segments/.
        seed: Readable image i, in the order of names, is a function of the seed and i.
        crop: Side in pixels of the centred square that the model sees; by default as the images of
            the run were cropped if they came from a folder, else the largest.
        model_size: Write masks at the size of the model and not at that of the images.
        masks: Where true masks are, for scores; by default wherever names are usual.

    Returns:
        The folder, its record, and notes for the user.

    Raises:
        SriError: for a folder without readable images, or an output folder that is not empty.
        SriFailure: if the disk refuses, or reconstructions are not finite.
    """
    entries, notes = list_images(images, masks or MaskNames())
    resizing, how = resizing_of(trained, crop)
    settings: dict[str, Any] = {"images": str(images), "preparation": resizing.describe()}
    settings |= {"mask_size": "model" if model_size else "image", "seed": seed}
    settings |= {"dynamic_slots": trained.model.dynamic_slots}
    record = record_of([trained], "segment", **settings)
    left_out: dict[str, str] = {}
    masks_left_out: dict[str, str] = {}

    def write(folder: Path) -> None:
        names: list[str] = []
        latents: dict[str, list[NDArray[Any]]] = defaultdict(list)
        scores: dict[str, list[float]] = defaultdict(list)
        digest = sha256()
        with counting("segmenting", len(entries)) as advance:
            for start in range(0, len(entries), BLOCK):
                chosen = entries[start : start + BLOCK]
                block = list(read_images(chosen, resizing, left_out, masks_left_out))
                if block:
                    pixels = np.stack([one.pixels for one in block])
                    digest.update(pixels.tobytes())
                    indices = range(len(names), len(names) + len(block))
                    made = encode_images(trained.model, pixels, indices, seed)
                    if not names:
                        write_sheet(folder / "sheet.png", trained, block, made)
                    names += [one.name for one in block]
                    write_images(folder, block, made, None if model_size else resizing)
                    for name, values in latents_of(made, trained.model.dynamic_slots).items():
                        latents[name].append(values)
                    for name, score in scores_of(block, made).items():
                        scores[name] += score
                advance(len(chosen))
        if not names:
            raise SriError(
                f"none of {counted(len(entries), 'image')} in {images} can be read:"
                f" {'; '.join(listed(left_out, 3))}",
                "repair them, choose another --crop, or name another folder",
            )
        arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in latents.items()}
        np.savez(folder / "latents.npz", names=np.array(names), **arrays)
        record.update(
            segmented=len(names),
            sha256=digest.hexdigest(),
            left_out=left_out,
            masks_left_out=masks_left_out,
            scores={
                name: {
                    "images": int(np.isfinite(values).sum()),  # NaN: without foreground
                    **mean_estimate(np.array(values))._asdict(),
                }
                for name, values in scores.items()
            },
        )

    folder = write_folder(out, trained.run_dir / SEGMENTS, RECORD, record, write)
    for noun, problems in (("image", left_out), ("mask", masks_left_out)):
        if problems:
            lines = listed(problems, MAX_LISTED)
            notes.append("\n  ".join([f"{counted(len(problems), noun)} left out:", *lines]))
    return folder, record, [how, *notes]


def resizing_of(trained: TrainedRun, crop: int | None) -> tuple[Resizing, str]:
    """How images are prepared for a run, and the line that says it."""
    size, origin = trained.model.image_size, ""
    recorded = trained.extra.get("data", {}).get("crop")  # older models do not have it
    if crop is None and recorded is not None:
        crop = recorded if type(recorded) is int and recorded > 0 else None
        origin = ", as the images of the training"
    else:
        with suppress(SriError):  # the file is gone
            data = trained.open_data()
            prepared = data.attrs["parameters"].get("crop")
            if crop is None and data.source == "folder" and isinstance(prepared, int):
                crop, origin = prepared, f", as {data.path} was prepared"
            elif data.source in ("original", "mirror"):
                origin = f"; {data.path} was prepared with: {data.attrs['preprocessing']}"
    square = "the largest centred square" if crop is None else f"the centred square of {crop} px"
    return Resizing(size, centre=crop), f"{square}, resized to {size} px{origin}"


def read_images(
    entries: Sequence[Entry],
    resizing: Resizing,
    left_out: dict[str, str],
    masks_left_out: dict[str, str],
) -> Iterator[Decoded]:
    """The images that can be read; the reasons why others and their masks cannot are added."""
    for entry in entries:
        try:
            pixels, frame = decode_image(entry.image, resizing)
        except Unreadable as error:
            left_out[entry.name] = str(error)
            continue
        truth = None
        if entry.mask is not None:
            try:
                truth, _ = decode_labels(entry.mask, frame, resizing)
            except Unreadable as error:
                masks_left_out[entry.name] = str(error)
        yield Decoded(entry.name, pixels, frame, truth)


def write_images(
    folder: Path, block: Sequence[Decoded], made: Encoding, resizing: Resizing | None
) -> None:
    """Masks and layers of images; masks at the size of the images where a `resizing` is given."""
    palette = np.concatenate([slot_colours(OUTSIDE), np.full((1, 3), VOID_GREY, np.uint8)])
    smallest = labels_of(made.masks).byte().numpy()
    levels = layers_of(made.rgb, made.masks)
    for one, labels, masks, layers in zip(block, smallest, made.masks.numpy(), levels, strict=True):
        if resizing is not None:
            labels = resizing.restore(masks, one.frame.height, one.frame.width, OUTSIDE)
        image = Image.fromarray(labels)
        image.putpalette(palette.tobytes())
        image.save(_path(folder, "masks", f"{one.name}.png"))
        for k, layer in enumerate(layers, start=1):
            Image.fromarray(layer).save(_path(folder, "layers", f"{one.name}-slot-{k:02d}.png"))


def latents_of(made: Encoding, dynamic_slots: bool) -> Mapping[str, NDArray[Any]]:
    """Slots [B,K,D], scene latents [B,S] and order [B,K], as far as the system has them.

    With dynamic slots also which of them are empty [B,K]: they have latents like the others.
    """
    latents = {"slots": made.slots, "scene_latents": made.latent, "order": made.order}
    latents["empty"] = ~made.attention.flatten(2).any(dim=2) if dynamic_slots else None
    return {name: values.numpy() for name, values in latents.items() if values is not None}


def scores_of(block: Sequence[Decoded], made: Encoding) -> dict[str, list[float]]:
    """ARI-FG, mBO and mIoU of the images with true masks, at the size of the model; label 0 is
    background."""
    truths = {i: one.truth for i, one in enumerate(block) if one.truth is not None}
    if not truths:
        return {}
    true = torch.from_numpy(np.stack([*truths.values()]))
    predicted = labels_of(made.masks[list(truths)])
    scores = {
        "ari_fg": ari_fg(true, predicted),
        "mbo": msc_fg(true, predicted).mean,
        "miou": mean_iou(true, predicted),
    }
    return {name: values.tolist() for name, values in scores.items()}


def write_sheet(path: Path, trained: TrainedRun, block: Sequence[Decoded], made: Encoding) -> None:
    """The first images with all slots, as far as a turned page is wide and high."""
    size = trained.model.image_size
    across, down = images_that_fit(size, PAGE[::-1])
    shown = block[: min(SHEET_IMAGES, down)]
    first: dict[str, Any] = {
        k: None if v is None else v[: len(shown)] for k, v in vars(made).items()
    }
    truths = [one.truth for one in shown if one.truth is not None]
    panel = segmentation_panel(
        np.stack([one.pixels for one in shown]),
        Encoding(**first),
        np.stack(truths) if len(truths) == len(shown) else None,
    )
    panel = replace(
        panel,
        cells=[row[:across] for row in panel.cells],
        rows=[one.name[-SHEET_NAME:] for one in shown],
        columns=panel.columns[:across],
        slots=panel.slots[:across],
    )
    write_figure(draw([[panel]], title_of(trained)), path)


def listed(problems: Mapping[str, str], most: int) -> list[str]:
    """`name: reason` of the first files, and how many more there are."""
    lines = [f"{name}: {reason}" for name, reason in list(problems.items())[:most]]
    return lines + [f"and {len(problems) - most:,} more"] * (len(problems) > most)


def _path(folder: Path, *parts: str) -> Path:
    """A file of the folder, in folders that are created when missing."""
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
