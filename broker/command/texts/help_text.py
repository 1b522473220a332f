"""The help of the commands in Chinese. English is click's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import click

from broker.command.texts.chinese import in_chinese
from broker.command.texts.language import language
from broker.command.texts.words import say
from broker.command.texts.wrapping import breaks, display_width

_EXTRA = re.compile(r"(.*?)(  \[.*\])?", re.DOTALL)
"""A help text, and what click adds to it: the default, the range."""

_FIRST_COLUMN = 30


class _ChineseFormatter(click.HelpFormatter):
    """Writes click's help with the texts of `chinese.toml`."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage line."""
        super().write_usage(prog, args, say("usage"))

    def write_heading(self, heading: str) -> None:
        """Write the heading of a section."""
        self.write(f"{' ' * self.current_indent}{_HEADINGS.get(heading, heading)}：\n")

    def write_text(self, text: str) -> None:
        """Write the paragraphs of a description."""
        for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
            self.write("\n" * bool(number))
            for line in self._lines(in_chinese(" ".join(paragraph.split())), self.current_indent):
                self.write(f"{' ' * self.current_indent}{line}\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of options or commands."""
        rows = list(rows)
        widest = min(max(len(name) for name, _ in rows), _FIRST_COLUMN)
        indent = self.current_indent + widest + col_spacing
        for name, text in rows:
            found = _EXTRA.fullmatch(text)
            about = (
                in_chinese(found[1]) + (found[2] or "").replace("[default: ", "[默认：") if found else text
            )
            first, *rest = self._lines(about, indent) or [""]
            head = f"{' ' * self.current_indent}{name}"
            if len(name) > widest:
                self.write(f"{head}\n")
                head = ""
            self.write(f"{head}{' ' * (indent - display_width(head))}{first}\n")
            for line in rest:
                self.write(f"{' ' * indent}{line}\n")

    def _lines(self, text: str, indent: int) -> list[str]:
        offsets = [0, *breaks(text, max(self.width - indent, 20)), len(text)]
        return [text[start:end].rstrip() for start, end in pairwise(offsets)]


_HEADINGS = {"Options": "选项", "Commands": "命令", "Arguments": "参数"}


class HelpContext(click.Context):
    """A context whose help is in the reader's language."""

    def make_formatter(self) -> click.HelpFormatter:
        """Return the formatter of the reader's language."""
        if not language():
            return super().make_formatter()
        return _ChineseFormatter(width=self.terminal_width, max_width=self.max_content_width)


class HelpGroup(click.Group):
    """A group that lists its commands with their whole first sentence, which the formatter translates."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and what they do."""
        if not language():
            super().format_commands(ctx, formatter)
            return
        rows = [
            (name, (command.help or "").split("\n\n")[0].strip()) for name, command in self.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))
