"""Downloads in tests: no pauses, no proxy."""

from __future__ import annotations

import pytest

from sri_cli.data import download


@pytest.fixture(autouse=True)
def direct_and_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "BACKOFF_SEC", 0.0)
