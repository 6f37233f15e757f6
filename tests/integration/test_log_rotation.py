"""Several processes write to one log that is put aside again and again: every line is there, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import pipelined
from pipelined.logs.rotation import files
from waiting import until

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(pipelined.__file__).parents[1])}
WRITERS, LINES = 3, 1500

# A parent and its children as a daemon has them; the last child never looks, as one that hangs.
DAEMON = f"""
import logging, os, sys, time
from pathlib import Path
from pipelined.config.tree import Logs
from pipelined.logs.setup import setup, tick

settings = Logs(file_mb=0.1, files_kept=100, repeats=0, format="json")
setup(settings, worker="supervisor", index=0, file=Path(sys.argv[1]))
log = logging.getLogger("pipelined.test")
log.info("begun")
sys.stdin.read()
for index in range({WRITERS} + 1):
    if os.fork() == 0:
        setup(settings, worker="download", index=index)
        for number in range({LINES} if index < {WRITERS} else 50):
            log.info("line", extra={{"number": number}})
            if number % 10 == 0:
                if index < {WRITERS}:
                    tick()
                os.write(1 + number % 20 // 10, b"raw %d %d\\n" % (index, number))
                time.sleep(0.005)
        os._exit(0)
left = {WRITERS} + 1
while left:
    tick()
    time.sleep(0.002)
    while left and os.waitpid(-1, os.WNOHANG)[0]:
        left -= 1
log.info("ended")
"""


def counted(lines: Iterable[str]) -> Counter[tuple[int, int, str]]:
    """How often each line is there, by its writer, its number and its kind."""
    found: Counter[tuple[int, int, str]] = Counter()
    for line in lines:
        told = json.loads(line) if line.startswith("{") else {"message": line}
        words = str(told["message"]).split()
        if words[0] == "raw":
            found[int(words[1]), int(words[2]), "raw"] += 1
        elif words[0] == "line":
            found[told["index"], told["number"], "logged"] += 1
    return found


def expected(*, hung: bool) -> Counter[tuple[int, int, str]]:
    amounts = dict.fromkeys(range(WRITERS), LINES) | ({WRITERS: 50} if hung else {})
    return Counter(
        (index, number, kind)
        for index, amount in amounts.items()
        for number in range(amount)
        for kind in (["logged", "raw"] if number % 10 == 0 else ["logged"])
    )


def of_followers(shown: Path) -> Counter[tuple[int, int, str]]:
    """What a reader has shown so far of those that do look."""
    whole = shown.read_text().rpartition("\n")[0]
    return Counter({key: times for key, times in counted(whole.splitlines()).items() if key[0] < WRITERS})


@pytest.mark.timeout(180)
def test_no_line_is_lost_or_doubled_and_a_reader_that_follows_sees_them_all(tmp_path: Path) -> None:
    log = tmp_path / "pipelined.log"
    config = tmp_path / "pipelined.toml"
    config.write_text(f'state_dir = "{tmp_path}"\nruntime_dir = "{tmp_path}"\n')
    with log.open("ab") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(log)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    shown = tmp_path / "shown"
    code = "from pipelined.cli.pipelinectl import main; main()"
    ctl = [sys.executable, "-c", code, "--config", str(config), "logs", "--json"]
    with shown.open("wb") as output:
        until(lambda: b"begun" in log.read_bytes(), "the daemon logs")
        reader = subprocess.Popen([*ctl, "--follow"], stdout=output, env=ENVIRONMENT)
    try:
        until(lambda: "begun" in shown.read_text(), "it is read")
        assert daemon.stdin is not None
        daemon.stdin.close()
        assert daemon.wait(60) == 0
        until(lambda: of_followers(shown) == expected(hung=False), "all of it is read")
        reader.send_signal(signal.SIGINT)
        assert reader.wait(10) == 0
    finally:
        for process in (daemon, reader):
            process.kill()
            process.wait()
    parts = files(log)
    assert len(parts) > 2, "it was put aside again and again"
    written = [line for part in parts for line in part.read_text().splitlines()]
    assert counted(written) == expected(hung=True)
    assert of_followers(shown) == expected(hung=False)
    everything = subprocess.run(
        [*ctl, "--lines", "1000000"], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True
    )
    assert counted(everything.stdout.splitlines()) == expected(hung=True)
