"""Who may speak to the labelling server: the browser that was given its address, nobody else.

Any web page that a person has open can send requests to 127.0.0.1, and any program of this
machine can connect to it. Hence a random token in the address, exchanged for a cookie; the exact
Host, against names that were made to point to 127.0.0.1 (DNS rebinding); and Origin with
Sec-Fetch-Site, against requests that another page makes in the rater's name (CSRF).
"""

from __future__ import annotations

import hmac
import secrets

from werkzeug.datastructures import Headers

ADDRESS = "127.0.0.1"
RESTARTED = (
    "This address is not valid any more: each start of the server makes a new one. "
    "Open the address that `sri label-sacc` printed last. Every answer that was saved is kept."
)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access:
    """The secrets of one server at `port`; new at every start."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.hosts = [f"{ADDRESS}:{port}", f"localhost:{port}"]
        # Cookies are shared by all ports of a host: two servers need two names.
        self.cookie_name = f"sri-label-{port}"
        self.cookie = secrets.token_urlsafe(32)
        self._token = secrets.token_urlsafe(32)
        self._once: str | None = None

    @property
    def url(self) -> str:
        """The address to print."""
        return f"http://{ADDRESS}:{self.port}/?token={self._token}"

    def url_for_browser(self) -> str:
        """An address that is good for one visit: it stands in the process list for all to see."""
        self._once = secrets.token_urlsafe(32)
        return f"http://{ADDRESS}:{self.port}/?token={self._once}"

    def takes(self, token: str) -> bool:
        """Is it the printed token, or the one for the browser at its first visit?"""
        if self._once is not None and _same(token, self._once):
            self._once = None
            return True
        return _same(token, self._token)

    def knows(self, cookie: str | None) -> bool:
        """Does the cookie come from this server?"""
        return cookie is not None and _same(cookie, self.cookie)

    def trusts_host(self, host: str | None) -> bool:
        """Is the Host header, port included, one of the two names of this server?"""
        return host in self.hosts

    def trusts_writer(self, headers: Headers) -> bool:
        """Does a request that writes come from our own page? Browsers always name its Origin."""
        own = headers.get("Origin") == f"http://{headers.get('Host')}"
        return own and headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())
