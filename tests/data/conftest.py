"""What the tests of downloads share: a server, no pauses, no proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sri_cli.data import download
from tests.small_server import DATA, FileServer, serving


@pytest.fixture(autouse=True)
def direct_and_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no waiting before another try."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "BACKOFF_SEC", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serves DATA."""
    with serving(DATA) as running:
        yield running
