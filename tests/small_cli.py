"""The command line, in this process and as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from sri_cli.cli.main import cli

ROOT = Path(__file__).parent.parent
# Of a process of its own: it finds `sri_cli` and `tests`, and computes with one thread.
SEARCH_PATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = {"PYTHONPATH": SEARCH_PATH, "OMP_NUM_THREADS": "1"}


def sri(*words: str, code: int | None = None) -> Result:
    """`sri WORDS`, which must end with this exit code if one is given."""
    result = CliRunner().invoke(cli, list(words))
    assert code in (None, result.exit_code), result.output
    return result


def sri_json(*words: str) -> Any:
    """What `sri WORDS --json` prints, which must succeed."""
    return json.loads(sri(*words, "--json", code=0).stdout)


def start(*words: str, code: str = "", **options: Any) -> subprocess.Popen[str]:
    """`sri WORDS`, or `python -c CODE WORDS`, as a process of its own; `options` of Popen."""
    usual: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    usual["env"] = os.environ | ENVIRONMENT
    program = ["-c", code] if code else ["-m", "sri_cli"]
    return subprocess.Popen([sys.executable, *program, *words], text=True, **(usual | options))


def finish(
    process: subprocess.Popen[str], code: int = 0, limit_sec: float = 600
) -> tuple[str, str]:
    """Wait until it ends with this exit code, in time; what it wrote to stdout and stderr."""
    try:
        out, err = process.communicate(timeout=limit_sec)
    finally:
        process.kill()  # if it takes too long
    assert process.returncode == code, err
    return out, err


def processes_of(run: str) -> list[int]:
    """The processes that train this run of a study."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            words = path.read_bytes().split(b"\0")
            if b"sri_cli.studies.processes" in words and run.encode() in words:
                found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for it; the process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
