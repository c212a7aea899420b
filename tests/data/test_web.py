"""What hosts do: lead elsewhere, refuse, are busy, hang, are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sri_cli.data import transfer, web
from sri_cli.data.download import Remote, download
from sri_cli.errors import SriFailure
from tests.small_server import DATA, INSTEAD, FileServer, does, fetch, hangs, left, says

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.tar.gz"


def test_redirects(server: FileServer, path: Path) -> None:
    server.script = [says(302, Location="/a b"), says(308, Location="c"), says(301, Location="/d")]
    assert fetch(server, path).read_bytes() == DATA
    path.unlink()
    server.script = [does(most=1_000_000), says(307, Location=server.url)]
    fetch(server, path)
    assert server.ranges[-2:] == ["bytes=1000000-"] * 2


@pytest.mark.parametrize(
    "target, told",
    [
        ("/towers.tar.gz", "redirects more than 5 times"),
        ("file:///etc/passwd", "redirects to 'file:///etc/passwd', no web address"),
        ("ftp://127.0.0.1/x", "no web address"),
        ("http://[half", "no web address"),
        ("http://127.0.0.1:0/", "no web address"),
    ],
)
def test_redirects_that_lead_nowhere(
    server: FileServer, path: Path, target: str, told: str
) -> None:
    server.otherwise = says(302, Location=target)
    with pytest.raises(SriFailure) as caught:
        fetch(server, path)
    assert told in caught.value.message and caught.value.hint == INSTEAD
    assert left(path) == [] and len(server.ranges) == (6 if "5 times" in told else 1)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "towers.tar.gz", "http://a b/", "http://é.\x00/"]
)
def test_no_web_address(path: Path, url: str) -> None:
    with pytest.raises(SriFailure, match="is no web address"):
        download(Remote(url), path, instead=INSTEAD)
    assert left(path) == []


@pytest.mark.parametrize("status", [404, 410, 403, 401, 451, 204])
def test_a_host_that_has_it_no_more(
    server: FileServer, path: Path, pauses: list[float], status: int
) -> None:
    server.otherwise = says(status)
    with pytest.raises(SriFailure, match=str(status)) as caught:
        fetch(server, path)
    assert caught.value.hint == INSTEAD and pauses == [] and left(path) == []


def test_a_busy_host(server: FileServer, path: Path, pauses: list[float]) -> None:
    asked = ["7", "100000", "-3", "soon", "9" * 5000, "Mon, 01 Jan 2035 00:00:00 GMT"]
    server.script = [says(503 if i % 2 else 429, Retry_After=text) for i, text in enumerate(asked)]
    assert fetch(server, path).read_bytes() == DATA
    assert pauses == [7.0, 120.0, 4.0, 8.0, 16.0, 120.0]


def test_a_host_busy_for_ever(server: FileServer, path: Path, pauses: list[float]) -> None:
    server.script = [does(most=1_500_000)]
    server.otherwise = says(503)
    with pytest.raises(SriFailure, match=r"1.5 of 3.0 MB are kept in .*\.part") as caught:
        fetch(server, path)
    assert caught.value.exit_code == 1 and "503 Service Unavailable" in caught.value.message
    assert "same command goes on" in (caught.value.hint or "") and INSTEAD in caught.value.hint
    assert tuple(pauses) == transfer.PAUSES_SEC


def test_a_host_that_hangs(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SEC", 0.1)
    server.script = [hangs, does(most=1_000_000, keep_open=True)]
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == [None, None, "bytes=1000000-"]


def test_no_host(server: FileServer, path: Path, pauses: list[float]) -> None:
    for url in ("http://127.0.0.1:1/x", server.url.replace("http:", "https:")):  # refused, no TLS
        with pytest.raises(SriFailure, match=r"could not reach 127\.0\.0\.1: ") as caught:
            download(Remote(url), path, instead=INSTEAD)
        assert caught.value.hint == INSTEAD and left(path) == []
    assert pauses == [1.0, 1.0]
