"""A download ends with the right bytes or says why; what arrived once is not fetched again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sri_cli import __version__
from sri_cli.data import download as downloading
from sri_cli.data.download import Remote, download, sha256_of
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.small_server import (
    DATA,
    INSTEAD,
    SHA,
    Answer,
    Deed,
    FileServer,
    does,
    fetch,
    hangs,
    left,
    says,
)

ROOT = Path(__file__).parent.parent.parent
OTHER = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.h5"


def begin(server: FileServer, path: Path, num_bytes: int = 1_000_000) -> None:
    """Fetch the first bytes only: then the host is busy for good."""
    server.script = [does(most=num_bytes)]
    server.otherwise = says(503)
    with pytest.raises(SriFailure, match="1.0 MB") as caught:
        fetch(server, path)
    assert "503" in caught.value.message and INSTEAD in (caught.value.hint or "")
    assert path.with_name(path.name + ".part").read_bytes() == server.data[:num_bytes]
    server.otherwise = Answer.serve
    del server.ranges[:], server.sent[:]


def test_a_file_comes_whole_and_once(
    server: FileServer, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(server, path).read_bytes() == DATA and sha256_of(path) == SHA
    assert left(path) == ["towers.h5"] and "MB 3/3" in capsys.readouterr().err
    assert server.agents == {(f"sri/{__version__}", "identity")}
    download(Remote("http://127.0.0.1:1/", SHA), path, instead=INSTEAD, offline=True)
    assert len(server.ranges) == 1


def test_an_existing_file_with_another_hash_is_refused(path: Path) -> None:
    path.write_bytes(OTHER)
    with pytest.raises(SriError, match=SHA) as caught:
        download(Remote("http://127.0.0.1:1/", SHA), path, instead=INSTEAD)
    assert caught.value.exit_code == 2 and str(path) in (caught.value.hint or "")
    assert path.read_bytes() == OTHER
    download(Remote("http://127.0.0.1:1/"), path, instead=INSTEAD)  # without a known hash it counts
    with pytest.raises(SriError):
        download(Remote("http://127.0.0.1:1/", SHA), path.parent, instead=INSTEAD)


def test_offline(server: FileServer, path: Path) -> None:
    with pytest.raises(SriError, match="--offline") as caught:
        download(Remote(server.url), path, instead=INSTEAD, offline=True)
    hint = caught.value.hint or ""
    assert str(path) in hint and server.url in hint and INSTEAD in hint
    assert server.ranges == [] and left(path) == []


def test_cut_again_and_again(server: FileServer, path: Path) -> None:
    cuts = 10  # more than failures in a row: each brought something
    server.script = [does(most=200_000)] * cuts
    assert fetch(server, path, None).read_bytes() == DATA
    expected = [None] + [f"bytes={200_000 * i}-" for i in range(1, cuts + 1)]
    assert server.ranges == expected and sum(server.sent) == len(DATA)


def test_a_busy_host_is_tried_again(server: FileServer, path: Path) -> None:
    server.script = [says(503), says(429), says(302, Location="/elsewhere"), says(500)]
    assert fetch(server, path).read_bytes() == DATA


def test_a_host_that_hangs(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_SEC", 0.2)
    server.script = [hangs, does(most=1_000_000, keep_open=True)]
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == [None, None, "bytes=1000000-"]


def test_a_complete_part_needs_only_its_name(server: FileServer, path: Path) -> None:
    path.with_name(path.name + ".part").write_bytes(DATA)  # killed before the last rename
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == ["bytes=3000000-"] and server.sent == [0]


@pytest.mark.parametrize(
    "deed",
    [
        does(ranged=False),  # 200, the whole
        does(shift=100),  # another part than requested
        says(206, Content_Length="0"),  # which part?
        says(206, Content_Length="0", Content_Range="pages 1-2/3"),
        says(416, Content_Range="bytes */17"),
        says(416),
    ],
)
def test_a_host_that_cannot_resume_starts_over(server: FileServer, path: Path, deed: Deed) -> None:
    begin(server, path)
    server.script = [deed]
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges[0] == "bytes=1000000-" and server.ranges[1:] in ([], [None])


def test_wrong_bytes_leave_nothing(server: FileServer, path: Path) -> None:
    begin(server, path)
    server.data = OTHER  # the file changed on the host: the hash tells
    with pytest.raises(SriFailure, match=SHA) as caught:
        fetch(server, path)
    assert left(path) == [] and caught.value.exit_code == 1
    server.data = DATA
    assert fetch(server, path).read_bytes() == DATA


def test_wrong_or_missing_lengths(server: FileServer, path: Path) -> None:
    server.script = [does(length=4_000_000)]  # as if cut; then there is no more
    assert fetch(server, path).read_bytes() == DATA
    path.unlink()
    server.script = [does(length=2_000_000)]
    with pytest.raises(SriFailure, match=SHA):
        fetch(server, path)
    server.script = [does(announced=False)]
    assert fetch(server, path, None).read_bytes() == DATA
    path.unlink()
    server.data = b""
    assert fetch(server, path, None).read_bytes() == b"" and left(path) == ["towers.h5"]


def test_always_starting_over_comes_to_an_end(server: FileServer, path: Path) -> None:
    server.otherwise = does(ranged=False, most=1_000_000)
    with pytest.raises(SriFailure, match="127.0.0.1"):
        fetch(server, path)
    assert len(server.ranges) < 10


@pytest.mark.parametrize("status", [404, 410, 403])
def test_a_refusal_is_final(server: FileServer, path: Path, status: int) -> None:
    server.otherwise = says(status)
    with pytest.raises(SriFailure, match=str(status)) as caught:
        fetch(server, path)
    assert INSTEAD in (caught.value.hint or "") and left(path) == [] and len(server.ranges) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://no.such.host.invalid/x", "file:///etc/passwd", "x"]
)
def test_no_host(server: FileServer, path: Path, url: str) -> None:
    with pytest.raises(SriFailure) as caught:
        download(Remote(url), path, instead=INSTEAD)
    assert INSTEAD in (caught.value.hint or "") and "\n" not in caught.value.message
    assert left(path) == []


def test_no_room(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "SPARE_BYTES", 10**18)
    with pytest.raises(SriFailure, match="MB are free"):
        fetch(server, path)
    assert left(path) == []


def test_a_full_disk_keeps_what_it_took(
    server: FileServer,
    path: Path,
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    with largest_file(1_234_567), pytest.raises(SriFailure, match="could not write"):
        fetch(server, path)
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == [None, "bytes=1234567-"]


def test_a_folder_that_cannot_be_written(server: FileServer, path: Path) -> None:
    path.write_text("no folder")
    with pytest.raises(SriFailure, match="could not write"):
        fetch(server, path / "towers.h5")
    path.with_name("second.part").mkdir()
    with pytest.raises(SriFailure, match="could not write"):
        fetch(server, path.with_name("second"))


def test_two_at_once(server: FileServer, path: Path) -> None:
    server.script = [does(most=1_000_000, keep_open=True)]
    first = threading.Thread(target=fetch, args=(server, path))
    first.start()
    try:
        wait_for(path, 1_000_000)
        with pytest.raises(SriError, match="towers.h5") as caught:
            fetch(server, path)
        assert caught.value.exit_code == 2
    finally:
        server.released.set()
        first.join()
    assert path.read_bytes() == DATA and sum(server.sent) == len(DATA)


def wait_for(path: Path, num_bytes: int) -> None:
    """Until so much of `path` has come, but for a block in the buffer."""
    part = path.with_name(path.name + ".part")
    until = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < num_bytes:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_resumed(server: FileServer, path: Path, number: int) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sri_cli.data.download import Remote, download\n"
        "from sri_cli.errors import SriError\n"
        "try: download(Remote(sys.argv[1]), Path(sys.argv[2]), instead='')\n"
        "except SriError as error: print(error, '|', error.hint); sys.exit(error.exit_code)\n"
    )
    server.script = [does(most=1_000_000, keep_open=True)]
    victim = subprocess.Popen(
        [sys.executable, "-c", code, server.url, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(path, 900_000)
    began = time.monotonic()
    victim.send_signal(number)
    output = victim.communicate()[0]
    assert time.monotonic() - began < 2  # while waiting for the next byte
    if number == signal.SIGTERM:
        assert victim.returncode == Interrupted.exit_code
        assert "SIGTERM" in output and "1.0 MB" in output
    server.released.set()
    size = path.with_name(path.name + ".part").stat().st_size
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == [None, f"bytes={size}-"]
