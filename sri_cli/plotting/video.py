"""Videos: `sri walk` from runs to MP4 (ffmpeg) and GIF (Pillow).

Axis legend: F frames, N walks, S image side; images are uint8 with 3 channels.
"""

from __future__ import annotations

import io
import math
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sri_cli.atomic import write_atomic
from sri_cli.console import counting
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import check_request, quantise
from sri_cli.generation.trained_run import TrainedRun, open_run, slots_notes
from sri_cli.generation.traverse import Walk, check_between, random_walk, walk_between, walk_scenes
from sri_cli.plotting.figures import check_file
from sri_cli.plotting.images import Pixels, blend_masks, caption, make_grid
from sri_cli.plotting.outputs import FIGURES, check_place, output_path, record_of, slots_of
from sri_cli.plotting.titles import titles_of
from sri_cli.run import Workspace

CELL_PX = 128  # at least; twice that for a single walk
BLOCK_GAP = 12
PALETTE_FRAMES = 16  # from which the 256 colours of a GIF are chosen
RAW = "-v error -f rawvideo -vcodec rawvideo -pix_fmt rgb24"
H264 = "-an -vcodec libx264 -pix_fmt yuv420p -crf 18 -movflags +faststart"


def walk_runs(
    workspace: Workspace,
    runs: Sequence[str],
    *,
    num: int = 4,
    frames: int = 150,
    fps: int = 25,
    seed: int = 0,
    slots: int | None = None,
    temperature: float = 1.0,
    masks: bool = False,
    slot: int | None = None,
    between: tuple[int, int] | None = None,
    out: Path | None = None,
) -> tuple[list[Path], list[str]]:
    """Film walks of one or several runs (none: the latest), side by side.

    The options are those of `sri walk`; `slot` counts from 1, and `out` is a .mp4 or .gif, or a
    name without ending for both. Returns the files and notes.

    Raises:
        SriError: for options that exclude each other or do not fit a run; nothing is drawn then.
        SriFailure: when the encoder fails.
    """
    if slot is not None and between is not None:
        raise SriError("--between moves the scene, --slot holds it", "leave out one of the two")
    check_request(num, 1 if slots is None else slots, temperature, seed)
    stem, kinds = _files(out)
    opened = [open_run(workspace, run) for run in runs or (None,)]
    for run in opened:
        total = slots or int(run.model.num_slots)
        if slot is not None and not 1 <= slot <= total:
            name = run.run_dir.name
            raise SriError(f"--slot {slot}: {name} has slots 1 to {total}", "--slot 1")
        if between is not None:
            check_between(run, between)

    folder = opened[0].run_dir / FIGURES
    check_place(out, folder)

    blocks, notes = [], slots_notes(opened, slots)
    for run in opened:
        total = slots or int(run.model.num_slots)
        if between is not None:
            walk = walk_between(run.model, between, num, total, frames)
        else:
            own = None if slot is None else slot - 1
            walk = random_walk(run.model, seed, num, total, frames, own)
        blocks.append(walk_frames(run, walk, temperature, masks))
        notes.append(f"{run.title}: {_what_moves(run, slot)}")
    film = Film(blocks, titles_of(opened)[0] if len(opened) > 1 else [""])
    name = "walk" if slot is None else f"walk-slot-{slot}"
    name = name if between is None else "walk-between-{}-{}".format(*between)
    settings: dict[str, Any] = {"num": num, "slots": slots_of(opened, slots)}
    settings |= {"temperature": temperature, "seed": seed, "slot": slot, "between": between}
    record = record_of(opened, "walk", **settings, masks=masks, frames=frames, fps=fps)
    with output_path(stem, folder, name, "", record) as stem:
        files = [_write(film, fps, stem.with_name(f"{stem.name}.{kind}")) for kind in kinds]
    return files, notes


def walk_frames(
    run: TrainedRun, walk: Walk, temperature: float, with_masks: bool
) -> tuple[Pixels, Pixels | None]:
    """The scenes of a walk and, if wanted, their masks in slot colours, both [F,N,S,S,3]."""
    frames, walks = walk.shape
    images, masks = [], []
    with counting(f"drawing {run.run_dir.name}", frames * walks) as advance:
        for scene in walk_scenes(run.model, walk, temperature):
            images.append(quantise(scene.image))
            if with_masks:
                masks.append(blend_masks(scene.masks[:, :, 0].cpu().numpy()))
            advance(len(images[-1]))
    shape = (frames, walks, *images[0].shape[1:])
    levels = np.concatenate(masks).reshape(shape) if with_masks else None
    return np.concatenate(images).reshape(shape), levels


def _what_moves(run: TrainedRun, slot: int | None) -> str:
    if slot is not None:
        return f"slot {slot} walks; the scene and all other slots are held"
    if run.model.has_scene:
        return "the scene latent moves, the noise of the slots is held"
    return "has no scene variable; the noise of all its slots moves"


def _files(out: Path | None) -> tuple[Path | None, Sequence[str]]:
    """The path without its ending (None: in the run), and the kinds of file."""
    if out is None:
        return None, ("mp4", "gif")
    check_file(out, (".mp4", ".gif", ""))
    kind = out.suffix[1:]
    return out.with_suffix(""), (kind,) if kind else ("mp4", "gif")


def _write(film: Film, fps: int, path: Path) -> Path:
    if path.suffix.lower() == ".gif":
        content = gif_bytes(film, fps)
    else:
        try:
            content = mp4_bytes(film, fps)
        except (OSError, RuntimeError) as error:  # RuntimeError: of imageio_ffmpeg
            reason = (str(error).strip() or "the encoder stopped").splitlines()[-1]
            raise SriFailure(f"could not encode {path}: {reason}", "--out walk.gif") from error
    write_atomic(path, content)
    return path


class Film(Sequence[Pixels]):
    """Frames of walks: a block for each model from left to right, of even height and width.

    Frames are made when they are read, so that enlarged ones are not in memory together.
    """

    def __init__(
        self, blocks: Sequence[tuple[Pixels, Pixels | None]], titles: Sequence[str] = ("",)
    ) -> None:
        """Blocks of images [F,N,S,S,3] with masks of the same shape beside them, or None."""
        self.blocks, self.titles = blocks, titles

    def __len__(self) -> int:
        return len(self.blocks[0][0])

    def __getitem__(self, frame: int) -> Pixels:  # type: ignore[override]
        sheets = []
        for (images, masks), title in zip(self.blocks, self.titles, strict=True):
            cells = images[frame]
            count, size = cells.shape[:2]
            if masks is not None:
                cells = np.concatenate([cells, masks[frame]], axis=2)
            times = -(-(CELL_PX if count > 1 else 2 * CELL_PX) // size)
            sheet = make_grid(cells, math.ceil(math.sqrt(count)), gap=4, scale=times)
            sheets.append(caption(sheet, title) if title else sheet)
        height = max(len(sheet) for sheet in sheets)
        width = sum(sheet.shape[1] + BLOCK_GAP for sheet in sheets) - BLOCK_GAP
        # H.264 halves the resolution of colours: both sides are even.
        whole = np.full((height + height % 2, width + width % 2, 3), 255, np.uint8)
        left = 0
        for sheet in sheets:
            # Captions may differ in their number of lines: the images stand at one height.
            whole[height - len(sheet) : height, left : left + sheet.shape[1]] = sheet
            left += sheet.shape[1] + BLOCK_GAP
        return whole


def mp4_bytes(film: Sequence[Pixels], fps: int) -> bytes:
    """The MP4 file: H.264, yuv420p, which every browser plays. Sides must be even.

    Raises:
        OSError: when the encoder fails.
        RuntimeError: when there is none for this machine.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = film[0].shape[:2]
    size = ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        command = [get_ffmpeg_exe(), *RAW.split(), *size, *H264.split(), str(path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stderr=pipe) as ffmpeg:
            assert ffmpeg.stdin is not None
            with suppress(BrokenPipeError):  # it ended early
                for frame in film:
                    ffmpeg.stdin.write(frame.tobytes())
            log = ffmpeg.communicate()[1].decode(errors="replace")
        if ffmpeg.returncode:
            raise OSError(log.strip() or "ffmpeg ended early")
        return path.read_bytes()


def gif_bytes(film: Sequence[Pixels], fps: int) -> bytes:
    """The GIF file, which repeats for ever. All frames share one palette, so that nothing flickers.

    Frame times are multiples of 1/100 s; they alternate so that the whole lasts F / fps seconds.
    """
    chosen = np.linspace(0, len(film) - 1, min(PALETTE_FRAMES, len(film))).round().astype(int)
    colours = _palette([film[int(i)] for i in chosen])
    ticks = np.round(np.arange(len(film) + 1) * 100 / fps)
    first, *others = (
        Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in film
    )
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=[int(10 * tick) for tick in np.diff(ticks)],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def _palette(frames: Sequence[Pixels]) -> Image.Image:
    """256 colours for frames of one size, as Pillow takes them.

    Colours count by the square root of their pixels: by pixels, the background takes most of the
    256 and small objects lose their shading.
    """
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames])
    coarse = (pixels.astype(np.int32) >> 3) @ np.array([1 << 10, 1 << 5, 1])
    _, first, counts = np.unique(coarse, return_index=True, return_counts=True)
    weighed = pixels[first].repeat(np.ceil(np.sqrt(counts)).astype(int), axis=0)
    return Image.fromarray(weighed[None]).quantize(256, kmeans=3)
