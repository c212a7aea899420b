"""Which run gets which GPU, or how many threads."""

from __future__ import annotations

import pytest
import torch

from sri_cli.studies.processes import Slots, choose_slots


def test_each_run_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = Slots(jobs=3, gpus=2, threads=1)
    assert [slots.environment(i) for i in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # those that are ours to share
    assert slots.environment(1) == {"CUDA_VISIBLE_DEVICES": "7"}


def test_runs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = [choose_slots(jobs) for jobs in (None, 1, 2, 3, 8)]
    finally:
        torch.set_num_threads(before)
    assert [(one.jobs, one.threads) for one in found] == [(1, 4), (1, 4), (2, 2), (3, 1), (8, 1)]
    assert found[2].environment(0) == {"OMP_NUM_THREADS": "2"}
