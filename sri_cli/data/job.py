"""What a source is to `prepare`: what it will hold, in which order, and how an item is made.

A source never writes a file itself. Its items are small and picklable (an index, a path, a raw
picture); worker processes turn each into the views of one scene.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sri_cli.data.dataset import SPLITS
from sri_cli.data.scenario import Scenario
from sri_cli.data.writer import Header

Rows = Mapping[str, int]  # images by split
# Each split counts its scenarios from here: none is shared, whatever the sizes of the splits.
FIRST_SCENARIO = {"train": 0, "val": 1_000_000, "test": 2_000_000}
MAX_SCENARIOS = 1_000_000
TASK_ROWS = 16  # a task of this many rows costs far more than handing it over


@dataclass(frozen=True)
class Survey:
    """What a source turned out to hold: `counts` of images by split, files that are unreadable, and
    how images were found to be of one scene, where that is not known before."""

    counts: Rows
    skipped: tuple[str, ...] = ()
    scene_rule: str = ""


@dataclass(frozen=True)
class Job:
    """What to make.

    `survey()` counts what there is; of a file it may take a while, and raises SriError for what
    is wrong with it. `items(survey, rows)` yields (split, item) for what is missing after `rows`,
    always in the same order, splits mixed as the source has them. `make(item)` gives the scenario
    of `views` rows; it must be picklable, because workers are fresh processes.
    """

    header: Header  # without what the survey tells
    survey: Callable[[], Survey]
    items: Callable[[Survey, Rows], Iterable[tuple[str, Any]]]
    make: Callable[[Any], Scenario]
    views: int = 1
    items_per_task: int | None = None  # None: as many as give TASK_ROWS rows
    survey_again: bool = False  # `items` needs more of the survey than the counts
    workers: int | None = None  # as many as are worth it; None: one a core

    @property
    def task_size(self) -> int:
        """Items that a worker is given at once."""
        return self.items_per_task or max(1, TASK_ROWS // self.views)


def simulation_job(
    header: Header, scenarios: Mapping[str, int], views: int, make: Callable[[int], Scenario]
) -> Job:
    """A job whose scenarios, counted by split, follow from their index alone."""
    counts = {split: scenarios[split] * views for split in SPLITS}
    items = functools.partial(missing_indices, views)
    return Job(header, lambda: Survey(counts), items, make, views)


def missing_indices(views: int, survey: Survey, rows: Rows) -> Iterator[tuple[str, int]]:
    """The scenarios' indices, split by split."""
    for split in SPLITS:
        for index in range(rows[split] // views, survey.counts[split] // views):
            yield split, FIRST_SCENARIO[split] + index
