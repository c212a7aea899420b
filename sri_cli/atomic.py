"""Files that are complete or absent, and locks on files in progress."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sri_cli.errors import SriError, SriFailure

SPACE = "free some space or choose another folder"
PERMISSION = "change its permissions, or choose another folder"
# Errors whose cause is the disk or its permissions, not a mistake in this program.
DISK_HINTS = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: "choose a disk and limits (ulimit -f) that allow larger files",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: "the disk is read-only: choose a folder on another one",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def list_folder(folder: Path) -> list[Path]:
    """The sorted contents of `folder`; empty when it does not exist."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def ensure_folder(path: Path) -> Path:
    """Create the folder `path`; SriFailure when it cannot be created or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise cannot_write(path, OSError(number, os.strerror(number)))
    return path


def check_writable(folder: Path, hint: str | None = None) -> None:
    """SriFailure unless files can be created in `folder`, which need not exist yet.

    The hint is by default that of the error.

    For work that takes long before it writes: `ensure_folder` would leave an empty folder behind.
    """
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        message = f"{folder} is not writable: {error.strerror}"
        raise SriFailure(message, hint or disk_hint(error)) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, or leave `path` as it was.

    The file is flushed to disk before it is renamed, and the folder after, so that a crash leaves
    the old file or the new one. SriFailure when the disk refuses.
    """
    ensure_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder that no other process has, of other machines too."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends, it becomes `path`.

    Any error in the block removes it. `path` must be missing, or an empty folder.

    Raises:
        SriError: `path` exists and is no empty folder.
        SriFailure: when the disk refuses (OSError in the block included).
    """
    given, path = path, path.absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SriError(f"{path} is not an empty folder", "name a new folder")
    if path.is_mount():
        raise SriError(f"{path} is a mount point", "name a new folder in it")
    ensure_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir()
        yield temporary
        rename_folder(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(given, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def rename_folder(temporary: Path, path: Path) -> None:
    """Give a folder its name, which is free or that of an empty folder; else OSError."""
    if path == Path.cwd():  # a new folder of this name would not be the one the shell is in
        if any(path.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        for file in sorted(temporary.iterdir()):
            os.replace(file, path / file.name)
    else:
        os.replace(temporary, path)


def lock_file(
    path: Path, doing: str = "preparing", hint: str = "wait for it, or choose another: --out FILE"
) -> int:
    """Lock the unfinished file `path` (created when missing) for this process.

    Returns:
        The descriptor that holds the lock.

    Raises:
        SriError: when another process is `doing` (preparing, downloading) this file.
        SriFailure: the disk has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # a disk without locks
                if not os.fstat(descriptor).st_size:
                    path.unlink(missing_ok=True)
                os.close(descriptor)
                raise cannot_write(path, error) from error
            os.close(descriptor)
            raise SriError(f"another sri is {doing} {path.with_suffix('').name}", hint) from error
        # Another process may have finished and renamed the file between our two calls.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make the content of a file, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> SriFailure:
    """The SriFailure for an OSError while writing `path`."""
    return SriFailure(f"could not write {path}: {error.strerror or error}", disk_hint(error))


def disk_hint(error: OSError) -> str:
    """The fix for an OSError of the disk."""
    return DISK_HINTS.get(error.errno or 0, "choose another folder")
