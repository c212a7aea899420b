"""Download a file whole or not at all: retried, resumed, checked against a known SHA-256.

`NAME.part` holds the bytes so far. That they are all of one version of the file, only a hash can
verify: pass it, or check the contents (TFRecords have checksums of their own).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from sri_cli import __version__
from sri_cli.atomic import cannot_write, ensure_folder, lock_file, sync
from sri_cli.console import Progress
from sri_cli.data.writer import check_space
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.signals import stop_on_signal, this_command

BLOCK_BYTES = 2**18
TIMEOUT_SEC = 60.0  # without a single byte
MAX_FAILURES = 6  # in a row, without a new byte
BACKOFF_SEC = 1.0  # doubles with every failure
SPARE_BYTES = 64 * 2**20  # to leave free on the disk
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass
CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18})")


@dataclass(frozen=True)
class Remote:
    """A file on the web, with its SHA-256 where it is known."""

    url: str
    sha256: str | None = None

    def mismatch(self, path: Path) -> str:
        """How the hash of `path` differs from the known one; "" if it does not."""
        if self.sha256 is None:
            return ""
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        problem = f"is damaged or another file: SHA-256 {actual}, expected {self.sha256}"
        return problem if actual != self.sha256 else ""


def download(remote: Remote, path: Path, *, instead: str, offline: bool = False) -> Path:
    """Fetch `remote` to `path`, or resume fetching it; a file that exists is only checked.

    `instead` is what the user can do if the host does not deliver.

    Raises:
        SriError: The existing file has another SHA-256, there is no file and `offline`, or
            another process is downloading it.
        SriFailure: The file cannot be fetched or written.
        Interrupted: A signal came; the same call resumes.
    """
    if path.exists():
        if problem := remote.mismatch(path) if path.is_file() else "is not a file":
            hint = f"delete {path} and run the same command again to download it"
            raise SriError(f"{path} {problem}", hint)
        return path
    if offline:
        raise SriError(
            f"--offline: {path} does not exist", f"download {remote.url} to {path}; or {instead}"
        )
    ensure_folder(path.parent)
    part = path.with_name(path.name + ".part")
    with stop_on_signal() as stop, Progress(0, 0, path.name, "MB") as progress:
        stop.at_once = True  # the bytes so far are valid: there is nothing to finish
        try:
            lock = lock_file(part, "downloading", "wait for it to finish")
            try:
                if not path.exists():  # else another process has just finished it
                    fetch(remote.url, part, instead, progress)
                    complete(remote, part, path, instead)
            finally:
                if os.fstat(lock).st_size == 0:
                    part.unlink(missing_ok=True)
                os.close(lock)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Stopped while downloading {path.name}{saved(part)}.",
                f"Resume with: {this_command()}",
            ) from None
        except OSError as error:
            raise cannot_write(part, error) from error
    return path


def fetch(url: str, part: Path, instead: str, progress: Progress) -> None:
    """Fetch what is missing, in as many requests as it takes; SriFailure when it cannot be had."""
    host = urlsplit(url).hostname or url
    progress.note(f"downloading {part.stem} from {host}{saved(part)}")
    farthest, failures = part.stat().st_size, 0
    with new_session() as session:
        while failures <= MAX_FAILURES:
            reason = "the connection broke"
            try:
                if fetch_rest(session, url, part, progress):
                    return
            except HTTPError:  # in the body: what has arrived stays
                pass
            except requests.RequestException as error:  # after the retries of urllib3
                reason, failures = reason_of(error), MAX_FAILURES
            # Only new bytes count, so a host that always starts over comes to an end, too.
            size = part.stat().st_size
            failures = 0 if size > farthest else failures + 1
            farthest = max(farthest, size)
            if failures <= MAX_FAILURES:
                time.sleep(BACKOFF_SEC * 2**failures)
    raise SriFailure(
        f"could not download {part.stem} from {host}: {reason}{saved(part)}",
        f"run the same command again; or {instead}",
    )


def new_session() -> requests.Session:
    """Retries refused connections and busy hosts; answers that break off are resumed by `fetch`."""
    session = requests.Session()
    retry = Retry(
        MAX_FAILURES,
        connect=2,
        status_forcelist=BUSY,
        backoff_factor=BACKOFF_SEC,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.headers.update({"User-Agent": f"sri/{__version__}", "Accept-Encoding": "identity"})
    return session


def fetch_rest(session: requests.Session, url: str, part: Path, progress: Progress) -> bool:
    """Request what is missing and append it; True when the file is complete then."""
    size = part.stat().st_size
    headers = {"Range": f"bytes={size}-"} if size else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SEC) as response:
        if response.status_code in (206, 416):
            span = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            total = int(span[2]) if span else None
            if response.status_code == 416 and total == size:
                return True
            if span is None or span[1] != str(size):
                os.truncate(part, 0)  # not the part that was requested
                return False
        else:
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            os.truncate(part, 0)
        if total is not None:
            check_space(part, total - part.stat().st_size + SPARE_BYTES)
            progress.set_total(-(-total // 10**6))
        progress.start_at(part.stat().st_size // 10**6)
        append(response, part, progress)
    return total in (None, part.stat().st_size)


def append(response: requests.Response, part: Path, progress: Progress) -> None:
    """Write the body as it comes; urllib3's HTTPError when the connection breaks."""
    with open(part, "ab", buffering=0) as file:
        # Unlike iter_content, which drops a block that the connection breaks off.
        while block := response.raw.read1(BLOCK_BYTES):
            while block:
                block = block[file.write(block) :]
            if file.tell() // 10**6 > progress.done:
                progress.update(file.tell() // 10**6)


def complete(remote: Remote, part: Path, path: Path, instead: str) -> None:
    """Give a complete file its name; SriFailure, and nothing stays, if its hash is wrong."""
    if problem := remote.mismatch(part):
        os.truncate(part, 0)
        raise SriFailure(
            f"{remote.url} {problem}", f"run the same command again to start over; or {instead}"
        )
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def saved(part: Path) -> str:
    """`; 12.0 MB are in NAME.part`, or nothing."""
    size = part.stat().st_size if part.exists() else 0
    return f"; {size / 1e6:,.1f} MB are in {part}" if size else ""


def reason_of(error: requests.RequestException) -> str:
    """The reason inside the chain of exceptions that requests wraps around it."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}".strip()
    cause = getattr(error.args[0], "reason", error) if error.args else error
    of_proxy = getattr(cause, "original_error", None)  # inside urllib3's ProxyError
    reason = str(of_proxy or cause).rpartition(": ")[2] or type(error).__name__
    return f"the proxy: {reason}" if of_proxy else reason
