"""The demo: short in the fast suite, whole in the slow one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import Result

from sri_cli.checkpoint import read_meta
from sri_cli.demo import run_demo
from sri_cli.errors import SriError
from sri_cli.hub import CONFIG
from sri_cli.run import SHIPPED
from tests import small_cli

SHORT = ["--steps", "2", "--scenes", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder: Path) -> Result:
    return demo(folder)


def shipped_row() -> str:
    meta = read_meta(SHIPPED["pretrained"], CONFIG)
    side = meta["recipe"]["model"]["image_size"]
    return f"shipped model, {side} px, step {meta['step']:,}"


def demo(folder: Path) -> Result:
    return small_cli.sri("demo", "--out", str(folder / "out"), *SHORT, code=0)


def test_demo_leaves_data_run_and_report(folder: Path, first: Result) -> None:
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["data", "report.html", "runs"]
    assert all(f"[{n}/6]" in first.stderr for n in range(1, 7))
    header, *rows = (line.split("  ") for line in first.stdout.splitlines()[:4])
    assert [name.strip() for name in header if name] == ["stack-FD", "S-Acc estimate %", "order MI"]
    assert [row[0] for row in rows] == ["demo, step 2", shipped_row(), "real images"]
    assert ["(8/8)" in " ".join(row) for row in rows] == [True, False, True]
    next_words = shlex.split(first.stdout.splitlines()[-1])
    assert next_words == ["next:", "sri", "sample", "--run", str(folder / "out" / "runs" / "demo")]


def test_report_stands_alone_and_names_its_source(folder: Path, first: Result) -> None:
    html = (folder / "out" / "report.html").read_text("utf-8")
    assert html.count("<img") == html.count('src="data:image/png;base64,') >= 9
    assert "https://" not in html and "<script" not in html
    captions = " ".join(re.findall(r"<figcaption>(.*?)</figcaption>", html, re.S))
    assert "simulated" in captions and "simulated" in html.partition("<figure")[0]
    for verb in ("prepare shapestacks", "sample", "order", "figure", "eval", "report"):
        assert f"/runs {verb}" in html


def test_the_command_for_its_data_makes_the_same_data(folder: Path, first: Result) -> None:
    html = (folder / "out" / "report.html").read_text("utf-8")
    (line,) = [line for line in html.splitlines() if "/runs prepare" in line]
    words = shlex.split(line.rpartition("<code>")[2])[1:]
    assert "up to date" in small_cli.sri(*words, code=0).stderr


def test_again_it_resumes(folder: Path, first: Result) -> None:
    log = next((folder / "out" / "runs").glob("demo/log.jsonl"))
    before = log.read_text()
    again = demo(folder)
    assert "up to date" in again.stderr and log.read_text() == before


def test_other_numbers_need_another_folder(folder: Path, first: Result) -> None:
    with pytest.raises(SriError, match=r"train 8 -> 9.*\n.*sri demo --out"):
        run_demo(folder / "out", steps=2, scenes=9)


@pytest.mark.slow
def test_whole_demo_draws_plausible_stacks(tmp_path: Path) -> None:
    demo = run_demo(tmp_path / "out")
    own = dict(zip(demo.comparison[0], demo.comparison[1], strict=True))
    assert float(own["S-Acc estimate %"].split()[0]) >= 50 and float(own["stack-FD"]) < 743
    assert demo.run.step == demo.run.recipe.train.steps
