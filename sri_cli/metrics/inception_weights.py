"""The weights of the papers' Inception-v3: where they are, and that they are the right ones."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import torch
from torch import Tensor

from sri_cli.data.download import Remote, download
from sri_cli.errors import SriError

FILE = "pt_inception-2015-12-05-6726825d.pth"
REMOTE = Remote(
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
VARIABLE = "SRI_INCEPTION_WEIGHTS"
WITHOUT = "--features random works without weights (and is no FID)"


def find_weights(path: Path | None = None, offline: bool = False) -> Path:
    """The file named, else the environment's, else torch hub's copy, else fetched to there.

    SriError when a named file is missing, or with `offline` when there is none; what `download`
    raises when it cannot be had. `read_weights` looks into the file.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if named is not None:
        if named.is_file():
            return named
        what = "" if path is not None else f"{VARIABLE}: "
        raise SriError(f"{what}no file {named} with Inception weights", _way_out(cached))
    if cached.is_file():
        return cached
    if offline:
        raise SriError("--offline: the Inception weights of FID are not here", _way_out(cached))
    return download(REMOTE, cached, instead=_way_out(cached))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, loaded only after its SHA-256 is as known; SriError otherwise."""
    try:
        data = path.read_bytes()  # what is hashed is what is loaded: no second look at the file
    except OSError as error:
        raise SriError(f"{path} cannot be read: {error.strerror}", _way_out(path)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != REMOTE.sha256:
        raise SriError(
            f"{path} is damaged or holds other weights: SHA-256 {found}, {REMOTE.sha256} expected",
            f"move it away, then {_way_out(path)}",
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(data), "cpu", weights_only=True)
    return state


def _way_out(place: Path) -> str:
    return f"fetch {REMOTE.url} and put it at {place}; or {WITHOUT}"
