"""Features are pytorch-fid's; weights are the known ones or none."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception as port
from pytorch_fid.fid_score import get_activations

from sri_cli.errors import SriError
from sri_cli.metrics import inception
from sri_cli.metrics.features import full_float32
from sri_cli.metrics.fid import PAPERS, RANDOM
from sri_cli.metrics.inception import (
    FILE,
    VARIABLE,
    Inception,
    fid_inception,
    find_weights,
    open_inception,
    random_inception,
    random_weights,
    read_weights,
)
from tests.small_server import serving

KNOWN = inception.REMOTE


@pytest.fixture(scope="module")
def network() -> Inception:
    return random_inception()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [6,48,48,3]: three with broad patches of colour, three of noise."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    noise = random.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    return np.concatenate([patches.repeat(8, axis=1).repeat(8, axis=2), noise])


@pytest.fixture(scope="module")
def features(network: Inception, images: np.ndarray) -> np.ndarray:
    return network(images)


def test_features_are_pytorch_fids(
    images: np.ndarray, features: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own network, data set and loop, on PNG files."""
    monkeypatch.setattr(port, "load_state_dict_from_url", lambda *_, **__: random_weights())
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(files, images, strict=True):
        Image.fromarray(image).save(path)
    network = port.InceptionV3([port.InceptionV3.BLOCK_INDEX_BY_DIM[Inception.size]])
    theirs = get_activations(files, network, batch_size=8, num_workers=0)
    np.testing.assert_allclose(features, theirs, rtol=1e-4, atol=1e-4)
    assert np.abs(features - theirs[::-1]).max() > 0.1  # and would not match by chance


def test_random_features_tell_images_apart(features: np.ndarray) -> None:
    assert features.dtype == np.float32
    assert 0.05 < features.mean() < 2 and features.max() < 20  # as Inception's own
    assert (features > 0).mean() > 0.9
    assert features[:3].std(axis=0).mean() > 0.05 * features.mean()


def test_neither_batches_nor_autocast_change_features(
    network: Inception, images: np.ndarray, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "batch", 2)
    advanced: list[int] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(images[:3], advanced.append)
    np.testing.assert_allclose(found, features[:3], atol=1e-4)
    assert advanced == [2, 1]


def test_full_float32_is_undone_on_errors() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    with pytest.raises(KeyError), full_float32():
        assert convolutions.fp32_precision == "ieee"
        raise KeyError
    assert convolutions.fp32_precision == before


def test_random_weights_are_a_function_of_the_seed(network: Inception) -> None:
    state = torch.get_rng_state()
    first, again, other = random_weights(), random_weights(), random_weights(1)
    name = "Mixed_7c.branch_pool.conv.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert network.name == RANDOM and len(network.digest) == 64


# Weights ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights in the environment or torch's hub, and a host that refuses.

    The file in torch's hub.
    """
    expect(monkeypatch, b"", "http://127.0.0.1:1/")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints" / FILE


def expect(monkeypatch: pytest.MonkeyPatch, data: bytes, url: str | None = None) -> None:
    """From now on these bytes are the right ones."""
    remote = inception.REMOTE
    known = replace(remote, url=url or remote.url, sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(inception, "REMOTE", known)


def check_hint(error: SriError, path: Path) -> None:
    assert error.hint
    for name in (str(path), "--features random", inception.REMOTE.url):
        assert name in error.hint


def test_the_known_file_is_pytorch_fids() -> None:
    assert KNOWN.url == port.FID_WEIGHTS_URL and KNOWN.url.endswith(f"/{FILE}")
    assert KNOWN.sha256 is not None and len(KNOWN.sha256) == 64
    assert KNOWN.sha256.startswith(FILE.removesuffix(".pth").rpartition("-")[2])


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_weights: Path) -> None:
    given, named, cached = tmp_path / "given", tmp_path / "named", no_weights
    cached.parent.mkdir(parents=True)
    for path in (given, named, cached):
        path.touch()
    assert find_weights(offline=True) == cached
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_weights() == named and find_weights(given) == given
    monkeypatch.setenv(VARIABLE, "")
    assert find_weights() == cached


@pytest.mark.parametrize("where", ["flag", "environment", "offline", "host"])
def test_missing_weights(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_weights: Path
) -> None:
    path = tmp_path / "nowhere"
    if where == "environment":
        monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(SriError) as caught:
        find_weights(path if where == "flag" else None, offline=where == "offline")
    check_hint(caught.value, no_weights)
    assert caught.value.exit_code == (1 if where == "host" else 2)
    named = {"flag": "nowhere", "environment": VARIABLE, "offline": "--offline"}
    assert named.get(where, "127.0.0.1") in caught.value.message


def test_downloaded_once_verified_and_used(
    monkeypatch: pytest.MonkeyPatch, images: np.ndarray, features: np.ndarray, no_weights: Path
) -> None:
    """A file as the papers': a state dict in the old format of torch.save."""
    whole, file = fid_inception(), io.BytesIO()
    whole.load_state_dict(random_weights(), assign=True)
    torch.save(whole.state_dict(), file, _use_new_zipfile_serialization=False)
    data = file.getvalue()
    with serving(data) as server:
        expect(monkeypatch, data, server.url)
        assert find_weights() == no_weights
        found = open_inception()
        assert len(server.sent) == 1
    assert found.name == PAPERS and found.digest == hashlib.sha256(data).hexdigest()
    np.testing.assert_allclose(found(images[:2]), features[:2], atol=1e-4)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("sprung"),))


def test_only_the_known_file_is_loaded_and_nothing_in_it_is_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = here / FILE, pickle.dumps(Trap(), protocol=2)
    for other in (b"", data):
        path.write_bytes(other)
        expect(monkeypatch, b"the right ones")
        with pytest.raises(SriError, match=hashlib.sha256(other).hexdigest()) as caught:
            read_weights(path)
        check_hint(caught.value, path)
    expect(monkeypatch, data)  # not even with the right hash
    with pytest.raises(pickle.UnpicklingError):
        read_weights(path)
    assert not (here / "sprung").exists()
    with pytest.raises(SriError) as caught:
        read_weights(here)  # a folder
    check_hint(caught.value, here)
