"""The command line, in this process and as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from sri_cli.cli.main import cli

ROOT = Path(__file__).parent.parent
SEARCH_PATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def sri(*words: str) -> Result:
    """`sri WORDS`."""
    return CliRunner().invoke(cli, list(words))


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """`sri WORDS` as a process of its own, with one thread; `options` of Popen."""
    usual: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    usual["env"] = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": SEARCH_PATH}
    return subprocess.Popen(
        [sys.executable, "-m", "sri_cli", *words], text=True, **(usual | options)
    )


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for it; the process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
