"""`sri edit`: scenes of a run or an image before and after an edit, with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sri_cli.data.image_files import Unreadable, decode_image, read_upright
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError
from sri_cli.generation.edit import (
    EditRow,
    decode_edits,
    draw_sources,
    exchange,
    infer_scene,
    reimagine,
    remove,
    repeat,
    source_edits,
)
from sri_cli.generation.sample import check_request
from sri_cli.generation.trained_run import TrainedRun, open_run, slots_notes
from sri_cli.plotting.figures import Panel, check_file, check_page, draw, write_figure
from sri_cli.plotting.images import Pixels, blend_masks
from sri_cli.plotting.outputs import FIGURES, check_place, output_path, record_of
from sri_cli.plotting.segments import resizing_of
from sri_cli.plotting.titles import title_of
from sri_cli.run import Workspace

TITLES = {
    "remove": "Scenes without some of their slots",
    "repeat": "A slot twice, and in place of a slot of other scenes",
    "exchange": "Slots exchanged between two scenes",
    "reimagine": "Drawn again from a slot on",
}
WITH_SCENES = ("repeat", "exchange")  # edit new scenes beside a given image
VARIANTS = 6


def edit_run(
    workspace: Workspace,
    run: str | None,
    action: str,
    *,
    slot: Sequence[int] = (),
    num: int | None = None,
    seed: int = 0,
    slots: int | None = None,
    temperature: float = 1.0,
    image: Path | None = None,
    index: int | None = None,
    variants: int = VARIANTS,
    out: Path | None = None,
) -> tuple[Path, list[str]]:
    """Edit scenes of a run (None: the latest) and draw them before and after.

    The options are those of `sri edit`, of which `cli/edit.py` rejects those without effect; slots
    count from 1, and no `slot` means each in turn. Returns the file and notes.

    Raises:
        SriError: for options out of range for the run.
    """
    given = image is not None or index is not None
    if num is None:
        num = 2 if action == "exchange" else 4
        num = 1 if action == "reimagine" and not slot else num
    if action == "exchange" and not given and num % 2:
        raise SriError(f"--num {num}: slots are exchanged between two scenes each", "--num 2")
    check_request(num, 1 if slots is None else slots, temperature, seed)
    check_file(out)

    opened = open_run(workspace, run)
    model, total = opened.model, slots or opened.model.num_slots
    _check_slots(opened, action, slot, total)
    folder = opened.run_dir / FIGURES
    check_place(out, folder)
    settings: dict[str, Any] = {"slots": total, "slot": list(slot), "temperature": temperature}
    settings |= {"num": num, "seed": seed, "index": index, "variants": variants}
    notes = [*slots_notes([opened], slots), edit_note(opened, action)]
    sources = []
    if image is not None:
        sources = [infer_scene(model, *_read_image(image, opened, notes), seed)]
        settings["image"] = {"file": str(image), "sha256": sha256(image.read_bytes()).hexdigest()}
    elif index is not None:
        data = opened.open_data()
        data.check_size(model.image_size)
        images = data.split("test").images
        if not 1 <= index <= len(images):
            raise SriError(
                f"--index {index}: the test split has images 1 to {len(images)}", "--index 1"
            )
        key = f"test image {index - 1}"  # random numbers are those of version 0.1
        sources = [infer_scene(model, images[index - 1], f"test image {index}", seed, key)]
        settings["data"] = {"name": data.name, "sha256": str(data.attrs["sha256"])}
    if not given or action in WITH_SCENES:
        sources += draw_sources(model, seed, num, total, temperature)

    groups: list[tuple[int, ...]]
    groups = [tuple(k - 1 for k in slot)] if slot else [(k,) for k in range(total)]
    names = ["+".join(str(k + 1) for k in group) for group in groups]
    columns = [f"slot {name}" for name in names]
    bars: list[tuple[int, ...]] = groups
    if action == "remove":
        rows = remove(sources, groups)
        columns = [f"without {name}" for name in names]
    elif action == "repeat":
        rows = repeat(sources, groups)
    elif action == "exchange":
        pairs = list(zip(sources[::2], sources[1::2], strict=True)) if not given else []
        rows = exchange(pairs or [(scene, sources[0]) for scene in sources[1:]], groups)
    else:
        firsts = [k - 1 for k in slot] or range(1, total)
        rows = reimagine(model, sources, firsts, variants, temperature, seed)
        columns, bars = [f"variant {i + 1}" for i in range(variants)], [()] * variants

    panel = _panel(opened, rows, columns, bars, total)
    # Nothing is drawn from the prior where slots of an image are removed.
    heat = "" if given and action == "remove" else f", temperature {temperature:g}"
    title = f"{TITLES[action]}{heat}, seed {seed}"
    figure = draw([[panel]], title)
    record = record_of([opened], f"edit {action}", **settings)
    with output_path(out, folder, f"edit-{action}", ".png", record) as path:
        write_figure(figure, path)
    return path, list(filter(None, notes))


def _panel(
    run: TrainedRun,
    rows: Sequence[EditRow],
    columns: Sequence[str],
    slots: Sequence[tuple[int, ...]],
    total: int,
) -> Panel:
    """Images above their masks: the given image where there is one, the scene, its edits."""
    shown = 0 if any(row.before.image is not None for row in rows) else 1
    check_page(run.model.image_size, len(columns) + 2 - shown, 2 * len(rows))
    edits = [*source_edits(rows), *(edit for row in rows for edit in row.after)]
    images, levels = decode_edits(run.model, edits, total)
    masks = blend_masks(levels)
    cells: list[list[Pixels | None]] = []
    for i, row in enumerate(rows):
        start = len(rows) + i * len(columns)
        after = slice(start, start + len(columns))
        cells.append([row.before.image, images[i], *images[after]])
        cells.append([None, masks[i], *masks[after]])
    return Panel(
        [row[shown:] for row in cells],
        title_of(run),
        rows=[name for row in rows for name in (row.label, "masks")],
        columns=["image", "before", *columns][shown:],
        slots=[(), (), *slots][shown:],
        breaks=frozenset({2 - shown}),
        together=2,
    )


def edit_note(run: TrainedRun, action: str) -> str:
    """Where an edit means less in this system than in SRI; empty where it does not."""
    name, model = run.recipe.name, run.model
    if model.shared_masks:
        return (
            f"{name}: each mask is a share of what the slots before it leave, so an edit also"
            " changes the slots after it"
        )
    if action == "reimagine" and model.independent_slots:
        alone = "from the scene variable alone" if model.has_scene else "independently"
        return f"{name} draws every slot {alone}: new slots do not depend on those before"
    if action == "reimagine" and not model.has_scene:
        return f"{name} has no scene variable: new slots depend on those before alone"
    if action in ("repeat", "exchange") and not model.learns_order:
        return (
            f"{name} learns no order: one slot may be background in one scene and an object in"
            " another"
        )
    return ""


def _check_slots(run: TrainedRun, action: str, slot: Sequence[int], total: int) -> None:
    for each in slot:
        if not 1 <= each <= total:
            name = run.run_dir.name
            raise SriError(f"--slot {each}: scenes of {name} have slots 1 to {total}", "--slot 1")
    if action == "remove" and len(set(slot) or {1}) == total:
        raise SriError(f"{total} of {total} --slots removed: nothing is left", "remove fewer")
    if action == "reimagine" and not slot and total == 1:
        raise SriError("--slots 1: there is no slot after the first", "--slot 1")


def _read_image(path: Path, run: TrainedRun, notes: list[str]) -> tuple[Pixels, str]:
    """An image file as the model takes it, and its name.

    One of another size than the model's is cropped and resized as the images of the training were.
    """
    size = run.model.image_size
    hint = "any PNG or JPEG will do; --index 1 takes a test image"
    if not path.is_file():
        raise SriError(f"--image {path} is no file", hint)
    try:
        _, frame = read_upright(path)
        as_is = (frame.width, frame.height) == (size, size)
        resizing, how = (Resizing(size), "") if as_is else resizing_of(run, None)
        image, _ = decode_image(path, resizing)
    except Unreadable as error:
        raise SriError(f"--image {path}: {error}", hint) from error
    if not as_is:
        notes.append(f"{path.name} ({frame.width}x{frame.height} px): {how}")
    return image, "image"
