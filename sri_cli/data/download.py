"""A file from the web, whole or not at all: resumed, verified, and patient where it may help.

`NAME.part` holds what came so far; `NAME.part.json` says of which version, so that a file that
changed on the server is begun anew and never a mixture. `NAME.sha256` remembers what a finished
file hashed to, so that 30 GB are not read again at each use.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.console import Progress
from sri_cli.data.part import PartFile
from sri_cli.data.transfer import Remote, Transfer, kept
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.signals import StopFlag, stop_on_signal

HASH_BLOCK_BYTES = 2**20


def download(remote: Remote, path: Path, *, instead: str, offline: bool = False) -> Path:
    """Fetch `remote` to `path`, or go on with it; a file that is there already is kept.

    `instead` says what to do where the host does not help. Raises SriError when the file there
    has another hash, when there is none and `offline`, or when another process is at it;
    SriFailure when it cannot be had or written; Interrupted (75) after a signal. What came is
    kept, and the same call goes on.
    """
    progress = Progress(0, 0, path.name, "MB")  # a bar only once something is fetched
    with stop_on_signal() as stop:
        stop.at_once = True  # what has come is always good, so nothing needs finishing
        try:
            if path.exists():
                return verified(remote, path, progress)
            if offline:
                raise SriError(
                    f"--offline: {path.name} is not here ({remote.url})",
                    f"put the file at {path}; or {instead}",
                )
            with PartFile(path) as part:
                if path.exists():  # another process has finished it meanwhile
                    return verified(remote, path, progress)
                with progress:
                    Transfer(remote, part, instead, progress, stop).run()
                    seal(remote, part, instead, progress)
        except KeyboardInterrupt:
            raise stopped(stop, path) from None
    return path


def seal(remote: Remote, part: PartFile, instead: str, progress: Progress) -> None:
    """Give the file its name if its hash is as known; otherwise nothing stays, and SriFailure."""
    part.sync()
    if remote.sha256 is not None:
        progress.note(f"{part.target.name}: checking its SHA-256")
        found = sha256_of(part.path)
        if found != remote.sha256:
            part.discard()
            raise SriFailure(
                f"{remote.url} came damaged or is another file: SHA-256 {found},"
                f" {remote.sha256} expected",
                f"the same command tries again from the beginning; or {instead}",
            )
    part.finish()
    if remote.sha256 is not None:
        remember(part.target, remote.sha256)


def verified(remote: Remote, path: Path, progress: Progress) -> Path:
    """`path`, if it is a file and has the known hash; SriError otherwise."""
    if not path.is_file():
        raise SriError(f"{path} is no file", "move it away, or choose another folder")
    if remote.sha256 is None or remembered(path) == remote.sha256:
        return path
    progress.note(f"{path.name}: checking its SHA-256")
    found = sha256_of(path)
    if found != remote.sha256:
        raise SriError(
            f"{path} is damaged or another file: SHA-256 {found}, {remote.sha256} expected",
            f"delete {path}, then the same command fetches it anew",
        )
    remember(path, found)
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, lower-case hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remembered(path: Path) -> str | None:
    """The hash that was found when the file was as large and as old as it is now."""
    try:
        digest, *stand = beside(path).read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return digest if stand == stand_of(path) else None


def remember(path: Path, digest: str) -> None:
    """Note what the file hashes to. A folder that takes no notes costs another hashing, only."""
    with contextlib.suppress(SriFailure):
        write_atomic(beside(path), " ".join([digest, *stand_of(path), "\n"]).encode())


def stand_of(path: Path) -> list[str]:
    """Size in bytes and time of the last change in ns."""
    stat = path.stat()
    return [str(stat.st_size), str(stat.st_mtime_ns)]


def beside(path: Path) -> Path:
    """Where the hash of `path` is noted."""
    return path.with_name(path.name + ".sha256")


def stopped(stop: StopFlag, path: Path) -> Interrupted:
    """What a signal leaves behind."""
    part = path.with_name(path.name + ".part")
    size = part.stat().st_size if part.exists() else 0
    what = f"; {kept(size, None)} are kept in {part}" if size else ""
    return Interrupted(
        f"stopped by {stop.name or 'Ctrl-C'} while fetching {path.name}{what}",
        "go on: the same command again",
    )
