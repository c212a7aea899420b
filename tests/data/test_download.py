"""A download ends with the right bytes or an error; bytes that arrived are not fetched again."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sri_cli.data import download as downloading
from sri_cli.data.download import Remote, download
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.damage import largest_file
from tests.small_cli import start
from tests.small_server import Answer, Behaviour, FileServer, answers, hangs, serves, serving

DATA, OTHER = (random.Random(seed).randbytes(3_000_000) for seed in (0, 1))
SHA = hashlib.sha256(DATA).hexdigest()
INSTEAD = "simulate it"
NOWHERE = "http://127.0.0.1:1/x"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.h5"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(DATA) as running:
        yield running


def fetch(server: FileServer, path: Path, sha256: str | None = SHA) -> bytes:
    return download(Remote(server.url, sha256), path, instead=INSTEAD).read_bytes()


def files_beside(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def begin(server: FileServer, path: Path) -> None:
    """Fetch the first million bytes only: then the host is busy for good."""
    server.script, server.otherwise = [serves(most=1_000_000)], answers(503)
    with pytest.raises(SriFailure, match=rf"503.*\n.*{INSTEAD}"):
        fetch(server, path)
    assert path.with_name("towers.h5.part").read_bytes() == server.data[:1_000_000]
    server.otherwise = Answer.serve
    del server.ranges[:], server.sent[:]


def test_a_file_is_fetched_once(server: FileServer, path: Path) -> None:
    with pytest.raises(SriError, match="--offline") as caught:
        download(Remote(server.url), path, instead=INSTEAD, offline=True)
    assert server.url in (caught.value.hint or "") and server.ranges == []
    assert fetch(server, path) == DATA and files_beside(path) == ["towers.h5"]
    download(Remote(NOWHERE, SHA), path, instead=INSTEAD, offline=True)
    assert server.ranges == [None]


def test_an_existing_file_with_another_hash_is_refused(path: Path) -> None:
    path.write_bytes(OTHER)
    with pytest.raises(SriError, match=rf"{SHA}.*\n.*{path}") as caught:
        download(Remote(NOWHERE, SHA), path, instead=INSTEAD)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == OTHER
    download(Remote(NOWHERE), path, instead=INSTEAD)  # without a known hash it is accepted


def test_broken_connections_are_resumed(server: FileServer, path: Path) -> None:
    cuts = 10  # more than failures in a row: each brought new bytes
    server.script = [serves(most=200_000)] * cuts
    assert fetch(server, path, None) == DATA
    expected = [None] + [f"bytes={200_000 * i}-" for i in range(1, cuts + 1)]
    assert server.ranges == expected and sum(server.sent) == len(DATA)


def test_busy_and_hanging_hosts_are_tried_again(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [answers(503), answers(429), answers(302, Location="/elsewhere"), answers(500)]
    assert fetch(server, path) == DATA
    path.unlink()
    monkeypatch.setattr(downloading, "TIMEOUT_SEC", 0.2)
    server.script = [hangs, serves(most=1_000_000, keep_open=True)]
    assert fetch(server, path) == DATA and server.ranges[-1] == "bytes=1000000-"


def test_a_complete_part_is_only_renamed(server: FileServer, path: Path) -> None:
    path.with_name("towers.h5.part").write_bytes(DATA)  # killed before the rename
    assert fetch(server, path) == DATA
    assert server.ranges == ["bytes=3000000-"] and server.sent == [0]


@pytest.mark.parametrize(
    "behaviour",
    [
        serves(ranged=False),  # 200, the whole
        serves(shift=100),  # another part than requested
        answers(206, Content_Length="0", Content_Range="pages 1-2/3"),
        answers(416, Content_Range="bytes */17"),
        answers(416),
    ],
)
def test_a_host_that_cannot_resume_starts_over(
    server: FileServer, path: Path, behaviour: Behaviour
) -> None:
    begin(server, path)
    server.script = [behaviour]
    assert fetch(server, path) == DATA
    assert server.ranges[0] == "bytes=1000000-" and server.ranges[1:] in ([], [None])


def test_wrong_bytes_leave_nothing(server: FileServer, path: Path) -> None:
    begin(server, path)
    server.data = OTHER  # the file changed on the host
    with pytest.raises(SriFailure, match=SHA):
        fetch(server, path)
    assert files_beside(path) == []
    server.data = DATA
    assert fetch(server, path) == DATA


def test_wrong_lengths(server: FileServer, path: Path) -> None:
    server.script = [serves(length=4_000_000)]  # like a broken connection; then there is no more
    assert fetch(server, path) == DATA
    path.unlink()
    server.script = [serves(length=2_000_000)]
    with pytest.raises(SriFailure, match=SHA):
        fetch(server, path)
    server.otherwise = serves(ranged=False, most=1_000_000)  # starting over ends, too
    with pytest.raises(SriFailure, match="127.0.0.1"):
        fetch(server, path)
    assert len(server.ranges) < 12


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_final(server: FileServer, path: Path, status: int) -> None:
    server.otherwise = answers(status)
    with pytest.raises(SriFailure, match=rf"{status}.*\n.*{INSTEAD}"):
        fetch(server, path)
    assert files_beside(path) == [] and len(server.ranges) == 1


@pytest.mark.parametrize("url", [NOWHERE, "http://no.such.host.invalid/x", "file:///etc/passwd"])
def test_no_host(path: Path, url: str) -> None:
    with pytest.raises(SriFailure, match=rf"\A.*\n.*{INSTEAD}"):  # a message of one line
        download(Remote(url), path, instead=INSTEAD)
    assert files_beside(path) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:1")
    with pytest.raises(SriFailure) as caught:
        download(Remote(f"{scheme}://no.such.host.invalid/x"), path, instead=INSTEAD)
    assert caught.value.message.endswith(
        f"the proxy: [Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    )


def test_full_disks_and_folders_that_cannot_be_written(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SriFailure, match="MB are free"):
        patch.setattr(downloading, "SPARE_BYTES", 10**18)
        fetch(server, path)
    assert files_beside(path) == []
    with largest_file(1_234_567), pytest.raises(SriFailure, match="could not write"):
        fetch(server, path)
    assert fetch(server, path) == DATA and server.ranges[-1] == "bytes=1234567-"
    with pytest.raises(SriFailure, match="could not write"):
        fetch(server, path / "towers.h5")


def wait_for(path: Path, num_bytes: int) -> int:
    """The size of the part once it has so many bytes."""
    part = path.with_name("towers.h5.part")
    until = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < num_bytes:
        assert time.monotonic() < until
        time.sleep(0.01)
    return part.stat().st_size


def test_two_downloads_of_one_file(server: FileServer, path: Path) -> None:
    server.script = [serves(most=1_000_000, keep_open=True)]
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_downloads_resume(server: FileServer, path: Path, number: int) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sri_cli.data.download import Remote, download\n"
        "from sri_cli.errors import SriError\n"
        "try: download(Remote(sys.argv[1]), Path(sys.argv[2]), instead='')\n"
        "except SriError as error: print(error); sys.exit(error.exit_code)\n"
    )
    server.script = [serves(most=1_000_000, keep_open=True)]
    victim = start(server.url, str(path), code=code)
    wait_for(path, 900_000)
    began = time.monotonic()
    victim.send_signal(number)
    output = victim.communicate()[0]
    assert time.monotonic() - began < 8  # the next byte comes after 10 s
    if number == signal.SIGTERM:
        assert victim.returncode == Interrupted.exit_code and path.name in output
    server.released.set()
    size = wait_for(path, 0)
    assert fetch(server, path) == DATA and server.ranges == [None, f"bytes={size}-"]
