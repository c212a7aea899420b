"""What the tests of downloads share: a server, no pauses, no proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sri_cli.data import transfer
from tests.small_server import DATA, FileServer, serving


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serves DATA."""
    with serving(DATA) as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a download asked for, none of them made; and no proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    asked: list[float] = []
    monkeypatch.setattr(transfer, "pause", asked.append)
    return asked
