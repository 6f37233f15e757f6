"""How a command ends: its error on the standard error stream, its exit code for the caller."""

from __future__ import annotations

import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click

from pipelined.errors import ExitCode, PipelinedError
from pipelined.logs.masking import mask

__all__ = ["main_wrapper", "run"]

_STDOUT = 1


def main_wrapper(group: click.Command) -> Callable[[], NoReturn]:
    """The entry point that runs ``group`` with the arguments of the process, and ends the process."""

    def main() -> NoReturn:
        sys.exit(run(group, sys.argv[1:]))

    return main


def run(group: click.Command, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; what went wrong is told on the standard error stream.

    A PipelinedError gives its own code and one ``error:`` line for each of its lines; wrong usage 64;
    Ctrl-C 130; an unexpected exception its traceback and 70. A reader of our output that has enough
    (``| head``) is no error. A command ends with another code by ``ctx.exit(code)`` or returning it.
    """
    name = group.name or Path(sys.argv[0]).stem
    try:
        if f"_{name.replace('-', '_').upper()}_COMPLETE" in os.environ:
            group.main(list(arguments), prog_name=name)  # completion for the shell; ends the process
        # Not main() otherwise: it takes any broken connection of a command for a reader that left.
        with group.make_context(name, list(arguments)) as context:
            result = group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except PipelinedError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {mask(line)}", err=True)
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.FAILED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return int(ExitCode.INTERRUPTED)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # Nothing more can be written, and the interpreter must not try to at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        else:
            click.echo(f"error: {mask(str(error))}", err=True)
        return int(ExitCode.FAILED)
    except Exception:  # noqa: BLE001 - told in full, but masked, and with an exit code of its own
        click.echo(mask(traceback.format_exc()).rstrip("\n"), err=True)
        click.echo("error: this is a bug of pipelined; please report the lines above", err=True)
        return int(ExitCode.SOFTWARE)
    return result if isinstance(result, int) else int(ExitCode.OK)


def _reader_is_gone() -> bool:
    """Whether it is our standard output that broke, and not a connection of the command."""
    poll = select.poll()
    poll.register(_STDOUT, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
