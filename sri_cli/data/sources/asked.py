"""What a user asks of a preparation, and how many images that makes of each split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sri_cli.data.dataset import SPLITS
from sri_cli.data.job import MAX_SCENARIOS
from sri_cli.errors import SriError

T = TypeVar("T")
SMALLEST_PX, LARGEST_PX = 8, 512
MOST_VIEWS = 16  # ShapeStacks has as many cameras


@dataclass(frozen=True)
class Asked:
    """Numbers given on the command line; None: the source's own."""

    size_px: int | None = None
    scenes: int | None = None  # training scenarios, or images where each is a scene
    val_scenes: int | None = None
    test_scenes: int | None = None
    views: int | None = None
    seed: int = 0

    def check(self) -> None:
        """SriError for numbers that make no data set."""
        ranges = {
            "scenes": (self.scenes, 1, MAX_SCENARIOS),
            "val-scenes": (self.val_scenes, 1, MAX_SCENARIOS),
            "test-scenes": (self.test_scenes, 1, MAX_SCENARIOS),
            "views": (self.views, 1, MOST_VIEWS),
            "size": (self.size_px, SMALLEST_PX, LARGEST_PX),
            "seed": (self.seed, 0, 2**31 - 1),
        }
        for name, (value, least, most) in ranges.items():
            if value is not None and not least <= value <= most:
                raise SriError(f"--{name} {value} is out of range", f"choose {least} to {most:,}")

    def refuse_seed(self) -> None:
        """SriError for a seed where nothing is drawn or shuffled."""
        if self.seed:
            raise SriError(
                f"--seed {self.seed} changes nothing: published files are split as they are",
                "leave it out",
            )

    def numbers(self, train: int, val: int, test: int) -> dict[str, int]:
        """Scenarios in each split: what is asked for, else these; validation and test get a sixth
        of asked training scenarios, 2 at least."""
        if self.scenes is not None:
            train, val, test = self.scenes, sixth(self.scenes), sixth(self.scenes)
        val = val if self.val_scenes is None else self.val_scenes
        test = test if self.test_scenes is None else self.test_scenes
        return dict(zip(SPLITS, (train, val, test), strict=True))


def kept_words(most_entities: int | None) -> str:
    """Which images are kept, for the data file's record; None: no filter."""
    return "all" if most_entities is None else f"at most {most_entities} visible"


def sixth(scenes: int) -> int:
    """The share of validation and of test beside so many training scenarios."""
    return max(2, scenes // 6)


@dataclass(frozen=True)
class InOrder:
    """A split by position: the first `test`, the next `val`, then `train` (None: all the rest).

    By the published rule positions are those in the file, whatever a filter keeps; by numbers of
    one's own only what is kept counts.
    """

    test: int
    val: int
    train: int | None
    published: bool

    def assign(self, kept: Iterable[tuple[T, bool]]) -> Iterator[tuple[str, T]]:
        """(split, what) of everything that is kept, as far as the split goes."""
        position = 0
        for what, keep in kept:
            if self.train is not None and position >= self.test + self.val + self.train:
                return
            if keep:
                yield self.split_at(position), what
            position += keep or self.published

    def split_at(self, position: int) -> str:
        """The split of a position."""
        if position < self.test:
            return "test"
        return "val" if position < self.test + self.val else "train"

    def check(self, held: str, positions: int, counts: Mapping[str, int]) -> None:
        """SriError when a source (`held`: its name and numbers in words) is too short for the
        split, or leaves a part of it without anything (`counts`: what is kept)."""
        wanted = {"test": self.test, "val": self.val, "train": self.train or 1}
        if self.published:
            if positions >= sum(wanted.values()) and all(counts.values()):
                return
            rest = "the rest" if self.train is None else f"the next {self.train:,}"
            raise SriError(
                f"{held}; the published split takes the first {self.test:,} for test, the next"
                f" {self.val:,} for validation and {rest} for training",
                "split it in numbers of your own: --test-scenes T --val-scenes V (the rest trains)",
            )
        if any(counts[name] < number for name, number in wanted.items()):
            raise SriError(
                f"{held}: too few for {self.test:,} test + {self.val:,} val +"
                f" {self.train or 1:,} train",
                "ask for fewer: --test-scenes T --val-scenes V --scenes N",
            )

    def parameters(self) -> dict[str, object]:
        """For the data file's record."""
        return {
            "split": "as published" if self.published else "in order: test, val, train",
            "test": self.test,
            "val": self.val,
            "train": "the rest" if self.train is None else self.train,
        }


def split_in_order(asked: Asked, published: InOrder) -> InOrder:
    """The published split, or numbers of one's own as soon as one is given."""
    if asked.scenes is None and asked.val_scenes is None and asked.test_scenes is None:
        return published
    others = [number for number in (asked.val_scenes, asked.test_scenes) if number is not None]
    beside = sixth(asked.scenes) if asked.scenes is not None else others[0]
    val = beside if asked.val_scenes is None else asked.val_scenes
    test = beside if asked.test_scenes is None else asked.test_scenes
    return InOrder(test, val, asked.scenes, published=False)
