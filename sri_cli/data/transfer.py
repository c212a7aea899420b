"""The bytes of one file from the web: tried again, gone on with, begun anew."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse

from sri_cli.console import Progress
from sri_cli.data.part import PartFile, origin_of
from sri_cli.data.web import Breakdown, Span, ask, host_of, read_some, span_of, total_of
from sri_cli.errors import SriFailure
from sri_cli.signals import StopFlag

PAUSES_SEC = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before each further try without a new byte
TRIES_TO_REACH = 2  # a host that has not answered once
BLOCK_BYTES = 2**18


@dataclass(frozen=True)
class Remote:
    """A file on the web."""

    url: str
    sha256: str | None = None  # known hash, lower-case hex
    num_bytes: int | None = None  # exact size, when known beforehand


class Transfer:
    """Brings the bytes of `remote` into `part`, in as many tries as it takes."""

    def __init__(
        self, remote: Remote, part: PartFile, instead: str, progress: Progress, stop: StopFlag
    ) -> None:
        self.remote, self.part, self.instead = remote, part, instead
        self.progress, self.stop = progress, stop
        self.total = remote.num_bytes
        self.answered = False  # the host, once

    def run(self) -> None:
        """Until all is there; SriFailure when it will not come."""
        self.progress.note(
            f"{self.part.target.name}: fetching it from {host_of(self.remote.url)}"
            + (f", {kept(self.part.size, self.total)} are here" if self.part.size else "")
        )
        farthest, failures = self.part.size, 0
        while True:
            try:
                self._attempt()
                return
            except Breakdown as lost:
                self.answered |= lost.reached
                # Only bytes never had before count: a server that always starts over and always
                # breaks down would keep us for ever.
                if self.part.size > farthest:
                    farthest, failures = self.part.size, 0
                failures += 1
                self._wait(lost, failures)

    def _attempt(self) -> None:
        with closing(ask(self.remote.url, self._range(), self.instead)) as response:
            self.answered = True
            span = self._place(response)
            if span is None:
                return
            self.progress.expect(megabytes(self.total or 0))
            self.progress.start_at(megabytes(self.part.size))
            self._receive(response, span)

    def _range(self) -> dict[str, str]:
        """The headers that ask for what is missing, if what is here can be gone on with."""
        part = self.part
        same = part.origin is not None and part.origin.url == self.remote.url
        validator = part.origin.validator if part.origin else None
        # With nothing to tell one version from the next, only a known hash tells a mixture.
        if part.size and same and (validator or self.remote.sha256):
            asked = {"Range": f"bytes={part.size}-"}
            return asked | ({"If-Range": validator} if validator else {})
        if part.size:
            part.discard()
        return {}

    def _place(self, response: HTTPResponse) -> Span | None:
        """Which bytes come, all checks of the announcement made; None when none is missing."""
        part, known = self.part, self.part.origin
        if response.status == 416:
            total = total_of(response) or (known.total if known else None) or self.remote.num_bytes
            if part.size and part.size == total:
                return None
            raise self._start_over("the host has no such part")
        span = span_of(response)
        if span is None:
            raise self._start_over("the host does not say which part it sends")
        origin = origin_of(self.remote.url, response, span.total)
        going_on = response.status == 206 and part.size > 0
        if response.status == 206 and span.start != part.size:
            raise self._start_over("the host sends another part than was asked for")
        if going_on and known is not None and known.contradicts(origin):
            raise self._start_over("the file has changed on the host")
        before = known.total if going_on and known else None
        self._expect(before if span.total is None else span.total)
        if not going_on:
            if part.size:
                self.progress.note(
                    f"{part.target.name}: has changed, or the host cannot resume; starting over"
                )
            part.begin(origin)
        return span

    def _expect(self, total: int | None) -> None:
        """What the whole is to be, before anything flows: as known, and the disk has room."""
        known = self.remote.num_bytes
        if total is not None and known is not None and total != known:
            raise SriFailure(
                f"{host_of(self.remote.url)} has another {self.part.target.name}: {total:,} bytes,"
                f" {known:,} expected",
                self.instead,
            )
        self.total = known if total is None else total
        if self.total is not None:
            self.part.check_room(self.total)

    def _receive(self, response: HTTPResponse, span: Span) -> None:
        """Write what comes; Breakdown when it is not all."""
        part, stop = self.part, span.stop
        while stop is None or part.size < stop:
            most = BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - part.size)
            block = read_some(response, most)
            if not block:
                break
            part.write(block)
            self._show()
            if self.stop.name:
                raise KeyboardInterrupt
        if stop is not None and part.size < stop:
            raise Breakdown("the connection ended early")
        if self.total is not None and part.size < self.total:
            raise Breakdown("only a part came", wait_sec=None if stop is None else 0.0)
        if self.total is not None and part.size > self.total:
            came = part.size
            part.discard()
            raise SriFailure(
                f"{self.remote.url} brought {came:,} bytes, {self.total:,} expected", self.instead
            )

    def _show(self) -> None:
        done = megabytes(self.part.size)
        if done != self.progress.done:
            self.progress.reach(done)

    def _start_over(self, reason: str) -> Breakdown:
        self.part.discard()
        return Breakdown(reason, wait_sec=0.0)

    def _wait(self, lost: Breakdown, failures: int) -> None:
        """Pause before the next try, or give up."""
        pauses = PAUSES_SEC if self.answered else PAUSES_SEC[: TRIES_TO_REACH - 1]
        if failures > len(pauses):
            raise self._gave_up(lost, failures)
        own = pauses[failures - 1]
        # A wait of 0 is our own: start over at once. One the host asks for is never shortened.
        seconds = own if lost.wait_sec is None else lost.wait_sec and max(own, lost.wait_sec)
        when = f"trying again in {seconds:g} s" if seconds else "asking again"
        self.progress.note(f"{self.part.target.name}: {lost.reason}; {when}")
        pause(seconds)

    def _gave_up(self, lost: Breakdown, failures: int) -> SriFailure:
        name, host = self.part.target.name, host_of(self.remote.url)
        what = (
            f"gave up {name} after {failures} tries: {lost.reason}"
            if self.answered
            else f"could not reach {host}: {lost.reason}"
        )
        if not self.part.size:
            return SriFailure(what, self.instead)
        return SriFailure(
            f"{what}; {kept(self.part.size, self.total)} are kept in {self.part.path}",
            f"the same command goes on from there; or {self.instead}",
        )


def megabytes(num_bytes: int) -> int:
    """In MB, a begun one counts."""
    return -(-num_bytes // 10**6)


def kept(size: int, total: int | None) -> str:
    """`12.0 of 7,000.0 MB`."""
    of = f" of {total / 1e6:,.1f}" if total else ""
    return f"{size / 1e6:,.1f}{of} MB"


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)
