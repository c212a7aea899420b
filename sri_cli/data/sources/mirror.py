"""ShapeStacks, Objects Room and CLEVR6 from the HDF5 files of a mirror of multi-object data sets.

Root data sets: `image` uint8 [N,H,W,3], `mask` integers [N,H,W,1] or [N,H,W], and factors [N,...].
Axes: N images, H, W rows and columns.
"""

from __future__ import annotations

import functools
import os
import shlex
from pathlib import Path
from typing import Any

import h5py

from sri_cli.data.download import Remote, download
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.asked import Job, kept_words, split_in_order
from sri_cli.data.sources.hdf5 import find, has, opened
from sri_cli.data.sources.mirror_reading import IMAGE, MASK, MirrorSet, pictures, survey
from sri_cli.data.sources.mirror_scenes import VIEWS
from sri_cli.data.sources.picture import make
from sri_cli.data.sources.records import SETS
from sri_cli.data.transforms import Box, Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.run import Workspace

MIRROR = "https://data-download.compute.dtu.dk/multi_object_datasets/"
# Name and SHA-256 of the files. Beside the towers lies a `shapestacks-metadata.npy`; it is a
# pickle, which could run anything when it is opened, and only tells the factors' types: never
# fetch or open it.
FILES = {
    "shapestacks": (
        "shapestacks-full.hdf5",
        "09433b2e629744fc2aaa81d5f922d8b0509500bcb0e49d884675f4f8d52c1928",
    ),
    "objects-room": (
        "objects_room_train-full.hdf5",
        "5bddda03ebb48dca426071317c3d3ed1fb1a6683fd20c5fdf57a0a8c04bf2444",
    ),
    "clevr6": (
        "clevr_10-full.hdf5",
        "419dd56bc7791541daaa246d4b60a00ab3d9c0b9a1330c8b8a015350130240c2",
    ),
}
INSTEAD = "--from simulate makes pictures like them; --from FILE reads a copy of the file you have"


def of_records(name: str, side: int) -> MirrorSet:
    """One that is published as records, too."""
    kind = SETS[name]
    return MirrorSet(
        name=name,
        side=side,
        size_px=kind.size_px,
        background_labels=kind.background_labels,
        filter=kind.filter,
        published=kind.published,
        most_entities=kind.most_entities,
        box=kind.box,
        uncropped=(kind.height, kind.width) if kind.box else None,
    )


KINDS = {
    "shapestacks": MirrorSet("shapestacks", 64, 64, 1, "bilinear", unassigned=7),
    "objects-room": of_records("objects-room", 64),
    "clevr6": of_records("clevr6", 128),
}


def prepare_mirror(
    workspace: Workspace,
    name: str,
    asked: Options,
    *,
    source: Path | None = None,
    offline: bool = False,
    out: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare",
) -> Prepared:
    """Make the data file of `name` out of the mirror's, or out of a copy, `source`; see `prepare`.

    The mirror's file is fetched unless it is here or the data file is finished already.
    """
    check_name(name, source)
    path = out or workspace.data_path(name, asked.size_px or KINDS[name].size_px)
    file = source or workspace.data_root / "downloads" / FILES[name][0]
    if source is None and (force or not path.exists()):
        root = os.environ.get("SRI_MIRROR", MIRROR).rstrip("/")
        remote = Remote(f"{root}/{file.name}", FILES[name][1])
        download(remote, file, instead=INSTEAD, offline=offline)
    job = mirror_job(name, file, asked)
    return prepare(job, path, workers=workers, force=force, command=command)


def check_name(name: str, source: Path | None) -> None:
    """SriError for the mirror's file of another data set; some of them look alike."""
    for other, (file, _) in FILES.items():
        if other != name and source is not None and source.name == file:
            raise SriError(
                f"{source} is the mirror's file of {other}, not of {name}",
                f"sri prepare {other} --from {shlex.quote(str(source))}",
            )


def mirror_job(name: str, path: Path, asked: Options) -> Job:
    """The job of a file of the mirror; it need not be there before its survey."""
    asked.check()
    kind = KINDS[name]
    size_px = asked.size_px or kind.size_px
    box = box_of(kind, path)
    header = Header(
        name=name,
        size=size_px,
        source="mirror",
        background_labels=kind.background_labels,
        parameters={"file": path.name, **split_parameters(kind, asked)},
        preprocessing=preprocessing(kind, size_px, box),
    )
    return Job(
        header,
        survey=functools.partial(survey, kind, path, asked),
        items=functools.partial(pictures, kind, path),
        make=functools.partial(make, Resizing(size_px, kind.filter)),
        survey_again=True,
        items_per_task=8,
        workers=1,
    )


def is_mirror(path: Path) -> bool:
    """Whether the file is laid out as the mirror's are."""
    try:
        with opened(path) as file:
            return all(any(has(file, name, h5py.Dataset) for name in of) for of in (IMAGE, MASK))
    except SriError:
        return False


def split_parameters(kind: MirrorSet, asked: Options) -> dict[str, Any]:
    """For the data file's record; known without the mirror's file."""
    if kind.published is not None:
        kept = kept_words(kind.most_entities)
        return {"kept": kept, **split_in_order(asked, kind.published).parameters()}
    numbers = {"train": asked.scenes, "val": asked.val_scenes, "test": asked.test_scenes}
    return {
        "split": "scenes, shuffled by the seed; not the official lists",
        "scene": f"images of equal factors, else runs of {VIEWS}",
        **{key: "as published, to scale" if n is None else n for key, n in numbers.items()},
        "seed": asked.seed,
    }


def box_of(kind: MirrorSet, path: Path) -> Box | None:
    """The crop that the file's pictures still want; what is wrong with it, the survey tells."""
    try:
        with opened(path) as file:
            shape = find(file, IMAGE).shape
    except SriError:
        return None
    return kind.box if kind.uncropped is not None and shape[1:3] == kind.uncropped else None


def preprocessing(kind: MirrorSet, size_px: int, box: Box | None) -> str:
    """For the data file's record."""
    if box is not None:
        return Resizing(size_px, kind.filter, box).words()
    sides = f"{kind.side}x{kind.side}"
    whose = f"the mirror's own crop to {sides}, not the published one" if kind.box else sides
    if size_px == kind.side:
        return f"none: {whose}, as in the file"
    return f"{whose}; resize to {size_px} (Pillow {kind.filter}); masks nearest"
