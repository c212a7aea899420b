"""Catch trials: images whose verdict is known, made to look like the scenes among which they are.

Of towers they are simulated; of rooms and tables real images, half of them with the largest object
torn in two.

A rater who can tell catch trials from scenes learns nothing about the scenes from passing them, and
images of a simulator are sharper than any sample. So a catch trial of a run is the model's own
reconstruction of a sound stack, and all are brought to the sharpness of the scenes. A model
closes the gaps of a broken stack that it reconstructs; therefore stacks are broken afterwards, by
moving their upper blocks.

Axis legend: N images, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sri_cli.data.dataset import DataFile
from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.errors import SriError
from sri_cli.labeling.session import Images, Item, image_hash
from sri_cli.rng import stream

Look = Literal["original", "demo"]
Labels = NDArray[np.uint8]  # [S,S], 0: background, blocks from 1, the lowest
Reconstruct = Callable[[Images, Sequence[int]], Images]  # of images [N,S,S,3] with their indices

SPLIT = "test"  # real images among the catch trials
REAL, SOUND = "real", "sound"
FLAWED = ("floating", "gapped")
CATCH_STREAM = 2  # keeps these random numbers apart from others of the seed
STACKS = 100_000  # of one style and verdict, so that no two trials show the same one
CANDIDATES = 6  # for each trial
LEAST_OBJECT = 0.01  # of an image, to be torn
# A reconstruction whose colour is further off than this share of the range, in the mean of any
# patch, may lack a block. Where too few are better, images themselves are shown, blurred.
MOST_ERROR = 0.25
GAP = 0.1  # between the parts of a broken stack, and the side of a patch; share of S
BLEND_PX = 0.7  # standard deviation of the blend at the border of a moved block


@dataclass(frozen=True)
class Trial:
    """An image [S,S,3] with its kind and index; `labels` of a simulated one."""

    kind: str
    index: int
    image: Images
    labels: Labels | None = None


@dataclass(frozen=True)
class Style:
    """What catch trials are to look like: scenes [N,S,S,3], and the model's reconstruction (None:
    images of a folder, without a model)."""

    scenes: Images
    reconstruct: Reconstruct | None = None


def catch_trials(
    count: int,
    seed: int,
    size: int,
    look: Look | None,
    data: DataFile | None,
    styles: Sequence[Style],
) -> tuple[list[Item], Images]:
    """`count` catch trials [N,S,S,3], half of them plausible, in each of the styles in turn.

    Of ten, five are simulated stacks of which a part was moved up or aside, one is a sound
    simulated stack, and four are test images of `data` (None: sound simulated stacks). Without a
    `look` the images show no stacks: five are test images, and five others with their largest
    object torn in two. Every random number is a function of the seed and of the images' indices.

    Raises:
        SriError: without a look, for data that have too few objects.
    """
    items, images = [], []
    tests = [] if data is None else list(stream(seed, CATCH_STREAM).permutation(data.counts[SPLIT]))
    for number, style in enumerate(styles):
        own = range(number, count, len(styles))
        flawed = sum(i < count // 2 for i in own)
        chosen = tests[number :: len(styles)]
        if look is None:
            real = len(own) - flawed
            trials = _flawed(flawed, partial(_torn, data, chosen[::-1]), 0, seed, style)
        else:
            real = sum(i >= count - (count - count // 2) * 4 // 5 for i in own)
            real = min(real, len(chosen))
            sound, first = len(own) - flawed - real, 2 * number * STACKS
            make = partial(_simulated, seed, size, look)
            trials = _flawed(flawed, make, first, seed, style)
            towers = range(first + STACKS, first + STACKS + CANDIDATES * sound)
            trials += _shown([make(i) for i in towers], sound, style)
        if data is not None and real:
            split = data.split(SPLIT).images
            photos = [Trial(REAL, int(i), np.array(split[i])) for i in chosen[: CANDIDATES * real]]
            trials += _shown(photos, real, style)
        # Each verdict of its own, so that sharpness does not tell one from the other either.
        parts = [[one.image for one in part] for part in (trials[:flawed], trials[flawed:])]
        matched = [image for part in parts for image in match_sharpness(part, style.scenes)]
        for trial, image in zip(trials, matched, strict=True):
            images.append(image)
            items.append(
                Item(
                    id=f"catch-{trial.kind}-{trial.index}",
                    sha256=image_hash(image),
                    index=trial.index,
                    model=None,
                    catch=trial.kind,
                    plausible=trial.kind not in FLAWED,
                )
            )
    return items, np.array(images, np.uint8).reshape(len(items), size, size, 3)


def _simulated(seed: int, size: int, look: Look, number: int) -> Trial:
    index = 2 * number  # odd indices are flawed
    tower = simulate_labelled_tower(index, size_px=size, preset=look, seed=seed)
    assert tower.masks is not None  # simulated
    return Trial(SOUND, index, tower.images[0], tower.masks[0])


def _torn(data: DataFile | None, chosen: Sequence[int], number: int) -> Trial | None:
    """The test image number `number` of those chosen, None if there are no more.

    Its largest object is a stack of two halves.
    """
    if data is None or number >= len(chosen):
        return None
    index, split = int(chosen[number]), data.split(SPLIT)
    masks = split.masks_of(np.array([index]))
    assert masks is not None
    counts = np.bincount(masks.ravel(), minlength=256)
    counts[: data.background_labels] = 0
    if data.void_label is not None:
        counts[data.void_label] = 0
    image, labels = np.array(split.images[index]), (masks[0] == counts.argmax()).astype(np.uint8)
    if counts.max() < LEAST_OBJECT * labels.size:
        return Trial(REAL, index, image)
    rows = np.arange(len(labels))[:, None]
    labels[(labels > 0) & (rows < np.nonzero(labels)[0].mean())] = 2
    return Trial(REAL, index, image, labels)


def _flawed(
    count: int, make: Callable[[int], Trial | None], first: int, seed: int, style: Style
) -> list[Trial]:
    """Broken stacks, floating and gapped ones in turn where the image has room for both."""
    trials: list[Trial] = []
    while len(trials) < count:
        numbers = range(first, first + CANDIDATES * count)
        towers = [made for i in numbers if (made := make(i)) is not None]
        if not towers:
            raise SriError(
                "too few test images have an object that is large enough for catch trials",
                "use a smaller --catch",
            )
        for trial in _shown(towers, len(towers), style):
            kinds = FLAWED if len(trials) % 2 == 0 else FLAWED[::-1]
            for kind in kinds:
                if len(trials) == count or trial.labels is None:
                    break
                random = stream(seed, CATCH_STREAM, trial.index)
                image = break_stack(trial.image, trial.labels, kind, random)
                if image is not None:
                    trials.append(Trial(kind, trial.index, image))
                    break
        first = numbers.stop
    return trials


def _shown(trials: Sequence[Trial], count: int, style: Style) -> list[Trial]:
    """The first `count` trials that the model of the style reconstructs well, as it does; where
    there are fewer, others as they are."""
    if style.reconstruct is None or not trials:
        return list(trials[:count])
    images = np.array([trial.image for trial in trials])
    made = style.reconstruct(images, [trial.index for trial in trials])
    is_good = largest_error(images, made) <= MOST_ERROR
    chosen = [int(i) for i in np.argsort(~is_good, kind="stable")[:count]]
    return [replace(trials[i], image=made[i] if is_good[i] else images[i]) for i in chosen]


def largest_error(images: Images, made: Images) -> NDArray[np.float64]:
    """[N]: the largest difference of the mean colour of any patch, as a share of the range."""
    patch = max(3, round(GAP * images.shape[1]))
    differences = (made.astype(float) - images) / 255
    means = ndimage.uniform_filter(differences, (0, patch, patch, 0))
    return np.abs(means).max((1, 2, 3))


def break_stack(
    image: Images, labels: Labels, kind: str, random: np.random.Generator
) -> Images | None:
    """The stack of an image with its upper blocks moved up ("floating") or aside ("gapped"), so far
    that background shows between the parts; None where the image has no room for it."""
    size = len(labels)
    reach, trim = max(2, size // 16), max(1, size // 32)  # px, of blurred edges
    stack = labels > 0
    # Rows are further apart than columns: what lay behind a block is most like its own row.
    behind = _nearest(image, ~ndimage.binary_dilation(stack, iterations=reach), (4, 1))
    sides = [(-1, 0)] if kind == "floating" else [(0, int(s)) for s in random.permutation([-1, 1])]
    for lowest in random.permutation(np.unique(labels[stack])[1:]):
        upper, seen = labels >= lowest, stack & (labels < lowest)
        # The lower part with the dent in which the upper one was.
        lower = seen | ndimage.binary_closing(seen, iterations=size // 8)
        shift = _shift(upper, lower, sides, max(3, round(GAP * size)))
        if shift is None:
            continue
        around = ndimage.binary_dilation(upper, iterations=reach)
        left = _soft(around & ~ndimage.binary_erosion(seen, iterations=trim))
        moved = _soft(around & ~ndimage.binary_dilation(seen, iterations=trim))
        block = _nearest(image, seen & ~ndimage.binary_dilation(upper, iterations=trim))
        out = image * (1 - left) + np.where(lower[..., None], block, behind) * left
        moved = ndimage.shift(moved, (*shift, 0), order=0)
        part = ndimage.shift(image.astype(float), (*shift, 0), order=0, mode="nearest")
        return np.rint(out * (1 - moved) + part * moved).astype(np.uint8)
    return None


def _shift(
    upper: NDArray[np.bool_], lower: NDArray[np.bool_], sides: Sequence[tuple[int, int]], gap: int
) -> tuple[int, int] | None:
    """The least shift [rows, columns] to one of the sides that leaves `gap` pixels between the
    parts and the upper one inside the image."""
    away = ndimage.distance_transform_edt(~lower)
    rows, columns = np.nonzero(upper)
    for down, right in sides:
        for far in range(gap, len(upper)):
            at = rows + down * far, columns + right * far
            if min(part.min() for part in at) < 1 or at[1].max() > len(upper) - 2:
                break
            if away[at].min() > gap:
                return down * far, right * far
    return None


def _nearest(
    image: Images, source: NDArray[np.bool_], spacing: tuple[int, int] = (1, 1)
) -> NDArray[np.float64]:
    """The image with each pixel that of the nearest one of `source` [S,S]."""
    at = ndimage.distance_transform_edt(
        ~source, sampling=spacing, return_distances=False, return_indices=True
    )
    return image[tuple(at)].astype(float)


def _soft(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[S,S] -> opacity [S,S,1]."""
    opacity: NDArray[np.float64] = ndimage.gaussian_filter(region.astype(float), BLEND_PX)
    return opacity[..., None]


def sharpness(images: Images) -> NDArray[np.float64]:
    """[N,S,S,3] -> [N]: the variance of the Laplacian of the grey image."""
    grey = images.astype(float).mean(-1)
    return np.array([ndimage.laplace(image, mode="nearest").var() for image in grey])


def match_sharpness(images: Sequence[Images], like: Images) -> list[Images]:
    """Each image blurred or sharpened to a sharpness of `like`, the sharpest to that of the
    sharpest, within limits: no blur hides a gap."""
    if not images:
        return []
    own = sharpness(np.array(images))
    targets = np.quantile(sharpness(like), (np.arange(len(own)) + 0.5) / len(own))
    matched = list(images)
    for i, target in zip(np.argsort(own, kind="stable"), targets, strict=True):
        low, high = -1.0, GAP * len(images[i]) / 2
        for _ in range(10):
            middle = (low + high) / 2
            matched[i] = refocused(images[i], middle)
            too_sharp = sharpness(matched[i][None])[0] > target
            low, high = (middle, high) if too_sharp else (low, middle)
    return matched


def refocused(image: Images, blur: float) -> Images:
    """An image blurred by a standard deviation of `blur` px; below 0, its difference from a blur by
    1 px is added so many times."""
    levels = image.astype(float)
    width = blur if blur > 0 else 1.0
    smooth = ndimage.gaussian_filter(levels, (width, width, 0))
    if blur <= 0:
        smooth = levels - blur * (levels - smooth)
    return np.rint(smooth).clip(0, 255).astype(np.uint8)
