"""The parts of `sri bench gpu-suite`: what a GPU should be asked, the weightiest first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sri_cli.benchmarks.suite import TRACE, Part
from sri_cli.benchmarks.train import WAYS
from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.errors import SriError, did_you_mean

MAIN = "sri-mog"  # 64 px, 9 slots, batch 32
START_SECONDS = 12.0  # of a process, before it times anything
SCENES = 24  # towers whose pictures the recipes train on: 384 images
TESTS = Path(__file__).parents[2] / "tests" / "gpu"
Words = Sequence[str]


@dataclass(frozen=True)
class Wanted:
    """How the suite is run: on which device, tiny or at full size, where its files go.

    `images` is a file that the part `images` makes, of towers to train on.
    """

    device: str  # cuda or cpu
    quick: bool
    out: Path
    images: Path

    @property
    def size_px(self) -> int:
        """Of the towers."""
        return 32 if self.quick else 64

    def sri(self, *words: str) -> list[str]:
        """A command of this package, in a process of its own."""
        return [sys.executable, "-m", "sri_cli", *words]

    def bench(self, verb: str, *words: str) -> list[str]:
        """`sri bench VERB` on the device, its result as JSON; tiny where asked for."""
        tiny = ["size=tiny"] if self.quick else []
        tiny += ["train.batch=2"] if self.quick and verb == "train" else []
        gpus = "1" if self.device == "cuda" else "0"
        return self.sri("bench", verb, "--gpus", gpus, "--json", *words, *tiny)


def suite_parts(wanted: Wanted, only: Sequence[str] | None = None) -> list[Part]:
    """All parts, or those whose names begin with one of `only`; SriError if none does."""
    parts = [
        environment(wanted),
        step(wanted, "bf16", "eager"),
        step(wanted, "bf16", "graph"),
        sampling(wanted),
        step(wanted, "bf16", "compiled+graph"),
        step(wanted, "bf16", "compiled"),
        data(wanted),
        profile(wanted),
        images(wanted),
        *(recipe(wanted, name) for name in recipe_names() if name != MAIN),
        *(step(wanted, "fp32", way) for way in WAYS),
        tests(),
    ]
    if only is None:
        return parts
    names = [part.name for part in parts]
    for start in only:
        if not any(name.startswith(start) for name in names):
            raise SriError(
                f"no part {start}{did_you_mean(start, names)}", f"parts: {', '.join(names)}"
            )
    return [part for part in parts if part.name.startswith(tuple(only))]


def environment(wanted: Wanted) -> Part:
    """The machine."""
    words = [sys.executable, "-m", "sri_cli.benchmarks.environment", wanted.device]
    return Part("environment", lambda _: words, 60)


def step(wanted: Wanted, precision: str, way: str) -> Part:
    """The step of the main recipe, run in one of its ways."""
    why = None
    if "graph" in way and wanted.device != "cuda":
        why = "only a GPU has CUDA graphs"
    elif "compiled" in way and wanted.device != "cuda":
        why = "compiling takes minutes on a CPU: sri bench train --way compiled"

    def words(share: float) -> list[str]:
        seconds = f"{max(2.0, min(8.0, share - START_SECONDS)):.0f}"
        steps = "2" if wanted.quick else "200"
        return wanted.bench(
            "train",
            *("--recipe", MAIN, "--precision", precision, "--way", way),
            *("--steps", steps, "--seconds", seconds),
        )

    return Part(f"step {precision} {way}", words, 110 if "compiled" in way else 60, impossible=why)


def sampling(wanted: Wanted) -> Part:
    """As many scenes as an FID wants."""
    count = "16" if wanted.quick else "10000"
    return Part("sampling", lambda _: wanted.bench("sample", "--recipe", MAIN, "--num", count), 60)


def data(wanted: Wanted) -> Part:
    """Resident, host, streamed; beside a step that needs no compiler."""
    steps, way = "1" if wanted.quick else "20", "graph" if wanted.device == "cuda" else "eager"
    words = wanted.bench("data", "--recipe", MAIN, "--steps", steps, "--way", way)
    return Part("data", lambda _: words, 60)


def profile(wanted: Wanted) -> Part:
    """The dearest kernels, and a trace, of the way that is neither compiled nor a graph: its
    kernels bear the names of operations."""
    words = wanted.bench(
        "train",
        *("--recipe", MAIN, "--steps", "2", "--way", "eager"),
        *("--profile", "--out", str(wanted.out / TRACE)),
    )
    return Part("profile", lambda _: words, 60)


def images(wanted: Wanted) -> Part:
    """Simulated towers: with noise for images a loss need not be what it is in training."""
    scenes = "2" if wanted.quick else str(SCENES)
    words = wanted.sri(
        *("prepare", "shapestacks", "--size", str(wanted.size_px), "--scenes", scenes),
        *("--out", str(wanted.images), "--force"),
    )
    return Part("images", lambda _: words, 60, json=False)


def recipe(wanted: Wanted, name: str) -> Part:
    """Many steps of a recipe at its full size, as many as fit its share of the time."""

    def words(share: float) -> list[str]:
        seconds = f"{max(2.0, min(30.0, share - START_SECONDS)):.0f}"
        steps = "2" if wanted.quick else "300"
        way = "graph" if wanted.device == "cuda" else "eager"
        fits = wanted.quick or load_recipe(name).model.image_size == wanted.size_px
        real = ["--data", str(wanted.images)] if fits and wanted.images.is_file() else []
        return wanted.bench(
            "train",
            *("--recipe", name, "--steps", steps, "--seconds", seconds, "--way", way),
            *("--no-counts", *real),
        )

    return Part(f"recipe {name}", words, 60)


def tests() -> Part:
    """The test files that want a GPU, where this is a checkout that has them."""
    why = None if TESTS.is_dir() else "no tests/gpu here: run the suite in a checkout"
    path = f"pythonpath={TESTS.parents[1]}"  # they import from one another
    words = [sys.executable, "-m", "pytest", "-q", "-o", path, str(TESTS)]
    return Part("tests", lambda _: words, 240, json=False, impossible=why)
