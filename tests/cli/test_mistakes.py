"""Wrong command lines: exit code 2, an error of two lines that names what is wrong, no new file."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from sri_cli.run import Workspace
from tests.small_cli import sri
from tests.small_data import save_image, write_images

# After -> is what the error names, after => what the hint does; by default it is what is in [], or
# the last word, in the error.
MISTAKES = """
figure [sampels]
figure -> 'NAME'
figure samples --run [tinny]
figure samples --out [x.jpg]
figure samples --out [data]
figure samples --temp 0
figure samples --seed -1
figure samples [--split] val
figure samples --scale big
figure samples --scale 0.05x
figure samples --scale 1
figure samples --scale 50x
figure reconstructions --split [tset]
figure segmentation [--slots] 9
figure matching --run [other]
figure matching --split [tset]
figure matching [--slots] 9
figure curves --scale 64
figure curves [--num] 9
figure curves -> log
figure table -> measured
order --num 1
order --out [x.jpg]
edit [delete]
edit remove --slot 4
edit remove [--slots] 1
edit remove [--slot] 1 --slot 2 --slot 3
edit remove --slots 40 -> page
edit remove --num 17 -> page
edit remove --slots 0
edit remove --image [nowhere.png]
edit remove --image [data/demo-towers-32.h5]
edit remove --index [17]
edit remove --index [0]
edit remove --index 1 [--num] 3
edit remove --index 1 [--slots] 4
edit remove --index 1 [--temp] 0.5
edit remove --index 1 [--image] a.png
edit remove [--variants] 3
edit remove --out [a.jpg]
edit reimagine --variants 0
edit exchange --num 3
walk --num 37
walk --fps 100
walk --slot 6 --slots 5
walk --between 0 0
walk --between -1 0
walk --between 0 1 [--slot] 1
walk --between 0 1 [--seed] 5
walk --slots 0
walk --run other [--between] 0 1
walk --out [a.avi]
sample --slots 0
sample --temp 0
sample --num -3
sample --seed -1
sample --run [tinny]
eval [--num 0]
eval [--num -5]
eval --metrics stack-fd --num 1 -> 1 generated
eval --metrics ari,shapes --num 1 -> 1 generated
eval --metrics fdi -> fid
eval --metrics ' ,' -> metric
eval --metrics ari [--features] random
eval --offline
eval --recorded [--num] 5
eval --recorded [--seed] 0
eval --recorded --metrics ari -> with --recorded
eval --split tset
eval --run nowhere
eval --run tiny --run tinny
eval --data missing.h5
eval --metrics fid --offline
eval --metrics fid --inception-weights data/demo-towers-32.h5 -> towers-32.h5
eval --images nowhere
eval --images data --data demo-towers -> no `images`
eval [--images] data --recorded
label-sacc [--num 0]
label-sacc --rater a/b
label-sacc --run tinny
label-sacc --run young
label-sacc --run tiny --run tiny
label-sacc --run tiny --images large -> 48 px
label-sacc --images nowhere
label-sacc --images empty
label-sacc --images mixed
label-sacc --data nowhere.h5
label-sacc --summary -> labels
label-sacc --summary [--port] 0
label-sacc --summary [--num] 100
label-sacc --summary --run tiny -> no scenes of tiny
label-sacc --summary --images empty
report --run tinny -> tiny
report --run tiny --run otter -> other
report --out runs
report --out runs/tiny/log.jsonl -> log.jsonl
bench train --seconds 0 -> --seconds
bench train --recipe sri-mog size=tiny train.bacth=2 -> train.batch
bench train --recipe sri-mog size=tiny --gpus two
bench train --recipe sri-mog size=tiny [--gpus 640]
bench train --recipe sri-mog size=tiny --gpus 1,64 --backend gloo -> 64
bench train --recipe sri-mog size=tiny --gpus 1,2 --profile
bench data --recipe sri-mog size=tiny --data nothing.h5
bench sample --recipe sri-mog size=tiny [--gpus] 2
train sri-mog size=tiny --data demo-towers [--gpus 2]
train sri-mog size=tiny --data demo-towers --gpus many
train sri-mog size=tiny --data demo-towers [--threads 0]
train sri-mog size=tiny --data demo-towers [--threads all]
train sri-mog size=tiny --data demo-towers --steps 0 -> train.steps
train sri-mog size=tiny --data demo-towers --seed -1 -> train.seed
train sri-mog size=tiny --data demo-towers train.batch=25 -> 25
train sri-mog size=tiny --data nothing.h5
train sri-mog size=tiny --data nonsense
train sri-mog size=tiny model.image_size=64 -> data/shapestacks-64.h5
study => order-and-scene
study order-and-scene --only sri-mgo -> sri-mgo (did you mean sri-mog?)
study order-and-scene --seeds 0,44 -> 44
study order-and-scene --seeds 0,x -> x
study order-and-scene [--only] ''
study order-and-scene [--jobs 0]
study order-and-scene --executor local --slurm tme=3 -> did you mean time?
study order-and-scene --executor local --slurm [time=0]
study order-and-scene --executor local --slurm time
study order-and-scene [--slurm] time=3
study order-and-scene [--cancel]
study order-and-scene --executor local [--cancel] --dry-run
study order-and-scene --executor local --cancel --only [nobody]
trian -> trian (did you mean train?)
trian => `sri --help` lists the commands
[--dat-root] x recipes
recipes [shw]
recipes shw => see `sri recipes --help`
recipes show -> 'NAME'
recipes show => see `sri recipes show --help`
recipes ls --runs-root x -> --runs-root comes before the command
recipes --debug=1 -> --debug comes before
demo --out new [--steps] 0
demo --out new [--scenes] 0
demo --out new --scenes 1 => --scenes 4
demo --out new --scenes 3 => --scenes 4
prepare -> data set
prepare [--list] shapestacks
prepare show [data/a-8.h5] --size 8
prepare show shapestacks
prepare shapestack -> did you mean shapestacks?
prepare demo-towers => --preset demo
prepare multi-dsprites-binarized => --variant binarized
prepare shapestacks --from bucket
prepare shapestacks --from /no/such
prepare shapestacks --from mirorr -> did you mean mirror?
prepare shapestacks --from mirror --offline -> shapestacks-full.hdf5
prepare shapestacks --from . --split default -> splits/
prepare objects-room --from bucket --offline -> objects_room_train.tfrecords
prepare objects-room --from bucket [--views] 2
prepare objects-room --from bucket [--seed] 2
prepare clevr6 --from mirror --offline -> clevr_10-full.hdf5
prepare clevr6 [--size 5]
prepare clevr10 --from mirror --offline -> clevr_10-full.hdf5
prepare multi-dsprites --from bucket --offline -> grayscale.tfrecords
prepare multi-dsprites --from bucket --variant binarized --offline -> binarized.tfrecords
prepare tetrominoes --from bucket --offline -> tetrominoes_train.tfrecords
prepare tetrominoes --from mirror
prepare clevrtex -> --from
prepare clevrtex --from simulate
prepare folder -> DIR
prepare folder /no/such
prepare shapestacks [--scenes] 0
prepare shapestacks [--views 17]
prepare shapestacks [--seed] -1
prepare shapestacks [--preset] demos
prepare shapestacks --from mirror [--preset] demo
prepare shapestacks [--split ccs_all]
prepare shapestacks --out towers.txt
"""


@pytest.fixture
def folders(workspace: Workspace, here: Path) -> None:
    """A run that has just begun, and folders of images that cannot be labelled."""
    (workspace.runs_root / "young").mkdir()
    (here / "empty").mkdir()
    write_images(here / "large", 3, size=48)
    save_image(write_images(here / "mixed", 3) / "small.png", [[0] * 16] * 16)


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
@pytest.mark.usefixtures("folders")
def test_mistakes_exit_with_2_and_write_nothing(here: Path, line: str) -> None:
    words, arrow, named = re.fullmatch(r"(.*?)(?: ([-=]>) (.*))?", line).groups(default="")
    marked = re.search(r"\[(.*?)\]", words)
    absent = {"prepare": ("data", "runs"), "train": ("runs",), "study": ("runs",)}
    for folder in absent.get(words.split()[0], ()):  # nor are these made
        shutil.rmtree(here / folder)
    before = sorted(here.rglob("*"))
    result = sri(*shlex.split(re.sub(r"[\[\]]", "", words)))
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    *notes, error, hint = result.stderr.splitlines()
    assert error.startswith("Error: ") and hint
    assert all(note.startswith("Note: ") for note in notes)
    named = named or (marked[1] if marked else words.split()[-1])
    assert named in (hint if arrow == "=>" else error)
    assert sorted(here.rglob("*")) == before
