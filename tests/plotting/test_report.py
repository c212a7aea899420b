"""`sri report`: one file, nothing outside it, no script; what is missing is named."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe, recipe_to_yaml
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.trained_run import open_run
from sri_cli.metrics.records import append_records, run_subject
from sri_cli.plotting.report import FILM_BYTES, make_subjects, render, report_of_runs, walks
from sri_cli.plotting.report_commands import eval_words
from sri_cli.run import Workspace
from tests import small_cli
from tests.damage import damage, largest_file
from tests.small_browser import CONTRAST, DESKTOP, ENOUGH, PHONE, Page
from tests.small_data import write_log, write_run
from tests.small_measurements import ARI, TINY, measured

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}"
sri = partial(small_cli.sri, "report")


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def record(workspace: Workspace, run: str, value: float = 0.5) -> None:
    """ARI-FG of the run's newest checkpoint."""
    trained, data = open_run(workspace, run), {"name": "demo-towers", **TINY}
    subject, interval = run_subject(trained), (value - 0.1, value + 0.1)
    line = measured(*ARI, value, interval=interval, data=data, **subject)
    line |= {"counts": {"images": 12}, "protocol": "strongest decoded mask"}
    append_records(trained.run_dir, [line | {"warning": "few images"}])


def write_walk(run_dir: Path, name: str = "walk.gif") -> None:
    """A short film, as `sri walk` leaves it."""
    (run_dir / "figures").mkdir(exist_ok=True)
    frames = [Image.fromarray(np.full((40, 60, 3), 20 * i, np.uint8)) for i in range(8)]
    path = run_dir / "figures" / name
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def words(path: Path) -> str:
    """The page without its markup."""
    html = path.read_text("utf-8").split("</style>")[1]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def images(path: Path) -> list[dict[str, Any]]:
    return [a for tag, a in Tags(path.read_text("utf-8")).seen if tag == "img"]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"SAMPLES": 8, "ORDER_SCENES": 2, "TEST_IMAGES": 2}.items():
        monkeypatch.setattr(f"sri_cli.plotting.report.{name}", number)


@pytest.fixture
def tiny(workspace: Workspace) -> Path:
    """A run with everything that a report can show."""
    run = workspace.runs_root / "tiny"
    write_log(run)
    record(workspace, "tiny")
    write_walk(run)
    (run / "command.txt").write_text("sri train --recipe sri-mog\n")
    return run


@pytest.mark.parametrize("text", ["A <demo>", HOSTILE, "</style></title>\x00\ud800&amp;"])
def test_no_text_can_run_or_load_anything(text: str) -> None:
    def page(text: str) -> str:
        figure = dict.fromkeys(("caption", "alt"), text) | {"source": "data:image/png;base64,AA"}
        part = {"title": text, "text": text, "facts": [(text, text)], "notes": [text]}
        part |= {"figures": [figure | {"width": 1, "height": 1, "film": "data:image/gif;base64,"}]}
        part |= {"tables": [{"header": ["", text], "rows": [[text, text]], "caption": text}]}
        part |= {"code": text, "folded": text}
        sections = [{**part, "parts": [part]}]
        top = {"title": text, "lead": text, "facts": [(text, text)], "sections": sections}
        return render(top).decode()

    html = page(text)
    tags = Tags(html).seen
    assert [tag for tag, _ in tags] == [tag for tag, _ in Tags(page("plain")).seen]
    for tag, attributes in tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search(r"url\(|@import|https?://", html)
    assert ("{{ 7 * 7 }}" in html) == ("{{" in text)


def test_only_the_style_of_the_page_is_allowed() -> None:
    html = render({"title": "x", "sections": []}).decode()
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert style and policy and policy[1].startswith("default-src 'none'; img-src data:; ")
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy[1] and "unsafe" not in policy[1]


def test_a_whole_report(workspace: Workspace, tiny: Path) -> None:
    path = report_of_runs(workspace, ["tiny"])
    assert path == tiny / "report-001.html" and path.with_suffix(".json").is_file()
    shown = images(path)
    # Two grids of samples and one of real images, the order, test images, a walk and its film,
    # five charts, the data.
    assert len(shown) == 13 and all(image["alt"] for image in shown)
    for image in shown:
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        with Image.open(io.BytesIO(data)) as inside:
            assert inside.width in (int(image.get("width") or 60), 2 * int(image.get("width") or 0))
    text = words(path)
    for needed in (
        *("0.500 [0.400, 0.600]", "† ARI-FG: few images", "strongest decoded mask", "12 images"),
        *("sri train --recipe sri-mog", "eval --run tiny --metrics ari --num 12"),
        *("figure reconstructions --run tiny", "prepare shapestacks --preset demo"),
        *("2026-01-02 03:04 UTC", "10 of", "0.025 at step 40"),
    ):
        assert needed in text or any(needed in image["alt"] for image in shown), needed
    levels = [int(tag[1]) for tag, _ in Tags(path.read_text()).seen if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    code = unescape(re.findall(r"<pre><code>(.*?)</code></pre>", path.read_text(), re.S)[0])
    (tiny / "again.yaml").write_text(code)
    again = load_recipe(str(tiny / "again.yaml"))
    assert recipe_to_yaml(again) == recipe_to_yaml(open_run(workspace, "tiny").recipe)


def test_what_is_missing_is_named_with_its_command(workspace: Workspace) -> None:
    workspace.data_path("demo-towers", 32).unlink()
    path = report_of_runs(workspace, ["other"])
    text = words(path)
    for needed in ("sri eval --run", "sri walk --run", "sri prepare shapestacks", "command.txt"):
        assert needed in text, needed
    assert len(images(path)) == 3


def test_damaged_files_are_named(workspace: Workspace, tiny: Path) -> None:
    (tiny / "figures" / "walk-slot-2.gif").write_bytes(b"GIF89a")
    (tiny / "figures" / "walk-large.gif").write_bytes(
        (tiny / "figures" / "walk.gif").read_bytes() + b"\0" * FILM_BYTES
    )
    damage(workspace.data_path("demo-towers", 32), "cut")
    for name in ("log.jsonl", "metrics.jsonl"):
        with open(tiny / name, "a") as file:
            file.write('{"step": 4')
    path = report_of_runs(workspace, ["tiny"])
    text = words(path)
    for needed in ("walk-slot-2.gif", "walk-large.gif", "demo-towers-32.h5", "0.500", "2026-01-02"):
        assert needed in text, needed
    assert path.stat().st_size < FILM_BYTES


def test_measurements_of_other_weights_are_not_shown(workspace: Workspace, tiny: Path) -> None:
    write_run(tiny, "genesis-v2", step=20)
    text = words(report_of_runs(workspace, ["tiny"]))
    assert "20 of" in text and "0.500" not in text and "(1 of other checkpoints)" in text
    assert "--run tiny" in text


def test_films_of_other_weights_are_known_by_their_records(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without a record by their time."""
    monkeypatch.setattr("sri_cli.plotting.report.FILMS", 6)
    run = workspace.runs_root / "tiny"
    own, other = {"model": run_subject(open_run(workspace, "tiny"))["model"]}, {"model": "f" * 64}
    films = {
        "own": (own, True),
        "other": (other, False),
        "both": ({"runs": [other, own]}, True),
        "old": (None, True),
        "new": (None, False),
        "spoiled": ([], False),
    }
    for name, (about, is_old) in films.items():
        write_walk(run, f"walk-{name}.gif")
        film = run / "figures" / f"walk-{name}.gif"
        if about is not None:
            film.with_suffix(".json").write_text(json.dumps(about))
        if is_old:
            os.utime(film, (0, 0))
    (subject,) = make_subjects([open_run(workspace, "tiny")])
    captions = [figure["caption"] for figure in walks(subject, False)["figures"]]
    marked = {caption.split(".gif")[0] for caption in captions if "other weights" in caption}
    assert len(captions) == 6 and marked == {"walk-other", "walk-old"}


def test_the_commands_of_an_earlier_checkpoint_name_it(workspace: Workspace, tiny: Path) -> None:
    write_run(tiny, "sri", step=20)
    earlier = tiny / "checkpoints" / "step-000000010"
    text = words(report_of_runs(workspace, [str(earlier)]))
    assert "newest" not in text and "--run tiny" not in text
    for verb in ("sample", "order", "eval"):
        assert f"{verb} --run {earlier}" in text, verb


def test_several_runs_and_their_differences(workspace: Workspace, tiny: Path, here: Path) -> None:
    record(workspace, "other", 0.25)
    path = report_of_runs(workspace, ["tiny", "other", "tiny"])
    assert path == Path("report-001.html")
    runs = json.loads(path.with_suffix(".json").read_bytes())["runs"]
    assert [Path(run["run"]).name for run in runs] == ["tiny", "other"]
    assert report_of_runs(workspace, ["tiny"], here / "x.html") == here / "x.html"
    text = words(path)
    assert text.startswith("tiny, other")
    assert "model.system sri genesis-v2" in text
    assert "model.cross_order True -" in text  # GENESIS-v2 has none
    assert "model.slots " not in text  # the same in both
    assert "ARI-FG 0.500 [0.400, 0.600]† 0.250 [0.150, 0.350]†" in text
    assert sum("training images" in image["alt"] for image in images(path)) == 1


def test_runs_of_one_recipe_on_other_images_differ(
    workspace: Workspace, tiny: Path, tmp_path: Path
) -> None:
    """Checkpoints of version 0.1 name the recipe's data set, whatever the images were."""
    shutil.copytree(tiny, workspace.runs_root / "again")
    for run, name in (("tiny", "demo-towers"), ("again", "mypics")):
        saved = checkpoints.newest_good(workspace.runs_root / run)
        extra = {"data": {"name": name, "images": 24, "content": f"hash-of-{name}"}}
        path = workspace.runs_root / run
        checkpoints.save(path, saved.step, saved.weights(), saved.recipe, {}, extra)
    text = words(report_of_runs(workspace, ["tiny", "again"], tmp_path / "both.html"))
    assert "data demo-towers mypics" in text
    assert "data.content hash-of-demo-towers hash-of-mypics" in text
    assert "data.images" not in text  # the same in both


def test_many_runs_have_unique_names(workspace: Workspace, tiny: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(tiny, again)
    names = [f"run-{i}" for i in range(2)]
    for name in names:
        shutil.copytree(tiny, workspace.runs_root / name)
    path = report_of_runs(workspace, ["tiny", str(again), *names], tmp_path / "all.html")
    heads = re.findall(r"<thead>(.*?)</thead>", path.read_text("utf-8"), re.S)
    columns = [re.findall(r"<th scope=\"col\">([^<]+)", head) for head in heads]
    assert columns == [[str(tiny), str(again), *names]] * 2  # of the runs and their measurements
    assert "1 more" in words(path)


def test_commands_name_a_run_of_the_current_folder_by_its_path(
    here: Path, workspace: Workspace, tiny: Path
) -> None:
    """Its name alone would be that of the run in the runs folder."""
    shutil.copytree(tiny, here / "tiny")
    for unknown in ("metrics.jsonl", "figures/walk.gif"):
        (here / "tiny" / unknown).unlink()
    text = words(report_of_runs(workspace, ["./tiny"], here / "x.html"))
    for verb in ("sample", "eval", "walk"):
        assert f"{verb} --run ./tiny" in text and f"{verb} --run tiny" not in text


def test_eval_commands_repeat_the_options() -> None:
    def one(metric: str, count: dict[str, int], split: str = "test", seed: int = 0) -> dict:
        name = "FD-random-inception" if metric == "fid" else metric
        data = {"split": split}
        what = {"metric": metric, "name": name, "counts": count, "data": data, "seed": seed}
        return what | {"slots": 5}

    own, other = {"name": "rooms", "split": "test"}, {"name": "six", "split": "test"}
    records = [
        one("term_nll", {"images": 320}) | {"data": own},
        one("ari_fg", {"images": 320}) | {"data": other},
        one("ari_fg", {"images": 320}) | {"slots": None},
        one("matching_hungarian_elbo", {"images": 320}) | {"slots": None},
        one("ari_fg_attention", {"images": 320}),
        one("ari_fg_several", {"images": 212}),
        one("order_iou_shuffled", {"scenes": 50}, seed=3),
        one("fid", {"real": 9, "generated": 10}, "val"),
        one("sacc", {"scenes": 100}),
    ]
    window = {"name": "rooms", "split": "test", "sha256": "b2"}
    assert eval_words([one("ari_fg", {}) | {"data": window}], "--run x", "rooms", "a1") == [
        "eval --run x --metrics ari --data rooms"
    ]
    assert eval_words(records, "--run x", "rooms", "a1") == [
        "eval --run x --metrics ari,elbo --num 320",
        "eval --run x --metrics ari --num 320 --data six",
        "eval --run x --metrics ari,matching --num 320 --dynamic-slots",
        "eval --run x --metrics order --num 50 --seed 3",
        "eval --run x --metrics fid --num 10 --split val --features random",
    ]


def test_the_command_prints_the_path(workspace: Workspace, here: Path) -> None:
    result = sri("--out", "new/a.html")
    assert (result.exit_code, result.stdout) == (0, "new/a.html\n"), result.output
    assert [path.name for path in Path("new").iterdir()] == ["a.html"]


def test_failures_leave_the_report_before_as_it_was(workspace: Workspace) -> None:
    path = report_of_runs(workspace, ["tiny"])
    before, around = path.read_bytes(), sorted(path.parent.iterdir())
    with largest_file(1000), pytest.raises(SriFailure, match=r"report-001\.html"):
        report_of_runs(workspace, ["tiny"])
    damage(next(path.parent.glob("checkpoints/*/model.safetensors")), "cut")
    with pytest.raises(SriError, match="tiny"):
        report_of_runs(workspace, ["tiny"])
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == around


def test_the_page_in_a_browser(driver: Any, workspace: Workspace, tiny: Path) -> None:
    """On a desk, on a phone, in dark mode and in print."""
    hostile = f"<script>alert('1')<{'a_very_long_name' * 8}"
    tiny = tiny.rename(workspace.runs_root / hostile)
    path = report_of_runs(workspace, [hostile, "other"], tiny / "all.html")
    html = unescape(path.read_text("utf-8"))
    assert f"--run {shlex.quote(hostile)}" in html
    beyond = """return [...document.querySelectorAll("body *")]
      .filter((element) => !element.closest(".scroll") && element.getBoundingClientRect().right
        > document.documentElement.clientWidth + 1).map((e) => e.outerHTML.slice(0, 100))"""
    for size in (DESKTOP, PHONE):
        for dark in (False, True):
            page = Page(driver).open(path.as_uri(), size, dark)
            assert page.js("return document.documentElement.scrollWidth") <= size[0]
            assert page.js(beyond) == []
            assert page.js("return [...document.images].every((i) => i.naturalWidth > 0)")
            assert page.js(CONTRAST)[0] >= ENOUGH
            assert page.complaints() == []
    links = "return [...document.links].every((link) => document.querySelector(link.hash))"
    assert page.js(links)
    assert not page.shown(".film img")
    page.click(".film summary")
    assert page.shown(".film img")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        background = "return getComputedStyle(document.body).backgroundColor"
        assert page.js(background) == "rgb(255, 255, 255)" and page.js(CONTRAST)[0] >= ENOUGH
        assert page.shown("details:not(.film) pre") and not page.shown("nav")
        printed = driver.execute_cdp_cmd("Page.printToPDF", {})["data"]
        assert base64.b64decode(printed).startswith(b"%PDF")
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
