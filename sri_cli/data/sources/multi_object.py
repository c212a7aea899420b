"""Objects Room and CLEVR6 of Multi-Object Datasets: simulated, from the bucket, the mirror or a
local file.

Axes: H, W rows and columns of an image, E entities, background first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.download import Remote, download
from sri_cli.data.source import Options, Rows, Scenario, Simulation, Source, Survey
from sri_cli.data.sources.hdf5 import Hdf5Source
from sri_cli.data.sources.published import (
    NUM_RECORDS,
    OTHER_SOURCES,
    SETS,
    ImageSource,
    Item,
    PublishedSet,
)
from sri_cli.data.sources.tfrecord import (
    BadRecord,
    Features,
    bytes_of,
    floats_of,
    num_bytes_of,
    parse_example,
    read_records,
)
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError

BUCKET = "https://storage.googleapis.com/multi-object-datasets/"
# Simulated scenes by default: enough to train on, and the 10,000 test images that FID needs.
SCENES = {"train": 20_000, "val": 1_000, "test": 10_000}


def choose_source(
    name: str, options: Options, where: str = "simulate", *, downloads: Path, offline: bool = False
) -> Source:
    """The source that the options of `sri prepare objects-room` or `clevr6` mean.

    Args:
        where: simulate, mirror, bucket or a path.
        downloads: The folder of downloaded files.
        offline: Use only what was downloaded before.

    Raises:
        SriError: Impossible numbers, or a source that does not exist.
    """
    options.check()
    kind = SETS[name]
    if where == "simulate":
        return simulation(kind, options)
    if options.views is not None:
        raise SriError("--views is for simulated scenes; published ones have one", "leave it out")
    options.refuse_seed()
    if where == "mirror":
        return Hdf5Source(kind, downloads / kind.mirror_file, options, remote=True, offline=offline)
    if where == "bucket":
        path = downloads / Path(kind.record_file).name
        return RecordSource(kind, path, options, remote=True, offline=offline)
    path = Path(where).expanduser()
    if path.is_dir():
        path = path / Path(kind.record_file).name
    if not path.is_file():
        raise SriError(
            f"--from {where}: {path} does not exist",
            "choose simulate, mirror, bucket, or a file that exists",
        )
    reader = Hdf5Source if h5py.is_hdf5(path) else RecordSource
    return reader(kind, path, options)


def simulation(kind: PublishedSet, options: Options) -> Simulation:
    """Simulated rooms or tables."""
    numbers, views = options.numbers(**SCENES), options.views or 1
    size = options.size_px or kind.size_px
    header = Header(
        name=kind.name,
        size=size,
        source="simulated",
        background_labels=kind.background_labels,
        parameters={**numbers, "views": views, "seed": options.seed},
        preprocessing="none: rendered at this size",
    )
    simulate = functools.partial(
        _simulator(kind.name), size_px=size, views=views, seed=options.seed
    )
    return Simulation(header, numbers, views, simulate)


def _simulator(name: str) -> Callable[..., Scenario]:
    """Imported when needed: MuJoCo is slow to load."""
    if name == "objects-room":
        from sri_cli.data.simulate.rooms import simulate_room

        return simulate_room
    from sri_cli.data.simulate.tables import simulate_table

    return simulate_table


class RecordSource(ImageSource):
    """A TFRecord file of Multi-Object Datasets, local or in the bucket."""

    def __init__(
        self,
        kind: PublishedSet,
        path: Path,
        options: Options,
        *,
        remote: bool = False,
        offline: bool = False,
    ) -> None:
        super().__init__(kind, path, options)
        assert kind.split is not None
        self.remote, self.offline = remote, offline
        self.split = kind.split.changed_by(options)
        self.crop = Resizing(self.resizing.size, kind.filter, kind.crop)
        self.header = Header(
            name=kind.name,
            size=self.crop.size,
            source="original",
            background_labels=kind.background_labels,
            parameters={"file": path.name, "kept": kind.kept, **self.split.parameters()},
            preprocessing=self.crop.describe(),
        )

    def fetch(self, workers: int, command: str) -> None:
        if self.remote:
            root = os.environ.get("SRI_BUCKET", BUCKET).rstrip("/")
            remote = Remote(f"{root}/{self.kind.record_file}")
            download(remote, self.path, instead=OTHER_SOURCES, offline=self.offline)

    def survey(self) -> Survey:
        """Read the file as far as needed, check every record, and count the splits."""
        counts, number = dict.fromkeys(SPLITS, 0), 0
        megabytes = self.path.stat().st_size // 10**6
        with Progress(megabytes, 0, f"check {self.path.name}", "MB") as progress:
            records = self._records(lambda num_bytes: progress.update(num_bytes // 10**6))
            for split, record in self.split.assign(records):
                number = record[0]
                if split is not None:
                    counts[split] += 1
        self.split.check(self.path, number, counts)
        return Survey(counts)

    def items(self, survey: Survey, rows: Rows) -> Iterator[tuple[str, Item]]:
        seen = dict.fromkeys(SPLITS, 0)
        for split, (number, features) in self.split.assign(self._records()):
            if split is None:
                continue
            seen[split] += 1
            if seen[split] > rows[split]:
                try:
                    yield split, self._item(number, features)
                except BadRecord as error:
                    raise error.located(self.path, number) from error

    def _records(
        self, progress: Callable[[int], None] = lambda num_bytes: None
    ) -> Iterator[tuple[tuple[int, Features], bool]]:
        """((number, features), whether the filter keeps it) of each record."""
        records = read_records(self.path, progress, NUM_RECORDS.get(self.path.name))
        for number, data in enumerate(records, start=1):
            keep = True
            try:
                features = parse_example(data)
                self._check_shape(features)
                if self.kind.max_entities is not None:
                    visible = floats_of(features, "visibility").sum()
                    keep = bool(visible <= self.kind.max_entities)
            except BadRecord as error:
                raise error.located(self.path, number) from error
            yield (number, features), keep

    def _check_shape(self, features: Features) -> None:
        """BadRecord for a record of another data set."""
        kind, area = self.kind, self.kind.height * self.kind.width
        image, masks = (num_bytes_of(features, name) for name in ("image", "mask"))
        if image != 3 * area or masks % area or not area <= masks <= 255 * area:
            shape = f"{kind.height}x{kind.width}"
            raise BadRecord(
                f"it is not of {kind.name}: it has an image of {image:,} and masks of {masks:,}"
                f" bytes, not of {shape}x3 and a multiple of {shape}",
                f"choose a file of {kind.name}: --from FILE",
            )

    def _item(self, number: int, features: Features) -> Item:
        """Cropped image and labels: the first entity whose mask is set, 0 where none is."""
        shape = (self.kind.height, self.kind.width)
        image = self.crop.crop(bytes_of(features, "image").reshape(*shape, 3))
        masks = bytes_of(features, "mask").reshape(-1, *shape)
        labels = np.zeros(image.shape[:2], np.uint8)
        for entity in reversed(range(1, len(masks))):
            labels[self.crop.crop(masks[entity]) > 127] = entity
        labels[self.crop.crop(masks[0]) > 127] = 0
        factors: dict[str, Any] = {name: floats_of(features, name) for name in self.kind.factors}
        return Item(f"record-{number}", np.ascontiguousarray(image), labels, factors)
