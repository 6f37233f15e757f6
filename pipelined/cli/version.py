"""``pipelinectl version``: of this program, of the daemon that runs, and of what both stand on."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from typing import Any

import click

from pipelined import __version__
from pipelined.cli.reach import request
from pipelined.cli.settings import Settings
from pipelined.errors import ConfigError, PipelinedError
from pipelined.kafka.brokers import client_release

__all__ = ["version"]

_NAME = re.compile(r"[A-Za-z0-9._-]+")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_obj
def version(settings: Settings, as_json: bool) -> None:
    """Show the version of this program, of the daemon that runs, and of the libraries.

    Where no daemon answers, it says so in the daemon's place.

    \b
    Example:
      pipelinectl version --json
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    daemon, why = _daemon(settings)
    libraries = _libraries()
    if as_json:
        document: dict[str, Any] = {
            "pipelined": __version__,
            "daemon": daemon,
            "python": platform.python_version(),
            "librdkafka": client_release(),
            "libraries": libraries,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"pipelined {__version__}")
    click.echo(f"daemon {daemon or f'- ({why})'}")
    click.echo(f"python {platform.python_version()}")
    click.echo(f"librdkafka {client_release()}")
    for name, found in libraries.items():
        click.echo(f"{name} {found}")


def _daemon(settings: Settings) -> tuple[str | None, str]:
    """Its version, or None and why that is not known."""
    try:
        versions = request(settings.whereabouts(), {"cmd": "status"})["status"]["versions"]
    except ConfigError:
        return None, "the configuration is wrong; see `pipelinectl config check`"
    except PipelinedError as error:
        return None, str(error)
    return str(versions["pipelined"]), ""


def _libraries() -> dict[str, str]:
    """What the package asks for, as it is installed."""
    try:
        wanted = importlib.metadata.requires("pipelined") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    names = [match[0] for text in wanted if "extra ==" not in text and (match := _NAME.match(text))]
    found = {}
    for name in sorted(names, key=str.lower):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
