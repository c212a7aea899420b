"""`sri bench eval`: what each metric takes, on made-up masks, features and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sri_cli.benchmarks.peak import measured_peak
from sri_cli.benchmarks.timing import Timed, machine_line, repeat, timing_table
from sri_cli.config.schema import Recipe
from sri_cli.device import Precision, choose_device, choose_precision
from sri_cli.errors import SriError, did_you_mean
from sri_cli.generation.sample import chunk_size, in_chunks
from sri_cli.metrics.elbo import negative_elbo
from sri_cli.metrics.frechet import Moments, frechet_distance, with_root
from sri_cli.metrics.segmentation import ari_fg, labels_of, msc_fg
from sri_cli.models.build import build_model
from sri_cli.rng import indexed_noise
from sri_cli.training.step_timing import machine, random_images

FEATURES = (128, 2048)  # of the stack network and of Inception
SAMPLES = 2  # statistics are of so many samples a feature
Row = Callable[["Setting"], Timed]


class Setting:
    """What all rows share: the recipe's sizes, the device, how many images and repeats."""

    def __init__(self, recipe: Recipe, num: int, repeats: int, device: str) -> None:
        self.recipe, self.num, self.repeats = recipe, num, repeats
        self.device = choose_device(device)
        self.precision = choose_precision(recipe.train.precision, self.device)
        self.random = np.random.default_rng(0)
        self.size, self.slots = recipe.model.image_size, recipe.model.slots

    def timed(
        self,
        what: str,
        unit: str,
        number: float,
        work: Callable[[int], object],
        network: Precision | None = None,
    ) -> Timed:
        """A row; of a `network` that computes in this precision its FLOP are counted too."""
        times = repeat(work, self.repeats, self.device)
        if network is None:
            return Timed(what, unit, number, times)
        flops = FlopCounterMode(display=False)
        with flops:
            work(0)
        peak = measured_peak(self.device, network).flop_per_second
        return Timed(what, unit, number, times, flops.get_total_flops(), peak)

    def pictures(self) -> Any:
        """uint8 [N,H,W,3] of noise."""
        return self.random.integers(0, 256, (self.num, self.size, self.size, 3), np.uint8)


def _maps(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """True labels [N,H,W] of 6 objects and soft masks [N,K,H,W] in blobs of 8 pixels."""
    coarse = setting.size // 8
    shape = (setting.num, coarse, coarse)
    true = setting.random.integers(0, 7, shape).repeat(8, 1).repeat(8, 2)
    masks = setting.random.random((setting.num, setting.slots, coarse, coarse), np.float32)
    soft = masks.repeat(8, 2).repeat(8, 3)
    return torch.from_numpy(true).to(setting.device), torch.from_numpy(soft).to(setting.device)


def ari(setting: Setting) -> Timed:
    """ARI-FG, finding each pixel's strongest slot included."""
    true, masks = _maps(setting)
    return setting.timed(
        "ARI-FG", "pairs", setting.num, lambda _: ari_fg(true, labels_of(masks)).cpu()
    )


def msc(setting: Setting) -> Timed:
    """mSC-FG, finding each pixel's strongest slot included."""
    true, masks = _maps(setting)
    return setting.timed(
        "mSC-FG", "pairs", setting.num, lambda _: msc_fg(true, labels_of(masks)).mean.cpu()
    )


def frechet(size: int) -> Row:
    """The distance of two sets of statistics, the real one's root known, as in an evaluation."""

    def row(setting: Setting) -> Timed:
        real, drawn = (_statistics(setting.random, size) for _ in range(2))
        real = with_root(real)
        what = f"Frechet distance, {size} features"
        return setting.timed(what, "distances", 1, lambda _: frechet_distance(real, drawn))

    return row


def root(size: int) -> Row:
    """The root of the real statistics: once for a data set, then kept."""

    def row(setting: Setting) -> Timed:
        real = _statistics(setting.random, size)
        what = f"its root, {size} features (once a data set)"
        return setting.timed(what, "roots", 1, lambda _: with_root(real))

    return row


def _statistics(random: np.random.Generator, size: int) -> Any:
    moments = Moments(size)
    moments.add(random.standard_normal((SAMPLES * size, size), np.float32))
    return moments.statistics()


def stack(setting: Setting) -> Timed:
    """The features behind stack-FD."""
    from sri_cli.metrics.stack_classifiers.features import StackFeatures

    extractor, pictures = StackFeatures(setting.device), setting.pictures()
    return setting.timed(
        "stack features", "images", setting.num, lambda _: extractor(pictures), "fp32"
    )


def inception(random: bool) -> Row:
    """The features behind FID; with random weights they take as long."""

    def row(setting: Setting) -> Timed:
        from sri_cli.metrics.inception import open_inception, random_inception

        network = (
            random_inception(setting.device)
            if random
            else open_inception(None, offline=True, device=setting.device)
        )
        pictures = setting.pictures()
        what = "Inception features" + ", random weights" * random
        return setting.timed(what, "images", setting.num, lambda _: network(pictures), "fp32")

    return row


def elbo(setting: Setting) -> Timed:
    """-ELBO with an untrained model, noise included."""
    model: Any = build_model(**setting.recipe.model.model_dump()).to(setting.device).eval()
    images = random_images(setting.num, setting.size).to(setting.device).float() / 255
    chunk = chunk_size(setting.slots, setting.size, setting.device)

    def bound(start: int, count: int) -> torch.Tensor:
        noise = indexed_noise(model.training_noise(), 0, range(start, start + count), "evaluate")
        there = {name: value.to(setting.device) for name, value in noise.items()}
        return negative_elbo(model.losses(images[start : start + count], there)).cpu()

    def work(_: int) -> None:
        list(in_chunks(bound, setting.num, chunk, setting.device, setting.precision))

    what = f"-ELBO, {setting.recipe.name}, {setting.precision}"
    return setting.timed(what, "images", setting.num, work, setting.precision)


ROWS: dict[str, Row] = {
    "ari": ari,
    "msc": msc,
    **{f"frechet-{size}": frechet(size) for size in FEATURES},
    **{f"root-{size}": root(size) for size in FEATURES},
    "stack": stack,
    "elbo": elbo,
    "inception": inception(random=False),
}
LEFT_OUT = (
    "Inception's weights are not here and were left out: --random-inception takes as long with"
    " random ones"
)


def parse_rows(text: str | None, random_inception: bool = False) -> list[str]:
    """'ari,elbo' -> names; None: all that can be measured here. SriError for unknown ones."""
    if text is None:
        there = random_inception or inception_is_here()
        return [name for name in ROWS if name != "inception" or there]
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in ROWS:
            raise SriError(
                f"unknown metric {name}{did_you_mean(name, ROWS)}", f"--metrics {','.join(ROWS)}"
            )
    if not names:
        raise SriError("no metric named", f"--metrics {','.join(ROWS)}")
    return names


def inception_is_here() -> bool:
    """Whether FID's weights lie where `sri eval` finds them without fetching."""
    from sri_cli.metrics.inception_weights import find_weights

    try:
        find_weights(offline=True)
    except SriError:
        return False
    return True


def bench_metrics(
    recipe: Recipe,
    names: Sequence[str],
    num: int = 64,
    repeats: int = 3,
    device: str = "auto",
    random_inception: bool = False,
) -> dict[str, Any]:
    """Times the rows named (keys of ROWS) on `num` images or maps each; ready for JSON."""
    setting = Setting(recipe, num, repeats, device)
    chosen = ROWS | {"inception": inception(random_inception)}
    rows = [{"metric": name} | chosen[name](setting).record() for name in names]
    return {
        "recipe": recipe.name,
        **machine(setting.device),
        "dtype": setting.precision,
        "size_px": setting.size,
        "slots": setting.slots,
        "rows": rows,
        "notes": [] if "inception" in names or inception_is_here() else [LEFT_OUT],
    }


def metrics_text(result: dict[str, Any]) -> str:
    """The figures for people."""
    return "\n".join(
        [
            machine_line(result),
            f"maps and images of {result['size_px']} px, {result['slots']} slots",
            timing_table(result["rows"]),
            *(f"Note: {note}" for note in result["notes"]),
        ]
    )
