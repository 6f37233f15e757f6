"""Loading before the fork, in processes of their own: what is loaded here stays loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pipelined

HEAVY = ["pyarrow", "deltalake", "obstore", "pycurl", "msgspec", "confluent_kafka", "prometheus_client"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = str(Path(pipelined.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", f"from pipelined.supervisor.preload import preload, threads\n{code}"],
        env={"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_heavy_module_is_loaded_and_the_process_has_one_thread() -> None:
    done = run(f"import gc, sys; preload({HEAVY}); print(len(threads()), gc.get_freeze_count() > 10000)")
    assert done.stdout == "1 True\n", done.stderr


def test_the_users_own_settings_of_the_allocator_are_kept() -> None:
    code = "import os; preload(['pyarrow']); print(os.environ['JE_ARROW_MALLOC_CONF'], len(threads()))"
    done = run(code, JE_ARROW_MALLOC_CONF="narenas:2")
    assert done.stdout == "narenas:2,background_thread:false 1\n", done.stderr


def test_a_second_thread_is_refused_by_name() -> None:
    code = (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "preload([])"
    )
    done = run(code)
    assert done.returncode == 1
    assert "PipelinedError: the parent has 2 threads" in done.stderr
