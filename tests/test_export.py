"""Exported models: what is in the folder, and that it opens again from disk and from a hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.errors import SriError
from sri_cli.export import export, halved
from sri_cli.generation.trained_run import open_run
from sri_cli.hub import CONFIG, opened_from
from sri_cli.metrics.records import run_subject
from sri_cli.run import Workspace
from tests.damage import largest_file
from tests.small_cli import ENVIRONMENT, finish, sri, sri_json, start
from tests.small_measurements import measured

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEASURED = ("ari_fg", "stack_fd")
TEXT = (".json", ".yaml", ".jsonl", ".txt", ".md")


@pytest.fixture
def runs(workspace: Workspace, here: Path) -> Workspace:
    """`tiny` with all that a trained run has; the current folder is that of data and runs."""
    run = workspace.runs_root / "tiny"
    found = checkpoints.newest_good(run)
    data = workspace.data_path("demo-towers", 32)
    content = str(open_run(workspace, "tiny").open_data().attrs["sha256"])[:16]
    extra = {
        "data": {"name": "demo-towers", "images": 24, "content": content},
        "source": {"file": str(data), "caption": "towers"},
        "precision": "fp32",
    }
    checkpoints.save(run, 20, found.weights(), found.recipe, {"step": 20}, extra)
    (run / "command.txt").write_text("sri train --run tiny\n")
    (run / "log.jsonl").write_text('{"step": 20}\n{"step": 30}\n')
    return Workspace(Path("data"), Path("runs"))


@pytest.fixture
def exported(runs: Workspace) -> Path:
    return export(runs, "tiny", Path("model"))


def images(run: str) -> np.ndarray:
    """Four samples of a run, and that the command succeeds."""
    sri("sample", "--run", run, "--num", "4", "--out", f"samples-{abs(hash(run))}", code=0)
    paths = sorted(Path(f"samples-{abs(hash(run))}").glob("images/*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_an_exported_model_gives_the_same_numbers_and_stays_as_it_is(exported: Path) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert (images("tiny") == images("model")).all()
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    (copy,) = Path("runs").glob("model-*")
    assert opened_from(copy) is not None and checkpoints.newest_good(copy).step == 20
    assert sri("sample", "--num", "1").exit_code == 0  # the latest run is no copy
    assert not (copy / "samples").exists() and (Path("runs/tiny") / "samples").exists()
    assert sri("train", "sri-mog", "--run", str(copy), "--data", "demo-towers").exit_code == 2


def test_what_is_in_the_folder(runs: Workspace, exported: Path) -> None:
    texts = {p.name: p.read_text() for p in exported.iterdir() if p.suffix in TEXT}
    assert not [name for name, text in texts.items() if str(Path.cwd()) in text]  # no local paths
    config = json.loads(texts[CONFIG])
    assert config["files"].keys() == {"model.safetensors"} and config["step"] == 20
    assert config["extra"]["data"]["name"] == "demo-towers"
    commands = (exported / "command.txt").read_text().splitlines()
    assert commands[0].startswith("sri prepare shapestacks --preset demo --size 32")
    assert commands[1:] == ["sri train --run tiny"] == config["extra"]["commands"][1:]
    assert (exported / "log.jsonl").read_text() == '{"step": 20}\n'
    assert Image.open(exported / "samples.png").width > 8 * 32
    assert not (exported / "state.pt").exists()
    runs.data_path("demo-towers", 32).unlink()
    again = export(runs, "model", Path("again"))  # nothing is lost on the way
    for name in (*(texts.keys() - {"README.md"}), "model.safetensors"):  # its title is the folder
        assert (again / name).read_bytes() == (exported / name).read_bytes(), name


def test_the_card_is_one_of_the_hub_and_has_the_measurements(runs: Workspace) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    trained = open_run(runs, "tiny")
    subject = run_subject(trained)
    records = [measured(metric, metric, 0.25, data={"name": "towers"}) for metric in MEASURED]
    records = [record | {"subject": subject} for record in records]
    path = trained.run_dir / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    sri("export", "--run", "tiny", "--license", "cc-by-4.0", "model", code=0)
    card = huggingface_hub.ModelCard.load("model/README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "sri-cli")
    assert card.data.pipeline_tag == "unconditional-image-generation"
    values = {one.metric_type: one for one in card.data.eval_results}
    assert values.keys() == set(MEASURED) and values["ari_fg"].dataset_split == "test"
    for record in records:
        own = values[record["metric"]]
        assert own.metric_value == record["value"]
        assert own.metric_args["protocol"] == record["protocol"] and record["protocol"] in card.text
    assert "emami2024towards" in card.text and "samples.png" in card.text
    shown = sri_json("eval", "--recorded", "--run", "model")["results"]
    assert {m["metric"]: m["value"] for m in shown} == {m["metric"]: m["value"] for m in records}


def test_what_is_measured_on_the_way_is_of_the_exported_weights(runs: Workspace) -> None:
    assert sri("export", "--run", "tiny", "--metrics", "aris", "model").exit_code == 2
    ari = ("eval", "--run", "tiny", "--metrics", "ari", "--num", "8")
    half = ("export", "--run", "tiny", "--half", "--metrics", "order", "model")
    for words in (ari, half):
        sri(*words, code=0)
    shown = sri_json("eval", "--recorded", "--run", "model")["results"]
    assert {m["metric"] for m in shown} >= {"order_iou", "order_information"}
    assert "order MI" in (Path("model") / "README.md").read_text()
    found = sri_json("runs", "diff", "tiny", "tiny")
    assert "ari_fg" in (of_run := {m["metric"] for m in found["metrics"][0]})
    assert "order_iou" not in of_run


def test_half_precision(runs: Workspace) -> None:
    out = export(runs, "tiny", Path("half"), half=True)
    before, after = open_run(runs, "tiny"), open_run(runs, str(out))
    for name, value in after.model.state_dict().items():
        assert torch.equal(value, before.model.state_dict()[name].half().to(value.dtype)), name
    twice = export(runs, str(out), Path("twice"))
    assert (twice / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    with pytest.raises(SriError, match=": a"):
        halved({"a": torch.tensor([1e5]), "b": torch.tensor([1.0])})


def test_the_folder_is_complete_or_absent(runs: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("full").mkdir()
    (Path("full") / "note").touch()
    assert sri("export", "--run", "tiny", "full").exit_code == 2
    assert sri("export", "--run", "nothing", "model").exit_code == 2
    with largest_file(10_000):
        assert sri("export", "--run", "tiny", "model").exit_code == 1
    assert not [path for path in Path().iterdir() if "model" in path.name]
    Path("here").mkdir()
    monkeypatch.chdir("here")
    runs_root = ["--runs-root", "../runs", "--data-root", "../data"]
    assert sri(*runs_root, "export", "--run", "tiny", ".").exit_code == 0
    assert Path(CONFIG).is_file()


# What is refused


def rewrite(folder: Path, **changed: Any) -> None:
    """A config.json whose own digest fits."""
    config = json.loads((folder / CONFIG).read_bytes())
    del config["sha256"]
    config |= changed
    digest = checkpoints.sha256(json.dumps(config, sort_keys=True).encode())
    (folder / CONFIG).write_text(json.dumps(config | {"sha256": digest}))


def link_out(folder: Path, name: str = "log.jsonl") -> None:
    """A file that is a link to one outside of the folder."""
    outside = folder.parent.absolute() / "secret"
    outside.write_bytes((folder / name).read_bytes())
    (folder / name).unlink()
    (folder / name).symlink_to(outside)


def pickle_for_safetensors(folder: Path) -> None:
    torch.save({"a": torch.ones(1)}, folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    rewrite(folder, files={"model.safetensors": hashlib.sha256(data).hexdigest()})


def other_tensors(folder: Path) -> None:
    data = checkpoints.weights_bytes({"a": torch.ones(1)})
    (folder / "model.safetensors").write_bytes(data)
    rewrite(folder, files={"model.safetensors": checkpoints.sha256(data)})


def escapes(folder: Path) -> None:
    (folder / "command.txt").write_text("sri train \x1b[2J\n")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "foreign": lambda folder: (folder / CONFIG).write_text('{"model_type": "bert"}'),
    "no json": lambda folder: (folder / CONFIG).write_text("[[[["),
    "a list": lambda folder: (folder / CONFIG).write_text("[1]"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "altered": lambda folder: (folder / "model.safetensors").write_bytes(b"other"),
    "a pickle for safetensors": pickle_for_safetensors,
    "other tensors": other_tensors,
    "another state": lambda folder: rewrite(folder, files={"../../x": "0"}),
    "step": lambda folder: rewrite(folder, step="../../x"),
    "recipe": lambda folder: rewrite(folder, recipe={"name": "x"}),
    "extra": lambda folder: rewrite(folder, extra={"data": 3}),
    "escapes": escapes,
    "long escapes": lambda folder: (folder / "recipe.yaml").write_text('file: "\\U0000001b[2J"\n'),
    "C1 controls": lambda folder: (folder / "command.txt").write_bytes(b"sri train \xc2\x9b2J\n"),
    "a return in JSON": lambda folder: rewrite(folder, extra={"source": {"caption": "x\ry"}}),
    "a bare return": lambda folder: (folder / "command.txt").write_bytes(b"sri train\rx\n"),
    "a link out": link_out,
    "a link to nothing": lambda folder: (folder / "metrics.jsonl").symlink_to("nothing"),
    "weights linked out": lambda folder: link_out(folder, "model.safetensors"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_refused(exported: Path, how: str) -> None:
    HOSTILE[how](exported)
    result = sri("sample", "--run", "model", "--num", "1", code=2)
    assert len(result.stderr.splitlines()) == 2 and "Traceback" not in result.stderr
    assert not list(Path("runs").rglob("samples"))


def test_line_ends_that_git_changed_are_those_of_before(exported: Path) -> None:
    shutil.copytree(exported, Path("windows") / "model")
    for path in (Path("windows") / "model").iterdir():
        if path.suffix in TEXT:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert sri("sample", "--run", "windows/model", "--num", "1").exit_code == 0
    (copy,) = Path("runs").glob("model-*")
    texts = [path for path in copy.rglob("*") if path.suffix in TEXT]
    assert len(texts) > 3 and not [path for path in texts if b"\r" in path.read_bytes()]


# Through huggingface_hub, from a server that speaks its protocol


class Hub(ThreadingHTTPServer):
    """Serves `folder` as the repository me/model, at COMMIT and its names main and v1."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.folder = folder
        self.served: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {p.name: p.read_bytes() for p in sorted(self.server.folder.iterdir())}
        revision = re.fullmatch(r"/api/models/me/model/revision/(.+)", path)
        content = re.fullmatch(rf"/me/model/resolve/{COMMIT}/(.+)", path)
        if revision and revision[1] in ("main", "v1", COMMIT):
            siblings = [{"rfilename": name} for name in files]
            self.answer({"id": "me/model", "sha": COMMIT, "siblings": siblings})
        elif path == f"/api/models/me/model/tree/{COMMIT}":
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": etag(data)}
                    for name, data in files.items()
                ]
            )
        elif content and content[1] in files:
            if self.command == "GET":
                self.server.served.append(content[1])
            self.answer(files[content[1]])
        else:
            missing = "RevisionNotFound" if revision else "RepoNotFound"
            self.answer({"error": "not found"}, 404, {"X-Error-Code": missing})

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        known = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, "ETag": etag(body)}
        known["Content-Type"] = "application/json"
        for name, text in {**known, **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(exported: Path) -> Iterator[Hub]:
    (exported / "evil.pkl").write_bytes(b"never fetched")
    server = Hub(exported)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def find(specs: list[str], **environment: str) -> list[Any]:
    """What `--run SPEC` means in a new process: the checkpoint, or the exit code."""
    code = """
import json, sys
from pathlib import Path
from sri_cli.errors import SriError
from sri_cli.run import Workspace
for spec in sys.argv[1:]:
    try: print(json.dumps(str(Workspace(Path("data"), Path("runs")).find_run(spec).checkpoint)))
    except SriError as error: print(json.dumps([error.exit_code, error.message]))
assert "torch" not in sys.modules
"""
    environment["HF_HOME"] = str(Path("hf").absolute())
    process = start(*specs, code=code, env=os.environ | ENVIRONMENT | environment)
    return [json.loads(line) for line in finish(process)[0].splitlines()]


def test_a_model_of_the_hub(
    hub: Hub, exported: Path, runs: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    checkpoint = f"runs/me--model-{COMMIT[:8]}/checkpoints/step-000000020"
    asked = [
        "hf:me/model",
        f"hf:me/model@{COMMIT}",
        "hf:me/model@v2",
        "hf:me/other",
        "hf:me",
        "hf:",
    ]
    found = find([*asked, "hf:../x/y@z"], HF_ENDPOINT=hub.url)
    assert found[:2] == [checkpoint, checkpoint]
    assert [code for code, _ in found[2:]] == [2, 2, 2, 2, 2]
    assert "v2" in found[2][1] and "me/other" in found[3][1]
    assert "evil.pkl" not in hub.served and "samples.png" not in hub.served
    assert len(hub.served) == len(set(hub.served))  # the second time all is in the cache
    # Without a network: from the cache, by the library's own flag and without it.
    gone = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for flags in ({"HF_HUB_OFFLINE": "1"}, gone):
        *cached, [code, _] = find(["hf:me/model", f"hf:me/model@{COMMIT}", "hf:a/b"], **flags)
        assert cached == [checkpoint, checkpoint] and code == 1
    # Used by a verb: equal numbers, and the record names the commit; the cache stays as it is.
    cache = Path("hf/hub").absolute()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = sorted(cache.rglob("*"))
    assert (images("tiny") == images("hf:me/model")).all()
    assert sri("sample", "--run", "hf:me/model", "--num", "1").exit_code == 0
    (record,) = Path(f"runs/me--model-{COMMIT[:8]}/samples").glob("0*/sample.json")
    assert json.loads(record.read_text())["opened_from"] == f"hf:me/model@{COMMIT}"
    assert sorted(cache.rglob("*")) == before
    words = ["train", "sri-mog", "size=tiny", "model.slots=3", "model.slot_size=16"]
    words += ["model.scene_size=16", "--init-from", "hf:me/model", "--data", "demo-towers"]
    sri(*words, "--run", "runs/started", "--steps", "1", "train.batch=4", code=0)
    saved = checkpoints.newest_good(Path("runs/started"))
    assert saved.extra["started_from"]["opened_from"] == f"hf:me/model@{COMMIT}"
    # The folder of the snapshot is a local exported model, too; a link out of the cache is refused.
    (snapshot,) = cache.glob("models--me--model/snapshots/*")
    assert sri("runs", "diff", str(snapshot), "hf:me/model", "--json").exit_code == 0
    shutil.copy(snapshot / "log.jsonl", "secret")
    (snapshot / "log.jsonl").unlink()
    (snapshot / "log.jsonl").symlink_to(Path("secret").absolute())
    assert sri("sample", "--run", "hf:me/model").exit_code == 2


def test_without_the_package_the_extra_is_named(
    runs: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "sri-cli[hub]" in sri("sample", "--run", "hf:me/model", code=2).stderr
