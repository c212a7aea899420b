"""What a bench verb was asked for, resolved: recipe, data file, trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sri_cli.benchmarks.data import MADE_IMAGES, made_file
from sri_cli.benchmarks.profile import default_trace
from sri_cli.benchmarks.ranks import Asked
from sri_cli.config.load import load_recipe
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import Workspace


def recipe_for(
    name: str,
    overrides: Sequence[str] = (),
    *,
    batch: int | None = None,
    precision: str | None = None,
) -> Recipe:
    """The recipe with KEY=VALUE words; the options for batch and precision are words too."""
    words = list(overrides)
    words += [] if batch is None else [f"train.batch={batch}"]
    words += [] if precision is None else [f"train.precision={precision}"]
    return load_recipe(name, None, words)


def data_for(workspace: Workspace, data: str | None, recipe: Recipe) -> DataFile | None:
    """The data file named, by name or path; None where none is."""
    if data is None:
        return None
    return DataFile(workspace.find_data(data, recipe.model.image_size))


@contextmanager
def data_or_made(
    workspace: Workspace, data: str | None, recipe: Recipe
) -> Iterator[tuple[DataFile, str | None]]:
    """The data file named, else the recipe's own where it is prepared, else one of noise.

    With it what to call it where its path says nothing.
    """
    path = workspace.data_path(recipe.data, recipe.model.image_size)
    if data is None and not path.is_file():
        with made_file(recipe.model.image_size, max(MADE_IMAGES, recipe.train.batch)) as file:
            yield file, f"random noise ({path} is not there)"
        return
    found = data_for(workspace, recipe.data if data is None else data, recipe)
    assert found is not None
    yield found, None


def trace_for(verb: str, profile: bool, out: Path | None) -> Path | None:
    """Where the trace goes; SriError for a place without --profile."""
    if out is not None and not profile:
        raise SriError("--out is where the trace of --profile goes", "add --profile")
    return (out or default_trace(verb)) if profile else None


def numbers(option: str, text: str) -> list[int]:
    """'1,2,8' -> whole numbers from 1, each once and in order; SriError for others."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise SriError(f"{option} {text}: not numbers with commas between", f"{option} 1,2,4")
    return sorted({int(word) for word in words})


def points(option: str, text: str) -> dict[int, float]:
    """'32:0.0107,16:0.0062' -> seconds by images; SriError for others."""
    found = {}
    for word in text.split(","):
        images, _, seconds = word.partition(":")
        try:
            found[int(images)] = float(seconds)
        except ValueError:
            found[0] = 0.0
    if min(found) < 1 or min(found.values()) <= 0:
        raise SriError(f"{option} {text}: not IMAGES:SECONDS,...", f"{option} 32:0.011,16:0.007")
    return found


def scaling_for(
    gpus: str,
    steps: int,
    way: str | None,
    backend: str | None,
    bandwidth_gb: float | None,
    latency_us: float | None,
    seconds_at: str | None,
) -> Asked | None:
    """The table that --gpus asks for; None where it names one device. SriError for what only a
    table has."""
    if gpus in ("auto", "0", "1"):
        if (backend, bandwidth_gb, latency_us, seconds_at) != (None,) * 4:
            raise SriError("this is for a table of several GPUs", "add --gpus 1,2,4,8")
        return None
    given = None if seconds_at is None else points("--seconds-at", seconds_at)
    return Asked(numbers("--gpus", gpus), steps, way, backend, bandwidth_gb, latency_us, given)


def alone_only(options: dict[str, object]) -> None:
    """SriError when one of the options is given that a table of GPUs has not."""
    for name, value in options.items():
        if value:
            raise SriError(f"{name} is for one device", "leave it out, or --gpus auto")
