"""A download ends with the right bytes or says why; what came once is not fetched again."""

from __future__ import annotations

import hashlib
import json
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
from sri_cli.data import part as parts
from sri_cli.data.download import Remote, download, sha256_of
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.small_server import DATA, INSTEAD, SHA, Answer, Deed, FileServer, does, fetch, left, says

ROOT = Path(__file__).parent.parent.parent
OTHER = random.Random(1).randbytes(3_000_000)
MODIFIED = "Mon, 01 Jan 2024 00:00:00 GMT"
pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.tar.gz"


def begin(server: FileServer, path: Path, num_bytes: int = 1_000_000) -> None:
    """Fetch the first bytes only: the host breaks down for good."""
    server.script = [does(most=num_bytes)]
    server.otherwise = says(503)
    with pytest.raises(SriFailure):
        fetch(server, path)
    assert path.with_name(path.name + ".part").read_bytes() == server.data[:num_bytes]
    server.otherwise = Answer.serve
    del server.ranges[:], server.sent[:]


def test_a_file_comes_whole_and_is_kept(server: FileServer, path: Path) -> None:
    assert fetch(server, path.parent / "deeper" / path.name).read_bytes() == DATA
    assert fetch(server, path, num_bytes=len(DATA)) == path and sha256_of(path) == SHA
    assert left(path) == ["deeper", "towers.tar.gz", "towers.tar.gz.sha256"]
    assert server.agents == {(f"sri/{__version__}", "identity")}
    fetch(server, path)
    download(Remote("http://127.0.0.1:1/", SHA), path, instead=INSTEAD, offline=True)
    assert len(server.ranges) == 2


def test_progress_tells_megabytes(
    server: FileServer, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(server, path)
    told = capsys.readouterr().err
    assert "towers.tar.gz: fetching it from 127.0.0.1\n" in told
    assert "towers.tar.gz: MB 3/3" in told


def test_a_file_that_is_there_is_hashed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(
        "sri_cli.data.download.sha256_of", lambda file: hashed.append(file) or sha256_of(file)
    )
    nowhere = Remote("http://127.0.0.1:1/", SHA)
    path.write_bytes(DATA)
    for _ in range(3):
        assert download(nowhere, path, instead=INSTEAD) == path
    assert hashed == [path]
    path.write_bytes(OTHER)  # as long as before
    with pytest.raises(SriError, match=SHA) as caught:
        download(nowhere, path, instead=INSTEAD)
    assert hashlib.sha256(OTHER).hexdigest() in caught.value.message
    assert caught.value.exit_code == 2 and f"delete {path}" in (caught.value.hint or "")
    assert path.read_bytes() == OTHER
    download(Remote(nowhere.url), path, instead=INSTEAD)  # no hash known: it counts
    folder = path.with_name("folder")
    folder.mkdir()
    with pytest.raises(SriError, match="is no file"):
        download(nowhere, folder, instead=INSTEAD)


def test_offline_says_where_to_put_it(server: FileServer, path: Path) -> None:
    with pytest.raises(SriError, match="--offline: towers.tar.gz is not here") as caught:
        download(Remote(server.url), path, instead=INSTEAD, offline=True)
    hint = caught.value.hint or ""
    assert str(path) in hint and INSTEAD in hint and caught.value.exit_code == 2
    assert server.ranges == [] and left(path) == []


def test_cut_again_and_again(server: FileServer, path: Path, pauses: list[float]) -> None:
    cuts = 10  # more than tries in a row: each brought something
    server.script = [does(most=200_000)] * cuts
    assert fetch(server, path).read_bytes() == DATA
    asked = [None] + [f"bytes={200_000 * i}-" for i in range(1, cuts + 1)]
    assert server.ranges == asked and sum(server.sent) == len(DATA)
    assert pauses == [1.0] * cuts


@pytest.mark.parametrize("etag, modified", [('"a"', None), (None, MODIFIED), ('W/"a"', MODIFIED)])
def test_goes_on_with_what_is_here(
    server: FileServer, path: Path, etag: str | None, modified: str | None
) -> None:
    server.etag, server.modified = etag, modified
    begin(server, path)
    assert fetch(server, path, None).read_bytes() == DATA
    assert server.ranges == ["bytes=1000000-"] and server.sent == [2_000_000]
    assert left(path) == ["towers.tar.gz"]


def test_without_a_version_only_a_hash_lets_it_go_on(server: FileServer, path: Path) -> None:
    server.etag = None
    begin(server, path)
    fetch(server, path)
    assert server.ranges == ["bytes=1000000-"]
    path.unlink()
    begin(server, path)
    assert fetch(server, path, None).read_bytes() == DATA
    assert server.ranges == [None]


def heedless(answer: Answer) -> None:
    """Send the part asked for, If-Range or not."""
    del answer.headers["If-Range"]
    answer.serve()


@pytest.mark.parametrize("deed", [Answer.serve, heedless])
@pytest.mark.parametrize("size", [3_000_000, 2_500_000, 900_000])
def test_a_file_that_changed_starts_over(
    server: FileServer, path: Path, deed: Deed, size: int
) -> None:
    begin(server, path)
    server.data, server.etag, server.otherwise = OTHER[:size], '"two"', deed
    assert fetch(server, path, None).read_bytes() == OTHER[:size]


def test_notes_that_cannot_be_relied_on(server: FileServer, path: Path) -> None:
    notes = path.with_name(path.name + ".part.json")
    good = {"url": server.url, "etag": '"one"', "modified": None, "total": 3_000_000}
    wrong: list[object] = [{**good, "url": "http://elsewhere/"}, {**good, "etag": "a\r\nX: b"}]
    wrong += [[], {}, None, "text", {**good, "total": "many"}]
    for text in [*map(json.dumps, wrong), "{", "[" * 100_000]:
        path.with_name(path.name + ".part").write_bytes(OTHER[:1000])
        notes.write_text(text)
        server.etag = '"two"'
        assert fetch(server, path).read_bytes() == DATA
        path.unlink()


def test_all_was_there_already(server: FileServer, path: Path) -> None:
    begin(server, path)
    path.with_name(path.name + ".part").write_bytes(DATA)  # killed before the last rename
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == ["bytes=3000000-"] and server.sent == [0]


@pytest.mark.parametrize(
    "deed",
    [
        does(ranged=False),  # 200, the whole
        does(shift=100),  # another part than asked for
        says(206, Content_Length="0"),  # which part?
        says(206, Content_Length="0", Content_Range="bytes 9-2/3"),
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
    server.data = OTHER
    with pytest.raises(SriFailure, match=SHA) as caught:
        fetch(server, path)
    assert hashlib.sha256(OTHER).hexdigest() in caught.value.message
    assert left(path) == [] and caught.value.exit_code == 1
    server.data = DATA
    assert fetch(server, path).read_bytes() == DATA


def test_lies_about_the_length(server: FileServer, path: Path) -> None:
    server.script = [does(length=4_000_000)]  # too long: as if cut; then there is no more
    assert fetch(server, path).read_bytes() == DATA
    path.unlink()
    server.script = [does(length=2_000_000)]
    with pytest.raises(SriFailure, match="SHA-256"):
        fetch(server, path)
    with pytest.raises(SriFailure, match="3,000,000 bytes, 2,000,000 expected") as caught:
        fetch(server, path, num_bytes=2_000_000)
    assert caught.value.hint == INSTEAD
    server.script = [does(announced=False)]
    with pytest.raises(SriFailure, match="brought 3,000,000 bytes, 2,000,000 expected"):
        fetch(server, path, num_bytes=2_000_000)
    assert "towers.tar.gz" not in left(path)


def test_no_length_said(server: FileServer, path: Path) -> None:
    server.script = [does(announced=False)]
    assert fetch(server, path, None).read_bytes() == DATA
    path.unlink()
    server.script = [does(announced=False, most=1_000_000)]  # cut, and only we know it
    assert fetch(server, path, num_bytes=len(DATA)).read_bytes() == DATA
    assert server.ranges[-1] == "bytes=1000000-"


def test_an_empty_file(server: FileServer, path: Path) -> None:
    server.data = b""
    assert fetch(server, path, None).read_bytes() == b"" and left(path) == ["towers.tar.gz"]


def test_always_starting_over_comes_to_an_end(server: FileServer, path: Path) -> None:
    server.otherwise = does(ranged=False, most=1_000_000)
    with pytest.raises(SriFailure, match="gave up towers.tar.gz after 7 tries"):
        fetch(server, path)


def test_no_room(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SPARE_BYTES", 10**18)
    with pytest.raises(SriFailure, match=r"1,000,000,000.00 GB are needed, [\d,.]+ GB are free"):
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


def test_a_folder_that_cannot_be_made(server: FileServer, path: Path) -> None:
    path.write_text("no folder")
    with pytest.raises(SriFailure, match="could not write"):
        fetch(server, path / "towers.tar.gz")
    path.with_name("second.part").mkdir()
    with pytest.raises(SriFailure, match="could not write"):
        fetch(server, path.with_name("second"))


def test_two_at_once(server: FileServer, path: Path) -> None:
    server.script = [does(most=1_000_000, keep_open=True)]
    first = threading.Thread(target=fetch, args=(server, path))
    first.start()
    try:
        wait_for(path, 1_000_000)
        with pytest.raises(SriError, match="another sri is downloading towers.tar.gz"):
            fetch(server, path)
    finally:
        server.released.set()
        first.join()
    assert path.read_bytes() == DATA and sum(server.sent) == len(DATA)


def wait_for(path: Path, num_bytes: int) -> None:
    """Until so much of `path` has come."""
    part = path.with_name(path.name + ".part")
    until = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < num_bytes:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_gone_on_with(server: FileServer, path: Path, number: int) -> None:
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
    wait_for(path, 1_000_000)
    began = time.monotonic()
    victim.send_signal(number)
    told = victim.communicate()[0]
    assert time.monotonic() - began < 2  # in the midst of waiting for the next byte
    if number == signal.SIGTERM:
        assert victim.returncode == Interrupted.exit_code
        assert "stopped by SIGTERM" in told and "1.0 MB are kept" in told
        assert told.endswith("| go on: the same command again\n")
    server.released.set()
    assert fetch(server, path).read_bytes() == DATA
    assert server.ranges == [None, "bytes=1000000-"] and server.sent == [1_000_000, 2_000_000]
