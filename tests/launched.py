"""A training by the launcher on the CPU: python -m tests.launched RUN DATA PROCESSES STEPS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

if __name__ == "__main__":  # not in the processes that it starts
    from sri_cli.config.load import recipe_from_dict
    from sri_cli.errors import SriError
    from sri_cli.training.launch import Job, launch

    run, data, processes, steps = sys.argv[1:5]
    tree = json.loads(Path(run + ".recipe.json").read_text())
    tree["train"]["steps"] = int(steps)
    job = Job(recipe_from_dict(tree), Path(data), Path(run), "cpu", False, "sri train --gpus 2")
    try:
        print("step", launch(int(processes), job).step)
    except SriError as error:
        print(f"Error: {error.message}\n{error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
