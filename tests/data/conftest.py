"""Downloads in tests: no pauses."""

from __future__ import annotations

import pytest

from sri_cli.data import download


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SEC", 0.0)
