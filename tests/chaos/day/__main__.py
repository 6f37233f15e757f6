"""``make chaos``: a day drawn from a seed, judged by the ledger. Exit code 0: balanced; 1: not."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos.day.plan import RATE, draw
from chaos.day.report import as_json, enter, render
from chaos.day.running import run
from pipelined.ledger.report import render as render_balance
from pipelined.local.upstream import FILE, SOURCES


def main() -> int:
    """Run a day; its report goes to standard output and to the folder."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--brokers", type=int, default=3, choices=(1, 3))
    parser.add_argument("--hosts", type=int, default=2, choices=(1, 2, 3))
    parser.add_argument("--rate", type=float, default=RATE, help="events a second")
    parser.add_argument("--source", default=FILE, choices=SOURCES, help="where the events come from")
    parser.add_argument("--directory", type=Path, default=None, help="default: a new one below /tmp")
    parser.add_argument("--record", action="store_true", help="add it to benchmarks/chaos, if it was judged")
    parser.add_argument("--keep", action="store_true", help="keep the folder also when the day passes")
    parser.add_argument("--plan", action="store_true", help="show the plan and do nothing")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    plan = draw(seed, options.minutes, options.brokers, options.hosts, options.rate, options.source)
    _tell(f"seed {seed}; to repeat this day: {plan.command}")
    if options.plan:
        _tell("\n".join(map(str, plan.steps)))
        return 0
    folder = options.directory or Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome = run(plan, folder, _tell)
    document = as_json(outcome)
    if options.record and outcome.balance is not None:
        enter(document)
    report = render(document)
    if outcome.balance is not None:
        _tell(render_balance(outcome.balance))
    _tell(report)
    if outcome.passed and not options.keep and options.directory is None:
        shutil.rmtree(folder)
    else:
        (folder / "report.md").write_text(report)
        (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n")
        _tell(f"everything is kept in {folder}; again: {plan.command}")
    return 0 if outcome.passed else 1


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
