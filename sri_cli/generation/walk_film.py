"""`sri walk`: films of scenes whose latents walk, as MP4 and GIF.

The noise of the slots is held while the scene latent moves, so that objects move together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.console import counting
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import check_request
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.generation.walk_scenes import Walked, has_scene, random_walk, walked, way_between
from sri_cli.plotting.video import Film, Walks, gif_bytes, missing_encoder, mp4_bytes
from sri_cli.run import Workspace

MAX_WALKS, MAX_FRAMES, MAX_FPS = 36, 1500, 50
FORMATS = {"mp4": ("mp4",), "gif": ("gif",), "both": ("mp4", "gif")}
INSTALL = "pip install imageio-ffmpeg"


@dataclass(frozen=True)
class Request:
    """What to show. slots None: as many as in training; slot: the one that walks, from 1;
    between: two seeds; format None: as the file's name says, else both."""

    num: int = 4
    frames: int = 150
    fps: int = 25
    seed: int = 0
    slots: int | None = None
    temperature: float = 1.0
    masks: bool = False
    slot: int | None = None
    between: tuple[int, int] | None = None
    format: str | None = None


@dataclass(frozen=True)
class Result:
    """The files written, and what is to be said: lines of results, lines of notes."""

    files: list[Path]
    lines: list[str]
    notes: list[str]


def walk_runs(
    workspace: Workspace, runs: tuple[str, ...], request: Request, out: Path | None = None
) -> Result:
    """The film of one or several runs (none named: the latest), side by side.

    Raises SriError for a request that means nothing, at once or when the run is known.
    """
    check(request)
    formats, stem = _formats(request, out)
    trained = [open_run(workspace, run) for run in runs or (None,)]
    for one in trained:
        check_model(one, request)
    films = [_walk(one, request) for one in trained]
    alone = len(trained) == 1
    film = Film(
        [
            Walks(seen.images, seen.masks if request.masks else None, "" if alone else one.title)
            for one, seen in zip(trained, films, strict=True)
        ]
    )
    notes = [note for one in trained for note in _notes(one, request)]
    if "mp4" in formats and (why := missing_encoder()) is not None:
        formats = ("gif",)
        notes.append(f"no MP4 here: {why}; the GIF is written. For MP4: {INSTALL}")
    stem = stem or trained[0].run_dir / "figures" / _name(request)
    files = [_write(film, request.fps, stem.with_name(f"{stem.name}.{kind}")) for kind in formats]
    lines = [line for one, seen in zip(trained, films, strict=True) for line in _said(one, seen)]
    return Result(files, [_title(request, len(trained)), *lines], notes)


def _walk(trained: TrainedRun, request: Request) -> Walked:
    """The pictures of one run's walks."""
    model = trained.model
    slots = request.slots or model.num_slots
    if request.between is not None:
        route = way_between(model, request.between, request.num, slots, request.frames)
    else:
        slot = None if request.slot is None else request.slot - 1
        route = random_walk(model, request.seed, request.num, slots, request.frames, slot)
    with counting("walking", route.frames * route.walks) as advance:
        return walked(model, route, request.temperature, advance=advance)


def _write(film: Film, fps: int, path: Path) -> Path:
    """Encode and write one file."""
    if path.suffix == ".gif":
        content = gif_bytes(film, fps)
    else:
        try:
            content = mp4_bytes(film, fps)
        except OSError as error:
            reason = (str(error).strip() or "it stopped").splitlines()[-1]
            raise SriFailure(f"could not encode {path}: {reason}", "--format gif") from error
    write_atomic(path, content)
    return path


def check(request: Request) -> None:
    """SriError for what means nothing, whatever the model."""
    slots = 1 if request.slots is None else request.slots
    check_request(request.num, slots, request.temperature, request.seed)
    _within("--num", request.num, 1, MAX_WALKS, "walks side by side", 9)
    _within("--frames", request.frames, 2, MAX_FRAMES, "frames", 150)
    _within("--fps", request.fps, 1, MAX_FPS, "frames a second", 25)
    if request.between is None:
        return
    if request.slot is not None:
        raise SriError("--between moves the scene and --slot holds it", "leave out one of the two")
    if min(request.between) < 0:
        raise SriError(f"--between {min(request.between)}: a seed is not negative", "--between 0 1")
    if request.between[0] == request.between[1]:
        raise SriError(
            f"--between: nothing lies between seed {request.between[0]} and itself", "--between 0 1"
        )


def _within(option: str, value: int, least: int, most: int, what: str, example: int) -> None:
    if not least <= value <= most:
        raise SriError(f"{option} {value}: {least} to {most} {what}", f"{option} {example}")


def check_model(trained: TrainedRun, request: Request) -> None:
    """SriError for what this model cannot show."""
    model, name = trained.model, trained.recipe.name
    slots = request.slots or model.num_slots
    if request.slot is not None and not 1 <= request.slot <= slots:
        raise SriError(
            f"--slot {request.slot}: scenes of {trained.run_dir.name} have the slots 1 to {slots}",
            f"--slot {min(2, slots)}",
        )
    if request.between is not None and not has_scene(model):
        raise SriError(
            f"--between: {name} has no scene variable, and nothing to interpolate",
            "leave it out (the noise of its slots then walks), or name another run with --run",
        )


def _formats(request: Request, out: Path | None) -> tuple[tuple[str, ...], Path | None]:
    """The kinds of file, and their path without its ending (None: in the run)."""
    kind = "" if out is None else out.suffix.lower()[1:]
    if kind in FORMATS["both"] and out is not None:
        if request.format not in (None, "both", kind):
            raise SriError(f"--out {out} is no {request.format}", f"--format {kind}")
        return FORMATS[request.format or kind], out.with_suffix("")
    if out is not None and (kind or out.is_dir()):
        what = "is a folder" if out.is_dir() else "is neither .mp4 nor .gif"
        raise SriError(f"--out {out} {what}", "name a file: --out walk.mp4")
    return FORMATS[request.format or "both"], out


def _name(request: Request) -> str:
    """The file's name in the run's figures."""
    if request.between is not None:
        return "walk-between-{}-{}".format(*request.between)
    return "walk" if request.slot is None else f"walk-slot-{request.slot}"


def _title(request: Request, runs: int) -> str:
    seconds = (
        f"{request.frames} frames, {request.frames / request.fps:.3g} s at {request.fps} a second"
    )
    what = f"{request.num} walk{'s' if request.num > 1 else ''}"
    if request.between is not None:
        what = "from the scene of seed {} to that of seed {} and back".format(*request.between)
    elif request.slot is not None:
        what += f" of slot {request.slot}"
    return f"{what}, {seconds}" + (f", {runs} runs side by side" if runs > 1 else "")


def _said(trained: TrainedRun, seen: Walked) -> list[str]:
    """How little changes from frame to frame."""
    return [
        trained.title,
        f"  pixels that change their slot: {100 * seen.step:.2g} % from a frame to the next,"
        f" {100 * seen.apart:.2g} % between unrelated scenes",
    ]


def _notes(trained: TrainedRun, request: Request) -> list[str]:
    name = trained.run_dir.name
    if request.slot is not None:
        return [f"{name}: slot {request.slot} walks; the scene and all other slots are held"]
    if has_scene(trained.model):
        return [f"{name}: the scene latent moves, the noise of the slots is held"]
    return [f"{name} has no scene variable: the noise of all its slots moves instead"]
