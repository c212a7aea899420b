# ruff: noqa: E501
"""The paper's tables with our runs: whole tables as they are printed, in each style."""

from __future__ import annotations

from typing import Any

import pytest

from sri_cli.metrics.tables import format_paper_tables, paper_tables
from tests.small_measurements import ARI, BITS, FID_COUNTS, ONE, TINY, measured, pictures, printed

SEEDS = [  # means 73 and 0.83; deviations sqrt((9 + 1 + 16) / 2) and 0.02 / sqrt(2)
    *(
        measured("fid", "FID-val", fid, "val", counts=FID_COUNTS, training_seed=seed)
        for seed, fid in enumerate((70, 72, 77))
    ),
    *(
        measured(*BITS, bits, "val", interval=(0.8, 0.9), training_seed=seed)
        for seed, bits in enumerate((0.82, 0.84))
    ),
]
SMALL = [
    measured(
        "fid",
        "FID(500/500)",
        171.23,
        data=TINY,
        size="tiny",
        step=2000,
        counts={"real": 500, "generated": 500},
        warning="500 images are too few.",
    ),
    measured(
        *ARI,
        0.5119,
        data=TINY,
        size="tiny",
        step=2000,
        interval=(0.5, 0.5242),
        counts={"images": 320, "without_foreground": 2},
    ),
]
OTHERS = [
    measured(*ARI, None, data=TINY | {"name": "demo-towers"}, recipe="sri-mog-tiny", step=6000),
    pictures(r"/p/a_b%c#d&e~f^g\h{i}|j"),
]

EACH = [  # a run for each of the four tables; for the second, three of one recipe
    measured("fid", "FID", 90.04, counts=FID_COUNTS, recipe="sri-sa"),
    *(
        measured(*ARI, 0.9512, data={"name": name, "image_size": size}, recipe="emorl")
        for name, size in (("clevr6", 96), ("objects-room", 64), ("shapestacks", 64))
    ),
    measured(*BITS, 0.8312, "val", recipe="sri-g-no-scene"),
    measured(*BITS, 0.9312, "val", recipe="genesis-scene"),
]

EACH_TEXT = """
The paper's Table 1: SRI and SRI on slot attention (ShapeStacks)

model               origin                      FID  ARI-FG  bits/dim
SRI                 published                  71.0    0.78     0.829
SRI-SA              published                 worse   worse     worse
sri-sa, test split  measured (original, n=1)   90.0       -         -

published: as printed in the paper; worse: than SRI, no figure; the split is not named,
  FID and bits/dim are those of Table 4 (validation).
measured: our runs.
sri-sa, test split on shapestacks (original, 64 px): runs/x0; training seed 0; step
  500,000. FID: 10,000 real, 10,000 generated; test split; 9 slots.


The paper's Table 2: samples and segmentation (test split)

CLEVR6
model                 origin                      FID  ARI-FG
EMORL                 published                 244.0    0.96
emorl, 500,000 steps  measured (original, n=1)      -   0.951
GENESIS               published                 116.9    0.82
GENESIS-v2-G          published                  61.0    0.98
SRI-G                 published                  60.6    0.96
GENESIS-v2-MoG        published                  61.0    0.98
SRI-MoG               published                  54.4    0.97
SRI-EMORL             published                  48.9       -

Objects Room
model           origin                      FID  ARI-FG
EMORL           published                 178.3    0.47
emorl           measured (original, n=1)      -   0.951
GENESIS         published                 62.8*   0.63*
GENESIS-v2-G    published                  87.6    0.75
SRI-G           published                  55.7    0.74
GENESIS-v2-MoG  published                 52.6*   0.85*
SRI-MoG         published                  48.4    0.83
SRI-EMORL       published                     -       -

ShapeStacks
model           origin                       FID  ARI-FG  S-Acc %
EMORL           published                  258.4    0.60        -
emorl           measured (original, n=1)       -   0.951        -
GENESIS         published                 186.8*   0.70*        -
GENESIS-v2-G    published                  115.3    0.68     50.7
SRI-G           published                   74.7    0.70     72.0
GENESIS-v2-MoG  published                 112.7*   0.81*       59
SRI-MoG         published                   70.4    0.78     80.7
SRI-EMORL       published                      -       -        -

published: as printed in the paper; * taken over from the GENESIS-v2 paper.
measured: our runs.
emorl, 500,000 steps on clevr6 (original, 96 px): runs/x0; training seed 0; step
  500,000. ARI-FG: 320 images; test split; 9 slots.
emorl on objects-room (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG:
  320 images; test split; 9 slots.
emorl on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG:
  320 images; test split; 9 slots.


The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)

model                  origin                    FID-val  bits/dim  S-Acc %
(a) no scene variable  published                   132.9     0.836     31.7
sri-g-no-scene         measured (original, n=1)        -     0.831        -
(b) no alignment       published                   123.2     0.845     43.7
(c) no cross-order KL  published                   106.3     0.833     61.3
(d) full               published                    75.0     0.829     72.0

published: as printed in the paper.
measured: our runs.
sri-g-no-scene on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000.
  bits/dim: 320 images; val split; 9 slots.


The paper's Table 4: a scene variable in each system (ShapeStacks, validation split)

model               origin                    FID-val  bits/dim  S-Acc %
GENESIS             published                   233.3     0.832        -
GENESIS + scene     published                   217.5     1.051        -
genesis-scene       measured (original, n=1)        -     0.931        -
GENESIS-v2          published                   107.4     0.821       59
GENESIS-v2 + scene  published                    84.5     0.823     66.3
SRI                 published                    71.0     0.829     80.7

published: as printed in the paper.
measured: our runs.
genesis-scene on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000.
  bits/dim: 320 images; val split; 9 slots."""

SECOND_MARKDOWN = r"""
**The paper's Table 2: samples and segmentation (test split)**

| model | origin | CLEVR6 FID | CLEVR6 ARI-FG | Objects Room FID | Objects Room ARI-FG | ShapeStacks FID | ShapeStacks ARI-FG | ShapeStacks S-Acc % |
|---|---|---:|---:|---:|---:|---:|---:|---:|
| EMORL | published | 244.0 | 0.96 | 178.3 | 0.47 | 258.4 | 0.60 | - |
| emorl, 500,000 steps | measured (original, n=1) | - | 0.951 |  |  |  |  |  |
| emorl | measured (original, n=1) |  |  | - | 0.951 | - | 0.951 | - |
| GENESIS | published | 116.9 | 0.82 | 62.8\* | 0.63\* | 186.8\* | 0.70\* | - |
| GENESIS-v2-G | published | 61.0 | 0.98 | 87.6 | 0.75 | 115.3 | 0.68 | 50.7 |
| SRI-G | published | 60.6 | 0.96 | 55.7 | 0.74 | 74.7 | 0.70 | 72.0 |
| GENESIS-v2-MoG | published | 61.0 | 0.98 | 52.6\* | 0.85\* | 112.7\* | 0.81\* | 59 |
| SRI-MoG | published | 54.4 | 0.97 | 48.4 | 0.83 | 70.4 | 0.78 | 80.7 |
| SRI-EMORL | published | 48.9 | - | - | - | - | - | - |

- published: as printed in the paper; \* taken over from the GENESIS-v2 paper.
- measured: our runs.
- emorl, 500,000 steps on clevr6 (original, 96 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots.
- emorl on objects-room (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots.
- emorl on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots."""

SECOND_LATEX = r"""
\begin{table}
\centering
\caption{The paper's Table 2: samples and segmentation (test split)}
\begin{tabular}{llrrrrrrr}
 &  & \multicolumn{2}{c}{CLEVR6} & \multicolumn{2}{c}{Objects Room} & \multicolumn{3}{c}{ShapeStacks} \\
model & origin & FID & ARI-FG & FID & ARI-FG & FID & ARI-FG & S-Acc \% \\
\hline
EMORL & published & 244.0 & 0.96 & 178.3 & 0.47 & 258.4 & 0.60 & - \\
emorl, 500,000 steps & measured (original, n=1) & - & 0.951 &  &  &  &  &  \\
emorl & measured (original, n=1) &  &  & - & 0.951 & - & 0.951 & - \\
GENESIS & published & 116.9 & 0.82 & 62.8* & 0.63* & 186.8* & 0.70* & - \\
GENESIS-v2-G & published & 61.0 & 0.98 & 87.6 & 0.75 & 115.3 & 0.68 & 50.7 \\
SRI-G & published & 60.6 & 0.96 & 55.7 & 0.74 & 74.7 & 0.70 & 72.0 \\
GENESIS-v2-MoG & published & 61.0 & 0.98 & 52.6* & 0.85* & 112.7* & 0.81* & 59 \\
SRI-MoG & published & 54.4 & 0.97 & 48.4 & 0.83 & 70.4 & 0.78 & 80.7 \\
SRI-EMORL & published & 48.9 & - & - & - & - & - & - \\
\end{tabular}

\raggedright\footnotesize
published: as printed in the paper; * taken over from the GENESIS-v2 paper.\par
measured: our runs.\par
emorl, 500,000 steps on clevr6 (original, 96 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots.\par
emorl on objects-room (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots.\par
emorl on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. ARI-FG: 320 images; test split; 9 slots.\par
\end{table}"""

ONE_TEXT = """
The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)

model                  origin                    FID-val              bits/dim  S-Acc %
(a) no scene variable  published                   132.9                 0.836     31.7
(b) no alignment       published                   123.2                 0.845     43.7
(c) no cross-order KL  published                   106.3                 0.833     61.3
(d) full               published                    75.0                 0.829     72.0
sri-g                  measured (original, n=1)     81.0  0.831 [0.830, 0.832]        -

published: as printed in the paper.
measured: our runs; [low, high]: the interval of one run.
sri-g on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. FID-val:
  10,000 real, 10,000 generated; val split; 9 slots. bits/dim: 320 images; val split; 9
  slots; 95 % normal over images."""

ONE_MARKDOWN = """
**The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)**

| model | origin | FID-val | bits/dim | S-Acc % |
|---|---|---:|---:|---:|
| (a) no scene variable | published | 132.9 | 0.836 | 31.7 |
| (b) no alignment | published | 123.2 | 0.845 | 43.7 |
| (c) no cross-order KL | published | 106.3 | 0.833 | 61.3 |
| (d) full | published | 75.0 | 0.829 | 72.0 |
| sri-g | measured (original, n=1) | 81.0 | 0.831 [0.830, 0.832] | - |

- published: as printed in the paper.
- measured: our runs; [low, high]: the interval of one run.
- sri-g on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. FID-val: 10,000 real, 10,000 generated; val split; 9 slots. bits/dim: 320 images; val split; 9 slots; 95 % normal over images."""

ONE_LATEX = r"""
\begin{table}
\centering
\caption{The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)}
\begin{tabular}{llrrr}
model & origin & FID-val & bits/dim & S-Acc \% \\
\hline
(a) no scene variable & published & 132.9 & 0.836 & 31.7 \\
(b) no alignment & published & 123.2 & 0.845 & 43.7 \\
(c) no cross-order KL & published & 106.3 & 0.833 & 61.3 \\
(d) full & published & 75.0 & 0.829 & 72.0 \\
sri-g & measured (original, n=1) & 81.0 & 0.831 [0.830, 0.832] & - \\
\end{tabular}

\raggedright\footnotesize
published: as printed in the paper.\par
measured: our runs; [low, high]: the interval of one run.\par
sri-g on shapestacks (original, 64 px): runs/x0; training seed 0; step 500,000. FID-val: 10,000 real, 10,000 generated; val split; 9 slots. bits/dim: 320 images; val split; 9 slots; 95 \% normal over images.\par
\end{table}"""

SEEDS_TEXT = """
The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)

model                  origin                       FID-val             bits/dim  S-Acc %
(a) no scene variable  published                      132.9                0.836     31.7
(b) no alignment       published                      123.2                0.845     43.7
(c) no cross-order KL  published                      106.3                0.833     61.3
(d) full               published                       75.0                0.829     72.0
sri-g                  measured (original, n=3)  73.0 ± 3.6  0.830 ± 0.014 (n=2)        -

published: as printed in the paper.
measured: our runs; n runs that differ in the training seed: mean ± sample standard
  deviation.
sri-g on shapestacks (original, 64 px): runs/x0, runs/x1, runs/x2; training seeds 0, 1,
  2; step 500,000. FID-val: 10,000 real, 10,000 generated; val split; 9 slots. bits/dim:
  320 images; val split; 9 slots."""

SEEDS_LATEX = r"""
\begin{table}
\centering
\caption{The paper's Table 3: SRI-G without one of its parts (ShapeStacks, validation split)}
\begin{tabular}{llrrr}
model & origin & FID-val & bits/dim & S-Acc \% \\
\hline
(a) no scene variable & published & 132.9 & 0.836 & 31.7 \\
(b) no alignment & published & 123.2 & 0.845 & 43.7 \\
(c) no cross-order KL & published & 106.3 & 0.833 & 61.3 \\
(d) full & published & 75.0 & 0.829 & 72.0 \\
sri-g & measured (original, n=3) & 73.0 $\pm$ 3.6 & 0.830 $\pm$ 0.014 (n=2) & - \\
\end{tabular}

\raggedright\footnotesize
published: as printed in the paper.\par
measured: our runs; n runs that differ in the training seed: mean $\pm$ sample standard deviation.\par
sri-g on shapestacks (original, 64 px): runs/x0, runs/x1, runs/x2; training seeds 0, 1, 2; step 500,000. FID-val: 10,000 real, 10,000 generated; val split; 9 slots. bits/dim: 320 images; val split; 9 slots.\par
\end{table}"""

SMALL_TEXT = """
The paper's Table 2: samples and segmentation (test split)

ShapeStacks
model                           origin                                      FID                ARI-FG  S-Acc %
EMORL                           published                                 258.4                  0.60        -
GENESIS                         published                                186.8*                 0.70*        -
GENESIS-v2-G                    published                                 115.3                  0.68     50.7
SRI-G                           published                                  74.7                  0.70     72.0
sri-g, tiny 32 px, 2,000 steps  measured (simulated, n=1)  171.2 (FID(500/500))  0.512 [0.500, 0.524]        -
GENESIS-v2-MoG                  published                                112.7*                 0.81*       59
SRI-MoG                         published                                  70.4                  0.78     80.7
SRI-EMORL                       published                                     -                     -        -

published: as printed in the paper; * taken over from the GENESIS-v2 paper.
measured: our runs; [low, high]: the interval of one run; simulated: pictures of our own
  simulation, not the original data set.
sri-g, tiny 32 px, 2,000 steps on shapestacks (simulated, 32 px): runs/x0; training seed
  0; step 2,000. FID(500/500): 500 real, 500 generated; test split; 9 slots. ARI-FG: 320
  images, 2 without foreground; test split; 9 slots; 95 % normal over images. Warning:
  500 images are too few."""

OTHERS_TEXT = r"""
Other runs: of recipes, data sets or splits that the paper's tables do not have

model                             origin                       data                         FID  ARI-FG  bits/dim  S-Acc %
sri-mog-tiny, 32 px, 6,000 steps  measured (simulated, n=1)    demo-towers, test              -       -         -        -
a_b%c#d&e~f^g\h{i}|j, 64 px       measured (folder, pictures)  my_set, test       44.0 (FID-2k)       -         -        -

measured: our runs; simulated: pictures of our own simulation, not the original data
  set.
sri-mog-tiny, 32 px, 6,000 steps on demo-towers (simulated, 32 px): runs/x0; training
  seed 0; step 6,000. ARI-FG: 320 images; test split; 9 slots.
a_b%c#d&e~f^g\h{i}|j, 64 px on my_set (folder, 64 px): /p/a_b%c#d&e~f^g\h{i}|j, 2,000
  pictures. FID-2k: 2,000 real, 2,000 generated; test split."""

OTHERS_MARKDOWN = r"""
**Other runs: of recipes, data sets or splits that the paper's tables do not have**

| model | origin | data | FID | ARI-FG | bits/dim | S-Acc % |
|---|---|---|---:|---:|---:|---:|
| sri-mog-tiny, 32 px, 6,000 steps | measured (simulated, n=1) | demo-towers, test | - | - | - | - |
| a_b%c#d&e\~f^g\\h{i}\|j, 64 px | measured (folder, pictures) | my_set, test | 44.0 (FID-2k) | - | - | - |

- measured: our runs; simulated: pictures of our own simulation, not the original data set.
- sri-mog-tiny, 32 px, 6,000 steps on demo-towers (simulated, 32 px): runs/x0; training seed 0; step 6,000. ARI-FG: 320 images; test split; 9 slots.
- a_b%c#d&e\~f^g\\h{i}\|j, 64 px on my_set (folder, 64 px): /p/a_b%c#d&e\~f^g\\h{i}\|j, 2,000 pictures. FID-2k: 2,000 real, 2,000 generated; test split."""

OTHERS_LATEX = r"""
\begin{table}
\centering
\caption{Other runs: of recipes, data sets or splits that the paper's tables do not have}
\begin{tabular}{lllrrrr}
model & origin & data & FID & ARI-FG & bits/dim & S-Acc \% \\
\hline
sri-mog-tiny, 32 px, 6,000 steps & measured (simulated, n=1) & demo-towers, test & - & - & - & - \\
a\_b\%c\#d\&e\textasciitilde{}f\textasciicircum{}g\textbackslash{}h\{i\}\textbar{}j, 64 px & measured (folder, pictures) & my\_set, test & 44.0 (FID-2k) & - & - & - \\
\end{tabular}

\raggedright\footnotesize
measured: our runs; simulated: pictures of our own simulation, not the original data set.\par
sri-mog-tiny, 32 px, 6,000 steps on demo-towers (simulated, 32 px): runs/x0; training seed 0; step 6,000. ARI-FG: 320 images; test split; 9 slots.\par
a\_b\%c\#d\&e\textasciitilde{}f\textasciicircum{}g\textbackslash{}h\{i\}\textbar{}j, 64 px on my\_set (folder, 64 px): /p/a\_b\%c\#d\&e\textasciitilde{}f\textasciicircum{}g\textbackslash{}h\{i\}\textbar{}j, 2,000 pictures. FID-2k: 2,000 real, 2,000 generated; test split.\par
\end{table}"""


def test_each_table_has_all_published_rows() -> None:
    assert printed([]) == ""
    assert printed(EACH) == EACH_TEXT[1:]
    second = paper_tables(EACH)[1:2]
    assert format_paper_tables(second, "markdown") == SECOND_MARKDOWN[1:]
    assert format_paper_tables(second, "latex") == SECOND_LATEX[1:]


@pytest.mark.parametrize(
    ("measurements", "style", "expected"),
    [
        (ONE, "text", ONE_TEXT),
        (ONE, "markdown", ONE_MARKDOWN),
        (ONE, "latex", ONE_LATEX),
        (SEEDS, "text", SEEDS_TEXT),
        (SEEDS, "latex", SEEDS_LATEX),
        (SMALL, "text", SMALL_TEXT),
        (OTHERS, "text", OTHERS_TEXT),
        (OTHERS, "markdown", OTHERS_MARKDOWN),
        (OTHERS, "latex", OTHERS_LATEX),
    ],
)
def test_whole_tables(measurements: list[dict[str, Any]], style: str, expected: str) -> None:
    assert printed(measurements, style) == expected[1:]


def test_every_line_of_latex_has_all_columns() -> None:
    text = printed([*EACH, *ONE, *SEEDS, *SMALL, *OTHERS], "latex")
    assert text.count(r"\begin{tabular}") == 5
    for tabular in text.split(r"\begin{tabular}")[1:]:
        lines = tabular.split(r"\end{tabular}")[0].splitlines()
        columns = len(lines[0].strip("{}"))
        body = [line for line in lines[1:] if line != r"\hline"]
        assert all(line.endswith(r" \\") for line in body)
        for line in body:
            spanned = sum(int(part[0]) - 1 for part in line.split(r"\multicolumn{")[1:])
            assert line.replace(r"\&", "").count("&") + 1 + spanned == columns
