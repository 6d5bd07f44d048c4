"""Finds the code blocks of a Markdown page, and runs those of a page one after the other.

Every `sh`, `bash` and `python` block runs, unless a comment before it says why not:

    <!-- not run: needs a GPU -->

A comment `<!-- exit 1: REASON -->` names the exit code of the block's last command. A block of
another language with `title="NAME"` is a file that the blocks after it may use.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNNABLE = ("sh", "bash", "python")
COMMANDS = ("stepgold", "export", "cd")
"""What a shell block that runs may call."""

_BLOCK = re.compile(r"^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"<!-- (?P<key>not run|exit \d+): (?P<value>[^>]+?) -->\s*\Z")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    line: int
    """Where it begins, 1-based."""
    language: str
    text: str
    title: str | None
    """The name of the file that it is; None if it is none."""
    not_run: str | None
    """Why it is not run; None if it is."""
    exit_code: int
    """The exit code of its last command."""

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.language in RUNNABLE and self.not_run is None


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order."""
    return [_read(page, match) for match in _BLOCK.finditer(page)]


def _read(page: str, match: re.Match[str]) -> Block:
    comment = _COMMENT.search(page[: match.start()])
    key, value = (comment["key"], comment["value"]) if comment else ("", None)
    title = _TITLE.search(match["info"])
    return Block(
        line=page.count("\n", 0, match.start()) + 1,
        language=match["language"],
        text=match["text"],
        title=title[1] if title else None,
        not_run=value if key == "not run" else None,
        exit_code=int(key.removeprefix("exit ")) if key.startswith("exit") else 0,
    )


def commands(shell: str) -> Iterator[list[str]]:
    """The commands of a shell block, split into words; comments and line continuations are read."""
    for line in shell.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


class Session:
    """Runs the blocks of one page in one folder, with this process's command line and Python."""

    def __init__(self, folder: Path, replaced: Mapping[str, str], setenv: Any, chdir: Any) -> None:
        """Start in `folder`.

        Args:
            folder: where the page's commands run.
            replaced: texts of the page and what stands in for them, e.g. a server's address.
            setenv: sets an environment variable for the test.
            chdir: changes the working directory for the test.
        """
        self.folder, self.replaced, self.setenv, self.chdir = folder, replaced, setenv, chdir
        self.names: dict[str, Any] = {"__name__": "__main__"}
        chdir(folder)

    def run(self, block: Block) -> None:
        """Run a block, or write its file."""
        text = block.text
        for shown, used in self.replaced.items():
            text = text.replace(shown, used)
        if block.language == "python":
            exec(compile(text, f"<line {block.line}>", "exec"), self.names)
        elif block.language in RUNNABLE:
            self._shell(list(commands(text)), block)
        elif block.title:
            (self.folder / block.title).write_text(text, "utf-8")

    def _shell(self, lines: Sequence[list[str]], block: Block) -> None:
        from cli import execute

        for number, (program, *words) in enumerate(lines, 1):
            if program == "export":
                name, _, value = words[0].partition("=")
                self.setenv(name, value)
            elif program == "cd":
                self.chdir(self.folder / words[0])
            else:
                expected = block.exit_code if number == len(lines) else 0
                code = execute(words)
                assert code == expected, f"line {block.line}: {words} ended with {code}"
