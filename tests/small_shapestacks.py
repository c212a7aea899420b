"""A few files in the layout of ShapeStacks, drawn by hand with Pillow.

Every picture has a frame of 14 px that the centre crop of 196 takes away. What is left is one
colour on its left half and another on its right half. A map marks a quarter of the crop's side
squared, rows 49 to 97 and columns 49 to 97 of it: rows and columns 16 to 31 at 64 px.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.shapestacks import choose_source

FRAME = (255, 0, 255)
LEFT, RIGHT = (200, 40, 0), (0, 80, 120)
LISTS: Mapping[str, Sequence[str]] = {
    "train": (
        "ccs-easy-h=3-vcom=0-vpsf=0-v=1",
        "blocks-hard-h=6-vcom=2-vpsf=0-v=12",
        "ccs-hard-h=2-vcom=0-vpsf=1-v=100",
    ),
    "eval": ("ccs-easy-h=4-vcom=0-vpsf=0-v=7",),
    "test": ("blocks-easy-h=5-vcom=0-vpsf=3-v=2", "ccs-easy-h=2-vcom=0-vpsf=0-v=3"),
}
EVERYONE = [f"env_{name}" for names in LISTS.values() for name in names]
CAMERAS = (1, 2, 10)


def picture(camera: int, mode: str = "RGB", side: int = 224) -> Image.Image:
    """`camera` is the red of the left half's top left corner after cropping, 49 px wide."""
    image = Image.new("RGB", (side, side), FRAME)
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, 111, 209), fill=LEFT)
    draw.rectangle((112, 14, 209, 209), fill=RIGHT)
    draw.rectangle((14, 14, 62, 62), fill=(camera, 0, 0))
    return image.convert(mode)


def label_map(label: int, mode: str = "RGB") -> Image.Image:
    """One object; a corner of the frame and a strip of the crop are not assigned (7)."""
    image = Image.new("L", (224, 224), 0)
    draw = ImageDraw.Draw(image)
    draw.rectangle((63, 63, 111, 111), fill=32 * label)
    draw.rectangle((0, 0, 13, 13), fill=32 * 7)
    draw.rectangle((14, 161, 209, 209), fill=32 * 7)
    if mode == "L":
        return image
    bands = [image, *(Image.new("L", image.size, 99) for _ in range(2))]  # only the first counts
    rgb = Image.merge("RGB", bands)
    return rgb if mode == "RGB" else rgb.convert(mode)


def write_files(
    place: Path,
    *,
    maps: str | None = "iseg",
    names: Iterable[str] = EVERYONE,
    cameras: Sequence[int] = CAMERAS,
    mode: str = "RGB",
) -> Path:
    """The folder `shapestacks` in `place`; `maps` in iseg/ or recordings/, or None."""
    root = place / "shapestacks"
    write_lists(root, LISTS)
    for name in names:
        room = root / "recordings" / name
        room.mkdir(parents=True)
        (room / "log.txt").write_text("not a picture")
        for camera in cameras:
            file = room / f"rgb-w=5-f=2-l=1-c=unique-cam_{camera}-mono-0.png"
            picture(camera, mode).save(file, "PNG")
        if maps:
            write_maps(root / maps / name, cameras, mode)
    return root


def write_lists(root: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """The split `default`, as its files are: the last line has no end."""
    folder = root / "splits" / "default"
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in lists.items():
        (folder / f"{file}.txt").write_bytes("\n".join(names).encode())


def write_maps(room: Path, cameras: Sequence[int], mode: str = "RGB") -> None:
    """A scenario's maps: camera N marks object 1 + N % 6."""
    room.mkdir(parents=True, exist_ok=True)
    for camera in cameras:
        file = room / f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"
        label_map(1 + camera % 6, mode).save(file, "PNG")


def prepare_from(
    place: Path,
    out: Path,
    options: Options | None = None,
    *,
    split: str = "default",
    workers: int = 1,
    force: bool = False,
) -> Prepared:
    """`sri prepare shapestacks --from PLACE --out OUT`."""
    where = {"split": split, "downloads": out.parent / "data" / "downloads"}
    source = choose_source(options or Options(), str(place), **where)  # type: ignore[arg-type]
    return prepare(source, out, workers=workers, force=force)
