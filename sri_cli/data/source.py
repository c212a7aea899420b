"""What a data set must provide to be prepared: a header, a survey, and scenes made one by one.

To add a data set, subclass `Source` in data/sources/; `prepare` does the rest (worker processes,
resuming, writing). A source never writes the data file itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import FLAGS, SPLITS
from sri_cli.data.writer import Header
from sri_cli.errors import SriError

Rows = Mapping[str, int]  # images by split
# Simulated scenes are numbered from here in each split, so no scene is in two splits, whatever
# their sizes.
FIRST_SCENARIO = {"train": 0, "val": 1_000_000, "test": 2_000_000}
MAX_SCENARIOS = 1_000_000
MIN_SIZE_PX, MAX_SIZE_PX = 8, 512
MAX_VIEWS = 16  # ShapeStacks has 16 cameras
TASK_ROWS = 16  # making so many images costs far more than sending them between processes


@dataclass(frozen=True)
class Scenario:
    """One scene from all its V views.

    images uint8 [V,H,W,3]; masks uint8 [V,H,W], None when unknown: 0..background_labels-1 are
    background, then one label per object; factors: arrays with leading axis V, see each source;
    discarded: how many scenes were drawn before this one and broke a rule of the simulator.
    """

    name: str
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    discarded: int = 0


def object_factor(
    values: Sequence[Any], views: int, max_objects: int, empty: float, dtype: type
) -> np.ndarray:
    """One value per object as a factor [V, P, ...], the same in all views; `empty` where there is
    no object."""
    out = np.full((max_objects, *np.shape(values[0])), empty, dtype)
    out[: len(values)] = values
    return np.broadcast_to(out, (views, *out.shape)).copy()


class Source(ABC):
    """A data set that can be made into a data file; it is pickled, once for each worker."""

    header: Header  # without the counts and all else that the survey finds
    views: int = 1  # images of one scene
    test_only: bool = False  # training and validation have no images
    items_per_task: int | None = None  # sent to a worker at once; None: enough for TASK_ROWS
    max_workers: int | None = None  # more do not help; None: one per core
    writes_files: bool = False  # its survey does, beside the data file

    @abstractmethod
    def survey(self, workers: int) -> tuple[Header, Any]:
        """Get the files that are missing, and count the images; SriError for anything wrong.

        Returns the complete header, and the plan: whatever `items` needs.
        """

    def items(self, plan: Any, rows: Rows) -> Iterator[tuple[str, Any]]:
        """(split, item) of each scene missing after `rows`, always in the same order. By default
        the plan is the items of each split.

        Items are small and picklable: an index, a path, a decoded image. Splits may be mixed.
        """
        for split in SPLITS:
            for item in plan[split][rows[split] // self.views :]:
                yield split, item

    @abstractmethod
    def make(self, item: Any) -> Scenario:
        """In a worker process: the scene of an item, with `views` images."""


class Simulation(Source):
    """Scenes that follow from their index: `simulate(index)` must be picklable."""

    def __init__(
        self,
        header: Header,
        scenes: Mapping[str, int],
        views: int,
        simulate: Callable[..., Scenario],
    ) -> None:
        """`scenes`: their number in each split."""
        self.header, self.scenes, self.views, self.simulate = header, scenes, views, simulate
        self.indices = {
            split: range(FIRST_SCENARIO[split], FIRST_SCENARIO[split] + number)
            for split, number in scenes.items()
        }

    def survey(self, workers: int) -> tuple[Header, dict[str, range]]:
        counts = {split: self.scenes[split] * self.views for split in SPLITS}
        return replace(self.header, counts=counts), self.indices

    def make(self, item: int) -> Scenario:
        return self.simulate(item)


@dataclass(frozen=True)
class Options:
    """The numbers a user may choose for any source; None means the source's default."""

    size_px: int | None = None
    scenes: int | None = None  # for training; in sources of single images, images
    val_scenes: int | None = None
    test_scenes: int | None = None
    views: int | None = None
    seed: int = 0
    test_only: bool = False  # every image is for testing

    def __post_init__(self) -> None:
        """SriError for a number out of range."""
        ranges = {
            "scenes": (self.scenes, 1, MAX_SCENARIOS),
            "val-scenes": (self.val_scenes, 1, MAX_SCENARIOS),
            "test-scenes": (self.test_scenes, 1, MAX_SCENARIOS),
            "views": (self.views, 1, MAX_VIEWS),
            "size": (self.size_px, MIN_SIZE_PX, MAX_SIZE_PX),
            "seed": (self.seed, 0, 2**31 - 1),
        }
        if self.test_only and (self.scenes is not None or self.val_scenes is not None):
            raise SriError(
                "a test set alone has no training and no validation images",
                "leave out --scenes and --val-scenes",
            )
        for name, (value, least, most) in ranges.items():
            if value is not None and not least <= value <= most:
                raise SriError(f"--{name} {value} is out of range", f"choose {least} to {most:,}")

    def refuse_seed(self) -> None:
        """SriError for a seed where nothing is random."""
        if self.seed:
            raise SriError(
                f"--seed {self.seed} has no effect: these files have a fixed split", "leave it out"
            )

    @property
    def given(self) -> dict[str, int | None]:
        """The number of each split, None where it is not given."""
        return {"train": self.scenes, "val": self.val_scenes, "test": self.test_scenes}

    def number(self, split: str) -> int | None:
        """As given; beside given training scenes a sixth of them; None: all there are."""
        given = self.given[split]
        return sixth(self.scenes) if given is None and self.scenes is not None else given

    def check_number(self, split: str, count: int, there: str) -> None:
        """SriError for a given number above `count`; `there`: where there are so many."""
        given, flag = self.given[split], FLAGS[split]
        if given is not None and given > count:
            is_all = split == "train" or self.scenes is None
            rest = "all of them" if is_all else "a sixth of --scenes"
            hint = f"{flag} {count}, or leave it out for {rest}"
            raise SriError(f"{flag} {given}: {there}", hint)

    def divide(self, count: int, share: int, noun: str) -> dict[str, int]:
        """The number of each split out of `count`.

        Without a given number, validation and test get `share`, but at most a sixth of given
        training scenes, and training gets the rest. SriError if `count` is too small.
        """
        if self.test_only:
            if (self.test_scenes or 1) > count:
                raise SriError(
                    f"{self.test_scenes or 1:,} test {noun} are more than the {count:,} that exist",
                    "choose a smaller number: --test-scenes T",
                )
            return {"train": 0, "val": 0, "test": self.test_scenes or count}
        if count < len(SPLITS):
            raise SriError(f"too few {noun} ({count}): each split needs one", "add more")
        default = share if self.scenes is None else min(share, sixth(self.scenes))
        val = default if self.val_scenes is None else self.val_scenes
        test = default if self.test_scenes is None else self.test_scenes
        train = max(1, count - val - test) if self.scenes is None else self.scenes
        if train + val + test > count:
            raise SriError(
                f"{train:,} train, {val:,} val and {test:,} test {noun} are more than the"
                f" {count:,} that exist",
                "choose smaller numbers: --scenes N --val-scenes V --test-scenes T",
            )
        return {"train": train, "val": val, "test": test}


def sixth(scenes: int) -> int:
    """Scenes for validation, and for test, beside so many for training."""
    return max(2, scenes // 6)
