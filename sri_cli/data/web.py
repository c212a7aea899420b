"""One question to a web server: redirects followed, and what is final told from what may pass."""

from __future__ import annotations

import re
import string
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from urllib.parse import quote, urljoin, urlsplit

from sri_cli import __version__
from sri_cli.errors import SriFailure

TIMEOUT_SEC = 60.0  # without a single byte
MOST_REDIRECTS = 5
LONGEST_WAIT_SEC = 120.0  # that a server may ask for
REDIRECTS = {301, 302, 303, 307, 308}
BUSY = {408, 425, 429}  # and all from 500 on: another try may do
FINAL = {403: "does not hand it out", 404: "no longer has it", 410: "no longer has it"}
RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
NO_RANGE = re.compile(r"bytes \*/([0-9]{1,18})", re.IGNORECASE)


class Breakdown(Exception):
    """What another try may mend; `reached`: the host was there; `wait_sec`: before the next try."""

    def __init__(self, reason: str, *, reached: bool = True, wait_sec: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.reached, self.wait_sec = reason, reached, wait_sec


@dataclass(frozen=True)
class Span:
    """The bytes start..stop-1 that an answer brings, of `total`; None: not said."""

    start: int
    stop: int | None
    total: int | None


def ask(url: str, headers: Mapping[str, str], instead: str) -> HTTPResponse:
    """The answer to GET `url`, to be closed: 200, 206 or 416.

    Raises Breakdown where another try may help, SriFailure (hint: `instead`) where none will.
    """
    here = url
    for _ in range(MOST_REDIRECTS + 1):
        response = ask_once(web_address(here, url, instead), headers, instead)
        if response.status not in REDIRECTS:
            return judged(response, host_of(here), instead)
        response.close()
        try:
            target = urljoin(here, response.headers.get("Location", ""))
        except ValueError as error:
            raise SriFailure(f"{url} redirects to no web address", instead) from error
        # A header is read as latin-1 and may hold blanks: urllib asks for neither.
        here = quote(target, safe=string.punctuation, encoding="iso-8859-1")
    raise SriFailure(f"{url} redirects more than {MOST_REDIRECTS} times", instead)


def web_address(here: str, url: str, instead: str) -> str:
    """`here`, if it can be asked for: http or https, with a host. `url` is where it began."""
    try:
        parts = urlsplit(here)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        how = "is" if here == url else f"redirects to {here[:200]!r},"
        raise SriFailure(f"{url} {how} no web address", instead)
    return here


def ask_once(url: str, headers: Mapping[str, str], instead: str) -> HTTPResponse:
    """Whatever `url` answers; redirects and refusals are answers too."""
    always = {"User-Agent": f"sri/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers={**always, **headers})
    try:
        response: HTTPResponse = opener().open(request, timeout=TIMEOUT_SEC)
    except urllib.error.URLError as error:  # no name, no route, refused, no TLS
        raise Breakdown(words(error.reason), reached=False) from error
    except (InvalidURL, ValueError) as error:
        raise SriFailure(f"{url} is no web address: {error}", instead) from error
    except (OSError, HTTPException) as error:  # there, but no answer or none of HTTP
        raise Breakdown(words(error)) from error
    return response


def opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS through the proxies of the environment; neither files nor FTP."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.UnknownHandler,
    ):
        made.add_handler(handler())
    return made


def judged(response: HTTPResponse, host: str, instead: str) -> HTTPResponse:
    """The answer if it is of use; otherwise closed, and the reason raised."""
    status = response.status
    if status in (200, 206, 416):
        return response
    response.close()
    said = f"{status} {phrase(status)}".strip()
    if status in BUSY or status >= 500:
        wait = asked_wait(response.headers.get("Retry-After"))
        raise Breakdown(f"{host} answered {said}", wait_sec=wait)
    raise SriFailure(f"{host} {FINAL.get(status, 'refuses')} ({said}): {response.url}", instead)


def read_some(response: HTTPResponse, most: int) -> bytes:
    """What has come, at most `most` bytes; none at the end of the answer."""
    try:
        return response.read1(most)
    except (OSError, HTTPException, ValueError) as error:
        raise Breakdown(words(error)) from error


def asked_wait(text: str | None) -> float | None:
    """Seconds (up to LONGEST_WAIT_SEC) of a Retry-After, a number or a date; None when useless."""
    try:
        if text is None:
            return None
        wait = float(int(text)) if text.isdigit() else date_of(text) - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(wait, LONGEST_WAIT_SEC) if wait > 0 else None


def date_of(text: str) -> float:
    """An HTTP date in seconds since 1970; ValueError when it is none."""
    return parsedate_to_datetime(text).timestamp()


def span_of(response: HTTPResponse) -> Span | None:
    """Which bytes a 200 or 206 brings; None when a 206 does not say it, or nonsense."""
    if response.status == 200:
        return Span(0, response.length, response.length)
    match = RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None
    start, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    sane = start <= last and (total is None or last < total)
    return Span(start, last + 1, total) if sane else None


def total_of(response: HTTPResponse) -> int | None:
    """The size of the file that a 416 names."""
    match = NO_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def host_of(url: str) -> str:
    """The host's name."""
    return urlsplit(url).hostname or url


def phrase(status: int) -> str:
    """What a status means; a server's own words may be anything."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


def words(error: BaseException | str) -> str:
    """An error of the network in a few words."""
    said = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
    return " ".join(str(said or error or type(error).__name__).split()) or type(error).__name__
