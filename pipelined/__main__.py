"""``python -m pipelined`` is ``pipelined``."""

from __future__ import annotations

from pipelined.cli.pipelined import main

if __name__ == "__main__":
    main()
