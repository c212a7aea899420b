"""`sri doctor` where something is missing: really missing, cut, read-only, broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sri_cli.doctor import about_torch, files, machine, probe
from sri_cli.doctor.examine import guarded
from sri_cli.doctor.findings import Finding, exit_code, note, ok, problem, words
from sri_cli.run import Workspace, checkpoints_in

ROOT = Path(__file__).parent.parent.parent


def doctor(
    workspace: Workspace, *inserted: Path, here: Path | None = None
) -> tuple[int, list[dict]]:
    """Exit code and findings of the command; modules in `inserted` stand before all others."""
    roots = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    told = python(["-m", "sri_cli", *roots, "doctor", "--json"], inserted, here=here)
    facts = json.loads(told.stdout)
    assert facts["exit_code"] == told.returncode and told.stderr == ""
    return told.returncode, facts["findings"]


def check(call: str, *inserted: Path, before: tuple[str, ...] = ()) -> list[dict]:
    """The findings of one check, as `doctor` takes them, in a process of its own."""
    code = (
        "import dataclasses, json; from pathlib import Path;"
        "from sri_cli.doctor import about_torch, files, machine;"
        f"print(json.dumps([dataclasses.asdict(found) for found in {call}]))"
    )
    findings: list[dict] = json.loads(python(["-c", code], inserted, before).stdout)
    return findings


def python(
    words: list[str],
    inserted: tuple[Path, ...],
    before: tuple[str, ...] = (),
    here: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*inserted, ROOT]))},
        capture_output=True,
        text=True,
    )


def module(folder: Path, name: str, code: str) -> Path:
    """A folder with a module of that name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def bad(findings: list[dict]) -> dict[str, dict]:
    """The problems, by their topic."""
    return {one["topic"]: one for one in findings if one["level"] == "problem"}


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_machine_in_order_and_nothing_is_changed(workspace: Workspace, tmp_path: Path) -> None:
    def everything() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))

    (tmp_path / "torch.py").write_text("raise ImportError('a file of the user, no torch')\n")
    before = everything()
    code, findings = doctor(workspace, here=tmp_path)
    assert code == 0 and bad(findings) == {}
    assert everything() == before
    told = {one["topic"]: one["words"] for one in findings}
    assert "24 train, 8 val, 16 test images of 32 px" in told["data"]
    assert told["runs"] == "2 runs whose newest checkpoint is intact"
    assert {
        "torch",
        "torchvision",
        "device",
        "bf16",
        "memory",
        "compiler",
        "weights",
    } <= told.keys()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_without_torch_it_says_so_and_still_looks_at_the_rest(
    workspace: Workspace, tmp_path: Path, code: str, said: str
) -> None:
    exit_code, findings = doctor(workspace, module(tmp_path / "broken", "torch", code))
    wrong = bad(findings)["torch"]
    assert exit_code == 2 and wrong["essential"]
    assert "torch cannot be used" in wrong["words"] and said in wrong["words"]
    assert "pip install --force-reinstall" in wrong["remedy"]
    told = {one["topic"]: one["level"] for one in findings}
    assert told["data"] == told["runs"] == told["packages"] == "ok"


def test_a_torch_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = module(tmp_path, "torch", "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    began = time.monotonic()
    found = list(about_torch.torch_findings(about_torch.start_probe(), patience=1.5))
    assert time.monotonic() - began < 20
    assert "takes more than" in found[-1].words and exit_code(found) == 2


def test_a_broken_torchvision(workspace: Workspace, tmp_path: Path) -> None:
    said = "operator torchvision::nms does not exist"
    folder = module(tmp_path / "broken", "torchvision", f"raise RuntimeError({said!r})")
    code, findings = doctor(workspace, folder)
    wrong = bad(findings)["torchvision"]
    assert code == 2 and said in wrong["words"] and "pip install" in wrong["remedy"]
    assert {one["topic"]: one["level"] for one in findings}["torch"] == "ok"


def test_a_torchvision_for_another_torch(tmp_path: Path) -> None:
    """As pip leaves it when one of the two is upgraded alone."""
    info = tmp_path / "torchvision-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\nRequires-Dist: torch==1.2.3\n"
    )
    call = "about_torch.mismatch('2.10.0', '0.1.2', about_torch.torch_wanted())"
    (wrong,) = check(call, tmp_path)
    assert "torchvision 0.1.2 belongs to torch 1.2.3" in wrong["words"] and wrong["essential"]
    assert check(call.replace("2.10.0", "1.2.3+cpu"), tmp_path) == []


def test_a_broken_package_is_essential(tmp_path: Path) -> None:
    folder = module(tmp_path, "h5py", "raise ImportError('no')")
    (wrong,) = check("machine.packages()", folder)
    assert "h5py cannot be imported: no" in wrong["words"] and wrong["essential"]


@pytest.mark.parametrize(
    ("torch", "wanted", "bad"),
    [
        ("2.10.0+cu130", "2.10.0", False),
        ("2.10.1", "2.10.0", True),
        ("2.9.0+cpu", "2.10.0", True),
        ("2.10.0", None, False),
        (None, "2.10.0", False),
    ],
)
def test_torch_and_torchvision_fit(torch: str | None, wanted: str | None, bad: bool) -> None:
    assert bool(list(about_torch.mismatch(torch, "0.25.0", wanted))) == bad


@pytest.mark.parametrize(
    ("version", "level", "code"),
    [((3, 10, 4), "problem", 2), ((3, 11, 0), "ok", 0), ((3, 14, 0), "note", 0)],
)
def test_python_s_age(version: tuple[int, ...], level: str, code: int) -> None:
    found = list(machine.python(version))
    assert only(found).level == level and exit_code(found) == code


def test_all_packages_of_the_project_are_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {line.split(">=")[0].strip() for line in project["dependencies"]}
    assert needed - {"torch", "torchvision"} == set(machine.MODULES)


def test_a_path_without_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = only(list(machine.compiler({})))
    assert found.level == "note" and "no C++ compiler" in found.words and "g++" in found.remedy
    found = only(list(machine.compiler({"CXX": "g++-99 -O2"})))
    assert "CXX=g++-99 -O2 is not there" in found.words


def test_data_files_in_every_state(
    workspace: Workspace, damage: Callable[[Path, str], None]
) -> None:
    good = workspace.data_path("demo-towers", 32)
    cut, empty = (workspace.data_root / f"{name}-32.h5" for name in ("cut", "empty"))
    for path, how in ((cut, "cut"), (empty, "empty")):
        shutil.copy(good, path)
        damage(path, how)
    shutil.copy(good, workspace.data_root / "begun-32.h5.partial")
    found = {f.words.split(".h5")[0]: f for f in files.data(workspace)}
    levels = {Path(key.removeprefix("data file ")).name: f.level for key, f in found.items()}
    assert levels == {
        "begun-32": "note",
        "cut-32": "problem",
        "demo-towers-32": "ok",
        "empty-32": "problem",
    }
    assert all(f.remedy for f in found.values() if f.level != "ok")
    assert exit_code(list(found.values())) == 0
    shutil.rmtree(workspace.data_root)
    assert only(list(files.data(workspace))).remedy == "sri prepare shapestacks"


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "meta.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_broken_checkpoint_and_the_one_before(
    workspace: Workspace,
    write_run: Callable[..., None],
    damage: Callable[[Path, str], None],
    file: str,
    how: str,
) -> None:
    run = workspace.runs_root / "tiny"
    write_run(run, step=20)
    (run / "command.txt").write_text("sri train --recipe sri-mog-tiny\n")
    damage(checkpoints_in(run)[-1] / file, how)
    wrong, fine = files.runs(workspace)
    assert wrong.level == "problem" and "step 10 is intact" in wrong.words
    assert wrong.remedy == "sri train --recipe sri-mog-tiny"
    assert fine == ok("runs", "1 run whose newest checkpoint is intact")
    damage(checkpoints_in(run)[0] / file, how)
    wrong, _ = files.runs(workspace)
    assert "none of the checkpoints" in wrong.words and wrong.remedy


def test_runs_without_checkpoints(workspace: Workspace) -> None:
    (workspace.runs_root / "new" / "checkpoints").mkdir(parents=True)
    assert any("has no checkpoint yet" in f.words for f in files.runs(workspace))
    shutil.rmtree(workspace.runs_root)
    assert "sri demo" in only(list(files.runs(workspace))).remedy


def mounted(tmp_path: Path, options: str) -> tuple[Path, tuple[str, ...]]:
    """A folder, and the words before a command that see a disk of its own mounted there."""
    place = tmp_path / "mounted"
    place.mkdir()
    words = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    script = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    before = (*words, script, str(place))
    try:
        subprocess.run([*before, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here without being the administrator")
    return place, before


FOLDERS = "files.folders(files.Workspace(Path({data!r}), Path({runs!r})))"


def test_read_only_folders(tmp_path: Path) -> None:
    place, before = mounted(tmp_path, "ro,size=1m")
    call = FOLDERS.format(data=f"{place}/data", runs=str(place))
    findings = check(call, before=before)
    assert [one["topic"] for one in findings] == ["data folder", "runs folder"]
    for one, flag in zip(findings, ("--data-root", "--runs-root"), strict=True):
        assert one["essential"] and "cannot be written to" in one["words"]
        assert flag in one["remedy"]


def test_a_tiny_disk(tmp_path: Path) -> None:
    place, before = mounted(tmp_path, "size=1m")
    _, wrong = check(FOLDERS.format(data=str(tmp_path), runs=str(place)), before=before)
    assert wrong["level"] == "problem" and not wrong["essential"]
    assert "too little to train" in wrong["words"] and wrong["remedy"]


def test_folders_that_are_not_there_or_are_files(tmp_path: Path) -> None:
    found = files.folder("data", "--data-root", tmp_path / "a" / "b")
    assert found.level != "problem" and "not there yet" in found.words
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").write_text("")
    found = files.folder("data", "--data-root", tmp_path / "a" / "b")
    assert found.essential and "is no folder" in found.words
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    assert files.folder("runs", "--runs-root", tmp_path / "lost").essential


def test_inception_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SRI_INCEPTION_WEIGHTS", raising=False)

    def found() -> Finding:
        return only(list(about_torch.weights({"weights": probe.weights()})))

    assert found().level == "note" and "sri eval --metrics fid" in found().remedy
    file = tmp_path / "weights.pth"
    monkeypatch.setenv("SRI_INCEPTION_WEIGHTS", str(file))
    assert found().level == "problem" and "SRI_INCEPTION_WEIGHTS: no file" in found().words
    file.write_bytes(b"other weights")
    assert found().level == "problem" and "is damaged" in found().words
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("facts", "there", "level", "said"),
    [
        ({"cuda": None, "gpus": []}, [], "ok", "no GPU"),
        ({"cuda": None, "gpus": []}, ["H100, driver 5"], "note", "built for CPUs alone"),
        ({"cuda": "13.0", "gpus": []}, ["H100, driver 5"], "problem", "cannot use it"),
        (
            {"cuda": "13.0", "gpus": [{"name": "H100", "memory": 8e10, "error": None}]},
            ["H100, driver 5"],
            "ok",
            "H100, 80 GB, CUDA 13.0",
        ),
        (
            {"cuda": "13.0", "gpus": [{"name": "K80", "memory": 1e10, "error": "no kernel"}]},
            [],
            "problem",
            "cannot compute: no kernel",
        ),
    ],
)
def test_gpus(facts: dict, there: list[str], level: str, said: str) -> None:
    found = only(list(about_torch.devices({"hip": None, **facts}, there)))
    assert found.level == level and said in found.words
    assert (level == "ok") == (found.remedy == "")


def test_a_check_that_fails_is_a_finding(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ("n" * 300), tmp_path)  # a name that no system takes
    found = only(list(guarded("data", lambda: files.data(workspace))))
    assert found.level == "problem" and "could not be looked at: OSError" in found.words


def test_the_words_for_people() -> None:
    found = [ok("a", "fine"), note("bbb", "hm", "do it"), problem("cc", "two\nlines", "mend", True)]
    assert words(found).splitlines() == [
        "ok       a    fine",
        "note     bbb  hm  ->  do it",
        "problem  cc   two lines  ->  mend",
        "",
        "1 problem, 1 note; something essential is missing",
    ]
    assert words(found[:1]).splitlines()[-1] == "all is well"
