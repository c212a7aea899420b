"""`sri edit`: slots removed, repeated, exchanged, imagined anew; a strip of before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.console import counting
from sri_cli.errors import SriError
from sri_cli.generation.edit import Strip, exchange, reimagine, remove, repeat
from sri_cli.generation.edit_scenes import Cell, Start, decoded, drawn, read_image, seen
from sri_cli.generation.edit_words import notes
from sri_cli.generation.sample import check_request
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import fitting_split
from sri_cli.plotting.grid import Picture, png_bytes
from sri_cli.plotting.strips import Tile, TileColumn, strip_figure
from sri_cli.run import Workspace

ACTIONS = ("remove", "repeat", "exchange", "reimagine")
MAX_ROWS, MAX_COLUMNS = 16, 24
VARIANTS = 6


@dataclass(frozen=True)
class Request:
    """What to do. slot: which slots, from 1, together; none: each in turn. num: how many scenes
    (None: as many as suit the action); slots None: as many as in training. `image` or `index`
    (of the test split) name a picture to edit, or to exchange slots with."""

    action: str
    slot: tuple[int, ...] = ()
    num: int | None = None
    seed: int = 0
    slots: int | None = None
    temperature: float = 1.0
    image: Path | None = None
    index: int | None = None
    variants: int | None = None

    @property
    def scenes(self) -> int:
        """How many scenes are drawn."""
        if self.num is not None:
            return self.num
        if self.action == "exchange":
            return 2
        return 1 if self.action == "reimagine" and not self.slot else 4

    @property
    def pictured(self) -> bool:
        """Whether a picture is named."""
        return self.image is not None or self.index is not None


@dataclass(frozen=True)
class Result:
    """The file, what it shows, and notes."""

    path: Path
    title: str
    notes: list[str]


def edit_run(
    workspace: Workspace, run: str | None, request: Request, out: Path | None = None
) -> Result:
    """Edit scenes of a run (None: the latest) and write the strip to `out` (None: its figures/).

    Raises SriError for a request that means nothing, at once or when the run is known.
    """
    check(request)
    trained = open_run(workspace, run)
    total = request.slots or trained.model.num_slots
    check_slots(request, total, trained.run_dir.name)
    picture, name, note = _picture(workspace, trained, request)
    guest = None
    if picture is not None:
        model = trained.model
        guest = seen(model, picture, name, request.seed, request.temperature)
    strip = make_strip(trained, request, guest)
    title = (
        f"{trained.title}: {TITLES[request.action]}; seed {request.seed},"
        f" temperature {request.temperature:g}"
    )
    figure = draw_strip(trained, strip, total, title)
    path = out or trained.run_dir / "figures" / f"edit-{request.action}.png"
    write_atomic(path, png_bytes(figure))
    told = [*([note] if note else []), *notes(trained, request.action, guest is not None)]
    return Result(path, title, told)


TITLES = {
    "remove": "scenes without some of their slots",
    "repeat": "a slot twice, and in the place of other scenes' slots",
    "exchange": "slots exchanged between two scenes",
    "reimagine": "from a slot on imagined anew",
}


def make_strip(trained: TrainedRun, request: Request, guest: Start | None) -> Strip:
    """The edited slots of the action; `guest`: the picture's scene, if one is named."""
    model, temperature = trained.model, request.temperature
    total = request.slots or model.num_slots
    which = [tuple(k - 1 for k in request.slot)] if request.slot else [(k,) for k in range(total)]
    alone = guest is not None and request.action in ("remove", "reimagine")
    scenes = [] if alone else drawn(model, request.seed, request.scenes, total, temperature)
    starts = scenes if guest is None else [guest, *scenes]
    if request.action == "remove":
        return remove(starts, which)
    if request.action == "repeat":
        return repeat(starts, which)
    if request.action == "exchange":
        pairs = zip(scenes[::2], scenes[1::2], strict=True)
        return exchange(list(pairs) if guest is None else [(s, guest) for s in scenes], which)
    firsts = [k - 1 for k in request.slot] or range(1, total)
    variants = VARIANTS if request.variants is None else request.variants
    return reimagine(model, starts, firsts, variants, temperature, request.seed)


def draw_strip(trained: TrainedRun, strip: Strip, total: int, text: str) -> Picture:
    """Decode all cells and lay them out: the picture where there is one, before, after."""
    rows = strip.rows
    if len(rows) > MAX_ROWS or len(strip.columns) > MAX_COLUMNS:
        raise SriError(
            f"{len(rows)} rows of {len(strip.columns)} edits: one figure shows at most"
            f" {MAX_ROWS} rows of {MAX_COLUMNS}",
            "name fewer scenes with --num, or some slots with --slot",
        )
    cells = [Cell.whole(row.before.slots) for row in rows]
    cells += [cell for row in rows for cell in row.after]
    with counting("decoding", len(cells)) as advance:
        tiles = decoded(trained.model, cells, total, advance)
    before, after = tiles[: len(rows)], tiles[len(rows) :]
    count = len(strip.columns)
    columns = [TileColumn("before", before)]
    if any(row.before.picture is not None for row in rows):
        pictures = [row.before.picture for row in rows]
        columns.insert(0, TileColumn("image", [None if p is None else Tile(p) for p in pictures]))
    for i, column in enumerate(strip.columns):
        columns.append(TileColumn(column.text, after[i::count], column.slots))
    return strip_figure([row.label for row in rows], columns, text)


def check(request: Request) -> None:
    """SriError for what means nothing, whatever the model."""
    slots = 1 if request.slots is None else request.slots
    check_request(request.scenes, slots, request.temperature, request.seed)
    pictured = request.pictured
    if request.image is not None and request.index is not None:
        raise SriError("--image and --index name two pictures", "leave out one of the two")
    if pictured and request.slots is not None:
        raise SriError(
            "--slots: an image is taken apart into as many slots as in training", "leave it out"
        )
    if request.action == "exchange" and not pictured and request.scenes % 2:
        raise SriError(
            f"--num {request.scenes}: slots are exchanged between two scenes each", "--num 2"
        )
    if pictured and request.num is not None and request.action in ("remove", "reimagine"):
        raise SriError(f"--num: {request.action} takes the picture alone", "leave it out")
    if request.variants is not None and request.action != "reimagine":
        raise SriError(f"--variants: {request.action} has none", "leave it out")
    if request.variants is not None and not 1 <= request.variants <= MAX_COLUMNS:
        raise SriError(
            f"--variants {request.variants}: 1 to {MAX_COLUMNS} fit", f"--variants {VARIANTS}"
        )


def check_slots(request: Request, total: int, name: str) -> None:
    """SriError unless the slots named are there, and some are left."""
    for slot in request.slot:
        if not 1 <= slot <= total:
            raise SriError(
                f"--slot {slot}: scenes of {name} have the slots 1 to {total}",
                f"--slot {min(2, total)}",
            )
    if request.action == "remove" and len(set(request.slot) or {1}) == total:
        raise SriError("--slot: nothing is left without all slots", "name fewer of them")
    if request.action == "reimagine" and not request.slot and total == 1:
        raise SriError("--slots 1: nothing comes after the first slot", "--slot 1")


def _picture(
    workspace: Workspace, trained: TrainedRun, request: Request
) -> tuple[Picture | None, str, str | None]:
    """The picture that is named, what to call it, and what was done to it."""
    if request.image is not None:
        picture, note = read_image(trained, request.image)
        return picture, "image", note
    if request.index is None:
        return None, "", None
    data = trained.open_data()
    images = fitting_split(trained, data, (), "test").images
    if not 0 <= request.index < len(images):
        raise SriError(
            f"--index {request.index}: the test split of {data.name} has the images 0 to"
            f" {len(images) - 1}",
            "--index 0",
        )
    return images[request.index], f"test {request.index}", None
