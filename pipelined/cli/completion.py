"""``pipelinectl completion``: has a shell complete our commands; and what it offers for their words."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class

from pipelined.config.leaves import leaves
from pipelined.config.tree import WORKER_TYPES

__all__ = ["SHELLS", "completion", "config_keys", "worker_types"]

SHELLS = ("bash", "zsh", "fish")
_COMMANDS = ("pipelinectl", "pipelined")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.option(
    "--for",
    "name",
    type=click.Choice(_COMMANDS),
    default=_COMMANDS[0],
    show_default=True,
    help="The command that it completes.",
)
def completion(shell: str, name: str) -> None:
    """Print the script by which SHELL (bash, zsh or fish) completes our commands.

    It completes commands, options, worker types, the keys for --set, and files. The command has to be
    found in the PATH.

    \b
    Example:
      pipelinectl completion bash > /etc/bash_completion.d/pipelinectl
      pipelinectl completion zsh > /usr/local/share/zsh/site-functions/_pipelinectl
      pipelinectl completion fish > ~/.config/fish/completions/pipelinectl.fish
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    of_shell = get_completion_class(shell)
    assert of_shell is not None, "click knows all of these"
    source = of_shell(click.Command(name), {}, name, f"_{name.upper()}_COMPLETE").source()
    if of_shell is BashComplete:
        # A key is followed by its value, not by a space.
        end = "\n    return 0\n"
        source = source.replace(end, f"\n    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace{end}")
    click.echo(source)


def worker_types(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The worker types that begin so."""
    del context, parameter
    return [CompletionItem(each) for each in WORKER_TYPES if each.startswith(incomplete)]


def config_keys(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The keys that begin so, each with what separates it from its value."""
    del context, parameter
    return [
        CompletionItem(f"{leaf.path}=", help=leaf.spec.help)
        for leaf in leaves()
        if leaf.path.startswith(incomplete)
    ]
