"""Training in several real processes: equal losses, survives a killed process and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from sri_cli.checkpoint import checkpoints_in
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, SriFailure
from sri_cli.signals import StopSignal, handled, stop_on_signal
from sri_cli.training.launch import launch, launch_config
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train
from tests.small_cli import finish, start, wait_until
from tests.small_data import write_small_data
from tests.small_models import tiny_recipe
from tests.tracker_readers import READERS

MODEL = {"system": "genesis-v2", "image_size": 32, "slots": 3, "slot_size": 8}
small_recipe = partial(tiny_recipe, MODEL, lr=1e-4)
TORCHRUN = "from torch.distributed.run import main; main()"
LONG = 2000  # steps; more than anyone waits for
# A training by the launcher, in two processes on the CPU: RUN DATA RECIPE, modules with OPTIONS.
LAUNCHED = """
import importlib, json, sys
from pathlib import Path
from sri_cli.config.load import recipe_from_dict
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.training.launch import launch
run, data, tree = Path(sys.argv[1]), DataFile(Path(sys.argv[2])), json.loads(sys.argv[3])
options = {"device": "cpu", "command": "sri train --gpus 2"}
for name in sys.argv[4:]:
    options |= importlib.import_module(name).OPTIONS
try:
    launch(2, recipe_from_dict(tree), data, run, **options)
except SriError as error:
    print(error.message, error.hint, sep=chr(10), file=sys.stderr)
    sys.exit(error.exit_code)
"""
# Such a module, which the processes import for its function: its tracker closes slowly.
SLOW = """
import time
from sri_cli.training import trackers
def draw(run, data): ...
trackers.Csv.close = lambda *_: time.sleep(6)
OPTIONS = {"trackers": ["csv"], "preview": draw}
"""
# Work with progress in a terminal of its own, which a signal stops: FILE.
IN_TERMINAL = """
import fcntl, signal, sys, termios, time
from pathlib import Path
from sri_cli.console import Progress
from sri_cli.signals import stop_on_signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has the tests ignore it
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with stop_on_signal() as stop, Progress(9, 0, "work") as progress:
    while not stop.received:
        progress.note("going on")
        time.sleep(0.01)
    progress.update(7)
    progress.note("stopped")
    Path(sys.argv[1]).write_text(str(progress.done))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data") / "towers-32.h5")


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: any(int(path.name[5:]) >= step for path in checkpoints_in(run)), process)


def workers_of(pid: int) -> list[int]:
    """The processes that the launcher started (and not the interpreter's resource tracker)."""
    workers = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"spawn_main" in words:
            workers.append(int(folder.name))
    return workers


def losses(run: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in read_log(run)]


def test_two_processes_of_torchrun_end_where_one_does_and_one_resumes_their_run(
    tmp_path: Path, data: Path
) -> None:
    train(small_recipe(), DataFile(data), tmp_path / "one")
    file, run = tmp_path / "small.yaml", tmp_path / "two"
    file.write_text(small_recipe().model_dump_json())
    words = ["--nproc-per-node", "2", "--standalone"]
    # Behind --, or torchrun would take --run for an option of its own.
    words += ["-m", "--", "sri_cli", "train", "--gpus", "0", "--steps", "4", "--json"]
    words += ["--recipe", str(file), "--data", str(data), "--run", str(run), "--threads", "2"]
    words += ["--tracker", "csv", "train.preview_every=2"]
    out, err = finish(start(*words, code=TORCHRUN))
    assert json.loads(out)["step"] == 4  # the first rank alone prints
    assert "2 processes on cpu" in err and err.count("to step 4") == 1
    assert [record["threads"] for record in read_log(run)] == [2] * 4  # of each process
    # Recorded and drawn by the first rank alone.
    assert [step for step, _ in READERS["csv"](run)[0]] == [1, 2, 3, 4]
    names = {f"{name}-{step:09d}.png" for name in ("samples", "order") for step in (2, 4)}
    assert {path.name for path in (run / "previews").iterdir()} == names
    train(small_recipe(), DataFile(data), run)
    alone, together = losses(tmp_path / "one"), losses(run)
    assert [step for step, _ in together] == [1, 2, 3, 4, 5, 6]
    for (_, one), (_, two) in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-3)


def test_signals_that_nohup_ignores_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    received: list[int] = []
    try:
        with handled([signal.SIGHUP, signal.SIGUSR1], lambda number, _: received.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
        config = launch_config(1)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert received == [signal.SIGUSR1]
    assert "SIGHUP" not in config.signals_to_handle


def test_a_second_signal_stops_at_once_unless_it_is_the_echo_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stop_on_signal() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.received
        monkeypatch.setattr("sri_cli.signals.ECHO_SEC", -1.0)
        with pytest.raises(StopSignal):
            signal.raise_signal(signal.SIGTERM)


def test_a_closed_terminal_stops_the_work_which_can_still_be_saved(tmp_path: Path) -> None:
    terminal, own = os.openpty()
    file = tmp_path / "saved"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), own)
    process = start(str(file), code=IN_TERMINAL, start_new_session=True, **streams)
    os.close(own)
    assert os.read(terminal, 1)
    os.close(terminal)
    assert process.wait(60) == 0 and file.read_text() == "7"


def test_lost_processes_are_counted_from_one_checkpoint_to_the_next(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def lose(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 6):
            (tmp_path / "checkpoints" / f"step-{calls:09d}").mkdir(parents=True)
        raise ChildFailedError("train", {0: ProcessFailure(0, 1, -signal.SIGKILL, "")})

    monkeypatch.setattr("sri_cli.training.launch.start_together", lose)
    with pytest.raises(SriFailure, match="SIGKILL"):
        launch(2, small_recipe(), DataFile(data), tmp_path, device="cpu")
    assert calls == 6 + 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_job_survives_a_killed_process_and_a_signal(
    tmp_path: Path, data: Path, name: str
) -> None:
    run = tmp_path / "run"
    recipe = small_recipe(steps=LONG).model_dump_json()
    process = start(str(run), str(data), recipe, code=LAUNCHED)
    wait_for_step(run, 2, process)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    wait_until(lambda: len(set(workers_of(process.pid)) - set(workers)) == 2, process)
    wait_for_step(run, losses(run)[-1][0] + 2, process)
    process.send_signal(getattr(signal, name))
    output = "".join(finish(process, code=75))
    # The job saves, says so, and names the command that resumes it.
    step = int(checkpoints_in(run)[-1].name[5:])
    said, hint = output.splitlines()[-2:]
    assert f"Stopped at step {step};" in said and "sri train --gpus 2" in hint
    assert "resuming" in output and output.count("to step") == 2  # the first rank alone prints
    assert step < LONG
    assert [step for step, _ in losses(run)] == list(range(1, step + 1))  # no step is lost


@pytest.mark.slow
def test_a_stop_waits_for_trackers_that_close_slowly(tmp_path: Path, data: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    run, recipe = tmp_path / "run", small_recipe(steps=LONG, preview_every=0).model_dump_json()
    process = start(str(run), str(data), recipe, "slow", code=LAUNCHED, cwd=tmp_path)
    wait_for_step(run, 2, process)
    os.kill(workers_of(process.pid)[1], signal.SIGTERM)  # not the launcher, which would restart
    output = "".join(finish(process, code=75))
    assert "Stopped at step" in output and "resuming" not in output


def test_another_recipe_is_refused_and_not_retried(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train(small_recipe(steps=1), DataFile(data), tmp_path / "run")
    with pytest.raises(SriError, match=r"was trained otherwise: train\.lr") as caught:
        launch(2, small_recipe(lr=0.5), DataFile(data), tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 2 and "resuming" not in capfd.readouterr().err
