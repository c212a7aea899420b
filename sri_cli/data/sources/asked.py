"""What a user asks of a preparation, and how many images that makes of each split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sri_cli.data.source import Rows, Scenario, Source, Survey
from sri_cli.data.writer import Header


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
