"""A training by the launcher on the CPU: python -m tests.launched RUN DATA PROCESSES STEPS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

if __name__ == "__main__":  # not in the processes that it starts
    from sri_cli.config.load import recipe_from_dict
    from sri_cli.data.dataset import DataFile
    from sri_cli.errors import SriError
    from sri_cli.training.launch import launch

    run, data, processes, steps = sys.argv[1:5]
    tree = json.loads(Path(run + ".recipe.json").read_text())
    tree["train"]["steps"] = int(steps)
    try:
        outcome = launch(
            int(processes),
            recipe_from_dict(tree),
            DataFile(Path(data)),
            Path(run),
            device="cpu",
            command="sri train --gpus 2",
        )
        print("step", outcome.step)
    except SriError as error:
        print(f"Error: {error.message}\n{error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
