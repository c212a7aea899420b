"""`sri doctor` where something is missing: really missing, cut, read-only, broken."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sri_cli import doctor
from sri_cli.doctor import Finding
from sri_cli.errors import pip_install
from sri_cli.run import Workspace, checkpoints_in
from tests.damage import damage
from tests.small_cli import ROOT, start
from tests.small_data import write_run


def sri_doctor(workspace: Workspace, *modules: Path) -> tuple[int, dict[str, dict]]:
    """Exit code, and the findings by topic; modules in `modules` hide the installed ones."""
    roots = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    path = os.pathsep.join(map(str, [*modules, ROOT]))
    process = start(*roots, "doctor", "--json", env=os.environ | {"PYTHONPATH": path})
    out, err = process.communicate()
    result = json.loads(out)
    assert result["exit_code"] == process.returncode and err == ""
    return process.returncode, {finding["topic"]: finding for finding in result["findings"]}


def module(folder: Path, name: str, code: str) -> Path:
    """A folder with a module of that name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def only(findings: object) -> Finding:
    (finding,) = findings
    return finding


def test_a_healthy_machine_and_nothing_is_changed(workspace: Workspace, tmp_path: Path) -> None:
    def everything() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))

    before = everything()
    code, findings = sri_doctor(workspace)
    assert code == 0 and everything() == before
    assert not [one for one in findings.values() if one["level"] == "problem"]
    topics = {"python", "torch", "torchvision", "device", "bf16", "memory", "compiler", "weights"}
    assert topics <= findings.keys()
    assert "24 train" in findings["data"]["text"] and findings["runs"]["text"].startswith("2 ")


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "libcudart.so.13"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_without_torch_the_rest_is_still_checked(
    workspace: Workspace, tmp_path: Path, code: str, named: str
) -> None:
    exit_code, findings = sri_doctor(workspace, module(tmp_path / "broken", "torch", code))
    assert exit_code == 2 and findings["torch"]["essential"]
    assert named in findings["torch"]["text"] and "pip install" in findings["torch"]["fix"]
    assert {findings[topic]["level"] for topic in ("data", "runs", "packages")} == {"ok"}


def test_a_torch_that_hangs_ends_at_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = module(tmp_path, "torch", "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    began = time.monotonic()
    finding = only(doctor.read_probe(doctor.start_probe(), timeout=1.5))
    assert finding.topic == "torch" and finding.essential
    assert time.monotonic() - began < 20


def test_a_broken_torchvision(workspace: Workspace, tmp_path: Path) -> None:
    text = "operator torchvision::nms does not exist"
    folder = module(tmp_path / "broken", "torchvision", f"raise RuntimeError({text!r})")
    code, findings = sri_doctor(workspace, folder)
    assert code == 2 and text in findings["torchvision"]["text"]
    assert findings["torch"]["level"] == "ok"


def test_torchvision_needs_one_version_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "torchvision-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\nRequires-Dist: torch==1.2.3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    problems = [one for one in doctor.check_packages() if one.level == "problem"]
    assert "torch==1.2.3" in only(problems).fix


@pytest.mark.parametrize(
    ("requirement", "named"),
    [
        ("no-such-package>=1", "no-such-package"),
        ("numpy>=999.1", "999.1"),
        ("numpy>=1", None),
        ("no-such-package; extra == 'x'", None),
    ],
)
def test_packages(requirement: str, named: str | None) -> None:
    fault = doctor.package_fault(requirement)
    assert fault is None if named is None else named in str(fault)


def test_little_memory_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 2 * 10**9)
    finding = only(doctor.check_memory())
    assert finding.level == "note" and "2.0 GB" in finding.text


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert only(doctor.check_compiler({})).level == "note"
    assert "g++-99" in only(doctor.check_compiler({"CXX": "g++-99 -O2"})).text
    monkeypatch.setattr(sys, "platform", "darwin")
    finding = only(doctor.check_compiler({}))
    assert finding.level == "note" and finding.fix == "xcode-select --install"


@pytest.mark.parametrize("has_pip", [True, False])
def test_hints_install_into_this_python(monkeypatch: pytest.MonkeyPatch, has_pip: bool) -> None:
    monkeypatch.setattr("sri_cli.errors.find_spec", lambda name: has_pip or None)
    words = shlex.split(pip_install("sri-cli[hub]"))
    assert sys.executable in words and words[-1] == "sri-cli[hub]"
    assert words[0] == (sys.executable if has_pip else "uv")


def test_data_files_in_every_state(workspace: Workspace) -> None:
    good = workspace.data_path("demo-towers", 32)
    for how in ("cut", "empty"):
        damage(shutil.copy(good, workspace.data_root / f"{how}-32.h5"), how)
    shutil.copy(good, workspace.data_root / "begun-32.h5.partial")
    findings = list(doctor.check_data(workspace.data_root))
    levels = {
        name: f.level
        for f in findings
        for name in ("begun", "cut", "empty", "demo")
        if name in f.text
    }
    assert levels == {"begun": "note", "cut": "problem", "empty": "problem", "demo": "ok"}
    assert all(finding.fix for finding in findings if finding.level != "ok")
    shutil.rmtree(workspace.data_root)
    assert only(doctor.check_data(workspace.data_root)).level == "note"


def test_a_broken_checkpoint_and_the_one_before(workspace: Workspace) -> None:
    run = workspace.runs_root / "tiny"
    write_run(run, step=20)
    (workspace.runs_root / "new" / "checkpoints").mkdir(parents=True)
    newest, oldest = checkpoints_in(run)[-1], checkpoints_in(run)[0]
    damage(newest / "model.safetensors", "flipped")
    findings = {finding.level: finding for finding in doctor.check_runs(workspace.runs_root)}
    assert findings.keys() == {"ok", "note", "problem"}
    assert "step 10 is intact" in findings["problem"].text and findings["problem"].fix
    assert "new has no checkpoint" in findings["note"].text
    damage(oldest / "model.safetensors", "gone")
    levels = [finding.level for finding in doctor.check_runs(workspace.runs_root)]
    assert levels.count("problem") == 1
    shutil.move(run, workspace.runs_root / "study-a" / "tiny")  # as studies have them
    levels = [finding.level for finding in doctor.check_runs(workspace.runs_root)]
    assert levels.count("problem") == 1


def on_disk(tmp_path: Path, options: str) -> Finding:
    """What `check_folder` finds in a folder on a disk of its own."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    script = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    before = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(mounted)]
    try:
        subprocess.run([*before, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a disk needs the administrator here")
    code = (
        "import dataclasses, json, pathlib; from sri_cli.doctor import check_folder;"
        f"(f,) = check_folder('data folder', '--data-root', pathlib.Path({str(mounted)!r}));"
        "print(json.dumps(dataclasses.asdict(f)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*before, sys.executable, "-c", code]
    return Finding(**json.loads(subprocess.run(words, env=env, capture_output=True).stdout))


@pytest.mark.parametrize(("options", "essential"), [("ro,size=1m", True), ("size=1m", False)])
def test_a_read_only_and_a_tiny_disk(tmp_path: Path, options: str, essential: bool) -> None:
    finding = on_disk(tmp_path, options)
    assert (finding.level, finding.essential) == ("problem", essential)
    assert "--data-root" in finding.fix


def test_folders_that_do_not_exist_or_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    assert only(doctor.check_folder("data folder", "--data-root", folder)).level != "problem"
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").write_text("")
    assert only(doctor.check_folder("data folder", "--data-root", folder)).essential
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    assert only(doctor.check_folder("runs folder", "--runs-root", tmp_path / "lost")).essential
    (tmp_path / "x.h5").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    data = only(doctor.check_folder("data folder", "--data-root", tmp_path))
    assert (data.level, data.essential) == ("note", False)  # of others, and only read
    assert only(doctor.check_folder("runs folder", "--runs-root", tmp_path)).essential


@pytest.mark.parametrize(
    ("gpus", "driver", "cuda", "level"),
    [
        ({}, None, None, "ok"),
        ({}, "H100", None, "note"),
        ({}, "H100", "13.0", "problem"),
        ({"H100, 80 GB": None}, "H100", "13.0", "ok"),
        ({"K80, 10 GB": "no kernel"}, "K80", "13.0", "problem"),
    ],
)
def test_gpus(gpus: dict, driver: str | None, cuda: str | None, level: str) -> None:
    device = only(doctor.check_devices(gpus, driver, cuda))
    assert device.level == level and (level == "ok") == (device.fix == "")


def test_a_check_that_fails_is_a_finding(tmp_path: Path) -> None:
    too_long = tmp_path / ("n" * 300)
    assert only(doctor.guarded("data", lambda: doctor.check_data(too_long))).level == "problem"


def test_inception_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SRI_INCEPTION_WEIGHTS", raising=False)
    assert only(doctor.check_weights()).level == "note"
    file = tmp_path / "weights.pth"
    monkeypatch.setenv("SRI_INCEPTION_WEIGHTS", str(file))
    missing = only(doctor.check_weights())
    assert missing.level == "problem" and str(file) in missing.text
    file.write_bytes(b"other weights")
    damaged = only(doctor.check_weights())
    assert damaged.level == "problem" and str(file) in damaged.text and damaged.fix
    assert list(tmp_path.iterdir()) == [file]
