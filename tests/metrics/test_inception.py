"""Features are pytorch-fid's; weights are the right ones or none."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception as port
from pytorch_fid.fid_score import get_activations

from sri_cli.errors import SriError, SriFailure
from sri_cli.metrics import inception
from sri_cli.metrics.fid import PAPERS, RANDOM
from sri_cli.metrics.inception import (
    FILE,
    VARIABLE,
    Inception,
    fid_inception,
    find_weights,
    full_float32,
    open_inception,
    random_inception,
    random_weights,
    read_weights,
)
from tests.small_server import FileServer, serving

KNOWN = inception.REMOTE


@pytest.fixture(scope="module")
def network() -> Inception:
    return random_inception()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [8,48,48,3]: four with broad patches of colour, four of noise."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    noise = random.integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    return np.concatenate([patches.repeat(8, axis=1).repeat(8, axis=2), noise])


@pytest.fixture(scope="module")
def features(network: Inception, images: np.ndarray) -> np.ndarray:
    return network(images)


def test_random_features_tell_images_apart(features: np.ndarray) -> None:
    assert features.shape == (8, Inception.size) and features.dtype == np.float32
    assert 0.05 < features.mean() < 2 and features.max() < 20  # as Inception's own
    assert (features > 0).mean() > 0.9
    assert features[:4].std(axis=0).mean() > 0.05 * features.mean()


def test_png_files_through_pytorch_fid_give_the_same(
    images: np.ndarray, features: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own network, data set and loop, on files."""
    monkeypatch.setattr(port, "load_state_dict_from_url", lambda *_, **__: random_weights())
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(files, images, strict=True):
        Image.fromarray(image).save(path)
    network = port.InceptionV3([port.InceptionV3.BLOCK_INDEX_BY_DIM[Inception.size]])
    theirs = get_activations(files, network, batch_size=8, num_workers=0)
    np.testing.assert_allclose(features, theirs, rtol=1e-4, atol=1e-4)
    assert np.abs(features - theirs[::-1]).max() > 0.1  # and would not match by chance


def test_batches_change_nothing(
    network: Inception, images: np.ndarray, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "batch", 3)
    advanced: list[int] = []
    np.testing.assert_allclose(network(images, advanced.append), features, atol=1e-4)
    assert advanced == [3, 3, 2] and network(images[:0]).shape == (0, Inception.size)


def test_the_callers_autocast_and_state_are_left_alone(
    network: Inception, images: np.ndarray, features: np.ndarray
) -> None:
    assert not network.network.training
    assert not any(weight.requires_grad for weight in network.network.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(images[:2])
    np.testing.assert_allclose(found, features[:2], atol=1e-4)


def test_no_tf32_inside_only() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    with pytest.raises(KeyError), full_float32():
        assert convolutions.fp32_precision == "ieee"
        raise KeyError
    assert convolutions.fp32_precision == before


def test_weights_are_a_function_of_the_seed(network: Inception) -> None:
    state = torch.get_rng_state()
    first, again, other = random_weights(), random_weights(), random_weights(1)
    name = "Mixed_7c.branch_pool.conv.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert network.name == RANDOM and len(network.digest) == 64


def test_building_takes_no_memory() -> None:
    assert {weight.device.type for weight in fid_inception().parameters()} == {"meta"}


# Weights ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No weights in the environment or torch's hub, no proxy, and a host that refuses."""
    for name in (VARIABLE, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sri_cli.data.download.BACKOFF_SEC", 0.0)
    _known_as(monkeypatch, b"", "http://127.0.0.1:1/")
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield
    torch.hub.set_dir(before)


@pytest.fixture(scope="module")
def saved() -> bytes:
    """A file as the papers' is: a module's state dict in the old format of torch.save."""
    network, file = fid_inception(), io.BytesIO()
    network.load_state_dict(random_weights(), assign=True)
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def hub_file(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "checkpoints" / FILE


def _known_as(monkeypatch: pytest.MonkeyPatch, data: bytes, url: str | None = None) -> None:
    """From now on these bytes are the right ones."""
    remote = inception.REMOTE
    known = replace(remote, url=url or remote.url, sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(inception, "REMOTE", known)


def test_the_known_file_is_pytorch_fids() -> None:
    assert KNOWN.url == port.FID_WEIGHTS_URL and KNOWN.url.endswith(f"/{FILE}")
    assert KNOWN.sha256 is not None and len(KNOWN.sha256) == 64
    assert KNOWN.sha256.startswith(FILE.removesuffix(".pth").rpartition("-")[2])


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, named, cached = tmp_path / "given", tmp_path / "named", hub_file(tmp_path)
    cached.parent.mkdir(parents=True)
    for path in (given, named, cached):
        path.touch()
    assert find_weights(offline=True) == cached
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_weights() == named and find_weights(given) == given
    monkeypatch.setenv(VARIABLE, "")
    assert find_weights() == cached


@pytest.mark.parametrize("where", ["flag", "environment", "offline"])
def test_missing_weights_say_where_to_put_them(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SriError) as caught:
        find_weights(tmp_path / "nowhere" if where == "flag" else None, offline=where == "offline")
    check_hint(caught.value, hub_file(tmp_path))
    assert caught.value.exit_code == 2 and not (tmp_path / "hub").exists()
    assert {"flag": "nowhere", "environment": VARIABLE, "offline": "--offline"}[
        where
    ] in caught.value.message


def test_a_host_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(SriFailure, match="127.0.0.1") as caught:
        find_weights()
    check_hint(caught.value, hub_file(tmp_path))


def check_hint(error: SriError, path: Path) -> None:
    assert error.hint
    for name in (str(path), "--features random", inception.REMOTE.url):
        assert name in error.hint


def fetched(monkeypatch: pytest.MonkeyPatch, server: FileServer, data: bytes) -> Path:
    _known_as(monkeypatch, data, server.url)
    return find_weights()


def test_fetched_once_verified_and_used(
    saved: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: Inception,
    images: np.ndarray,
    features: np.ndarray,
) -> None:
    with serving(saved) as server:
        assert fetched(monkeypatch, server, saved) == hub_file(tmp_path)
        found = open_inception()
        assert len(server.sent) == 1
    assert found.name == PAPERS and found.digest == hashlib.sha256(saved).hexdigest()
    np.testing.assert_allclose(found(images[:2]), features[:2], atol=1e-4)


def test_another_file_from_the_host_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(b"not these") as server, pytest.raises(SriFailure, match="SHA-256") as caught:
        fetched(monkeypatch, server, b"the right ones")
    assert "--features random" in str(caught.value.hint)
    assert not hub_file(tmp_path).exists()


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("data", [b"", b"other", pickle.dumps(Trap())])
def test_no_other_file_is_loaded(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FILE
    path.write_bytes(data)
    _known_as(monkeypatch, b"the right ones")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(SriError, match=f"{hashlib.sha256(data).hexdigest()}") as caught:
        read_weights(path)
    check_hint(caught.value, path)


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with the right hash."""
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Trap(), protocol=2)
    (tmp_path / FILE).write_bytes(data)
    _known_as(monkeypatch, data)
    with pytest.raises(pickle.UnpicklingError):
        read_weights(tmp_path / FILE)
    assert not (tmp_path / "sprung").exists()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SriError, match=re.escape(str(tmp_path))) as caught:
        read_weights(tmp_path)
    check_hint(caught.value, tmp_path)
