"""What a user asks of a preparation, and how many images that makes of each split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sri_cli.data.source import Options, Rows, Scenario, Source, Survey, sixth
from sri_cli.data.writer import Header
from sri_cli.errors import SriError

T = TypeVar("T")


class Job(Source):
    """A source made of functions."""

    def __init__(
        self,
        header: Header,
        survey: Callable[[], Survey],
        items: Callable[[Survey, Rows], Iterable[tuple[str, Any]]],
        make: Callable[[Any], Scenario],
        views: int = 1,
        items_per_task: int | None = None,
        survey_again: bool = False,
        workers: int | None = None,
    ) -> None:
        self.header, self.views, self.items_per_task = header, views, items_per_task
        self.max_workers, self.counts_suffice = workers, not survey_again
        self._survey, self._items, self._make = survey, items, make

    def survey(self) -> Survey:
        return self._survey()

    def items(self, survey: Survey, rows: Rows) -> Iterable[tuple[str, Any]]:
        return self._items(survey, rows)

    def make(self, item: Any) -> Scenario:
        return self._make(item)


def kept_words(most_entities: int | None) -> str:
    """Which images are kept, for the data file's record; None: no filter."""
    return "all" if most_entities is None else f"at most {most_entities} visible"


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


def split_in_order(asked: Options, published: InOrder) -> InOrder:
    """The published split, or numbers of one's own as soon as one is given."""
    if asked.scenes is None and asked.val_scenes is None and asked.test_scenes is None:
        return published
    others = [number for number in (asked.val_scenes, asked.test_scenes) if number is not None]
    beside = sixth(asked.scenes) if asked.scenes is not None else others[0]
    val = beside if asked.val_scenes is None else asked.val_scenes
    test = beside if asked.test_scenes is None else asked.test_scenes
    return InOrder(test, val, asked.scenes, published=False)
