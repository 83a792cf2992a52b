"""The reference of the command line, from its commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from docs.generate.text import fenced, prose, table
from polyprefix.cli.app import app

INTRODUCTION = """# Command line

Every command has `--help`. Mistakes that can be mended are said without a traceback and end with
exit status 2. Ctrl-C ends a run after the step it is in, with a checkpoint, and the same command
goes on from there.

"""

MARKUP = re.compile(r"\[/?[a-z]+\]")
EXAMPLES = "Examples"


def page() -> str:
    """A section a command."""
    parts = [INTRODUCTION]
    for names, command in commands():
        parts.append(_section(("polyprefix", *names), command))
    return "".join(parts)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it, those of groups behind their group's."""
    yield from _below((), typer.main.get_command(app))


def _below(names: tuple[str, ...], group: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below((*names, name), command)
        else:
            yield (*names, name), command


def _section(words: tuple[str, ...], command: Any) -> str:
    context = command.context_class(command, info_name=" ".join(words))
    usage = " ".join(command.collect_usage_pieces(context))
    anchor = "-".join(words[1:])
    text = f"## `{' '.join(words)}` {{#{anchor}}}\n\n{prose(command.help or '')}\n\n"
    text += fenced(f"{' '.join(words)} {usage}")
    for title, kind in (("argument", "argument"), ("option", "option")):
        rows = [
            (f"`{names}`", help_)
            for parameter in command.params
            if parameter.param_type_name == kind
            for names, help_ in [parameter.get_help_record(context)]
        ]
        if rows:
            text += "\n" + table((title, "meaning"), rows)
    return text + (f"\n{_epilog(command.epilog)}\n" if command.epilog else "\n")


def _epilog(epilog: str) -> str:
    """Examples as code, what follows them as text."""
    text = MARKUP.sub("", epilog.replace("\\[", "\0")).replace("\0", "[")
    blocks: list[str] = []
    commands_: list[str] = []
    for part in text.strip().split("\n\n"):
        if part.startswith("  "):
            lines = [line.removeprefix("  ") for line in part.splitlines()]
            commands_.append("\n".join(lines))
        elif part.strip() != EXAMPLES:
            blocks.append(part)
    return fenced("\n".join(commands_), "bash") + "\n" + "\n\n".join(blocks)
