"""The commands by name: their help, and the verb that each is built from when it is used.

A command is built, and its verb imported, only when it is used, so that `--help` and short commands
start quickly.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from stepgold.outcome import Outcome
from traces import InputError, closest


@dataclass(frozen=True, slots=True)
class Entry:
    """A command and its verb."""

    help: str
    """The text of `--help`; its first sentence is the summary in the list of commands."""
    module: str
    """Module of the verb."""
    config: str
    """Name of its options; empty if `run` is already a command."""
    run: str
    """Name of the verb."""

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        return self.help.partition(". ")[0].removesuffix(".") + "."

    def build(self) -> Callable[..., Outcome]:
        """The command as typer takes it."""
        from commands.build import command

        module = importlib.import_module(self.module)
        run: Any = getattr(module, self.run)
        if not self.config:
            finished: Callable[..., Outcome] = run
            return finished
        return command(getattr(module, self.config), run, help=self.help)


COMMANDS: dict[tuple[str, ...], Entry] = {
    ("demo",): Entry(
        "Run the whole pipeline on the bundled lab. It needs no key, network or GPU.",
        "stepgold.demo",
        "DemoOptions",
        "demo",
    ),
    ("run",): Entry(
        "Run the stages of a TOML file. Each command has a table; what is already done is"
        " skipped. Repeat a table as [[import]] for several datasets or labelers.",
        "stepgold.api",
        "RunOptions",
        "run_pipeline",
    ),
    ("import",): Entry(
        "Import traces, or a third party's scores. Rows that cannot be used are listed.",
        "stepgold.exchange",
        "ImportOptions",
        "import_",
    ),
    ("export",): Entry(
        "Write the labels of one labeler to a file. Fields the format lacks are left out.",
        "stepgold.exporting",
        "ExportOptions",
        "export",
    ),
    ("corpus", "add"): Entry(
        "Split documents into passages. Unchanged files are skipped; documents whose "
        "files are gone are removed.",
        "stepgold.corpora",
        "CorpusAddOptions",
        "corpus_add",
    ),
    ("corpus", "list"): Entry(
        "List the corpora with their size and license.",
        "stepgold.corpora",
        "CorpusListOptions",
        "corpus_list",
    ),
    ("corpus", "show"): Entry(
        "Show a document as it was indexed. Its passages are printed with their offsets.",
        "stepgold.showing",
        "CorpusShowOptions",
        "corpus_show",
    ),
    ("corpus", "remove"): Entry(
        "Remove a corpus or one document. Attached evidence stays readable.",
        "stepgold.corpora",
        "CorpusRemoveOptions",
        "corpus_remove",
    ),
    ("db", "vacuum"): Entry(
        "Give the database's free space back. Other commands wait while it runs.",
        "stepgold.databases",
        "DbVacuumOptions",
        "db_vacuum",
    ),
    ("db", "backup"): Entry(
        "Back the database up to a new file. Other commands go on meanwhile.",
        "stepgold.databases",
        "DbBackupOptions",
        "db_backup",
    ),
    ("db", "copy"): Entry(
        "Copy a database into an empty one. SQLite and PostgreSQL, either way; a copy that was"
        " interrupted goes on where it stopped, and all rows are compared at the end.",
        "stepgold.databases",
        "DbCopyOptions",
        "db_copy",
    ),
    ("db", "check"): Entry(
        "Check the database for damage. Counts its rows, and those nothing refers to.",
        "stepgold.databases",
        "DbCheckOptions",
        "db_check",
    ),
    ("index",): Entry(
        "Update the index over all corpora. Only new passages are encoded.",
        "stepgold.searching",
        "IndexOptions",
        "index",
    ),
    ("search",): Entry(
        "Show the passages that match a text. Matching words are marked; similarity, source "
        "and offsets are shown.",
        "stepgold.searching",
        "SearchOptions",
        "search",
    ),
    ("retrieve",): Entry(
        "Find evidence for problems that have none yet.",
        "stepgold.retrieval",
        "RetrieveOptions",
        "retrieve",
    ),
    ("sample",): Entry(
        "Sample candidate traces for problems. Solutions are split into steps; those "
        "with too few or too many are rejected.",
        "stepgold.sampling",
        "SampleOptions",
        "sample",
    ),
    ("judge",): Entry(
        "Judge every step, grounded in the evidence. Quotes are verified.",
        "stepgold.judging",
        "JudgeOptions",
        "judge",
    ),
    ("continue",): Entry(
        "Label steps by Monte Carlo continuation. A step's score is the share of its"
        " continuations that reach the gold answer.",
        "stepgold.continuing",
        "ContinueOptions",
        "continue_",
    ),
    ("consensus",): Entry(
        "Combine labelers, and keep what they agree on. Disagreement is an abstention, not a"
        " failure.",
        "stepgold.agreeing",
        "ConsensusOptions",
        "consensus",
    ),
    ("score",): Entry(
        "Score steps with a process reward model. Traces that do not fit the model's "
        "window are reported, never truncated.",
        "stepgold.scoring_run",
        "ScoreOptions",
        "score",
    ),
    ("train",): Entry(
        "Train a process reward model from labels. The same command continues after an"
        " interruption, also under accelerate launch.",
        "stepgold.training",
        "TrainOptions",
        "train",
    ),
    ("evaluate",): Entry(
        "Measure labelers against gold. Follows the published protocols; "
        "intervals are bootstrapped over problems.",
        "stepgold.standings",
        "EvaluateOptions",
        "evaluate",
    ),
    ("compare",): Entry(
        "Compare labelers on the same traces. Shows agreement, kappa, alpha, correlation, "
        "first errors, and disputed traces.",
        "stepgold.comparing",
        "CompareOptions",
        "compare",
    ),
    ("report",): Entry(
        "Write one page about a dataset's labelers. One file, readable offline, "
        "with figures, curves, agreement, cost and disputed traces.",
        "stepgold.report",
        "ReportOptions",
        "report",
    ),
    ("best-of-n",): Entry(
        "Choose among N candidates by step scores. Reports accuracy by min, product, "
        "last and mean score, by majority votes, pass@N and mean accuracy.",
        "stepgold.choosing",
        "BestOfNOptions",
        "best_of_n",
    ),
    ("overlap",): Entry(
        "Find problems of a dataset in training sets. Matches by ID and by word n-grams.",
        "stepgold.overlap",
        "OverlapOptions",
        "overlap",
    ),
    ("verify",): Entry(
        "Check a release's checksums, files and counts. Exit 1 if a byte, a file or a count "
        "differs.",
        "stepgold.verifying",
        "VerifyOptions",
        "verify_release",
    ),
    ("plan",): Entry(
        "Estimate calls, cost and time before spending. Nothing is sent or stored.",
        "commands.plan",
        "",
        "plan",
    ),
    ("retry",): Entry(
        "Retry what failed or could not be read. A new label replaces the abstention.",
        "stepgold.again",
        "RetryOptions",
        "retry",
    ),
    ("trust",): Entry(
        "Trust the workspace's stepgold.toml. Until then, settings that decide where keys and "
        "texts are sent are refused.",
        "stepgold.trust",
        "TrustOptions",
        "trust",
    ),
    ("show",): Entry(
        "Show a trace with every labeler's verdicts. With --labeler also the reasoning, prompts, "
        "raw replies and continuations.",
        "stepgold.showing",
        "ShowOptions",
        "show",
    ),
    ("view",): Entry(
        "Look at the workspace in the browser. Read-only pages with filters, one page a trace, "
        "costs and failures; they follow a run in another terminal.",
        "review.server",
        "ViewOptions",
        "view",
    ),
    ("review",): Entry(
        "Let experts answer step by step in the browser. The most uncertain traces come first, with"
        " their evidence; every answer is stored at once. Answers leave and enter as files by"
        " `stepgold review export` and `stepgold review import`.",
        "review.review_server",
        "ReviewOptions",
        "review",
    ),
    ("review", "export"): Entry(
        "Write the experts' answers to a file.",
        "stepgold.review_files",
        "ReviewExportOptions",
        "review_export",
    ),
    ("review", "import"): Entry(
        "Read experts' answers from a file. StepGold's own, Potato's and Label Studio's are known.",
        "stepgold.review_files",
        "ReviewImportOptions",
        "review_import",
    ),
    ("status",): Entry(
        "Show datasets, labelers, failures and spending.",
        "stepgold.contents",
        "StatusWatched",
        "status_watched",
    ),
    ("doctor",): Entry(
        "Check installation, GPU, keys and workspace. Keys are reported as set or not set.",
        "stepgold.doctor",
        "DoctorOptions",
        "doctor",
    ),
    ("remove", "dataset"): Entry(
        "Remove a dataset with all its labels. Recorded model replies stay in the ledger.",
        "stepgold.removing",
        "RemoveDatasetAsked",
        "remove_dataset_asked",
    ),
    ("remove", "labeler"): Entry(
        "Remove the labels of one labeler. Recorded model replies stay in the ledger.",
        "stepgold.removing",
        "RemoveLabelerAsked",
        "remove_labeler_asked",
    ),
}
"""By their words."""

GROUPS = {
    "corpus": "Add, list or remove guideline documents.",
    "db": "Compact, back up, copy or check the database.",
    "remove": "Remove a dataset or a labeler.",
}
"""Help of the groups of commands, e.g. `stepgold corpus add`."""

SECTIONS = {
    "Start here": ("demo", "run", "trust", "doctor"),
    "Data": (
        *("import", "export", "sample", "overlap", "verify", "show", "view", "status", "db"),
        "remove",
    ),
    "Evidence": ("corpus", "index", "search", "retrieve"),
    "Labels": ("plan", "judge", "continue", "consensus", "review", "score", "train", "retry"),
    "Evaluation": ("evaluate", "compare", "best-of-n", "report"),
}
"""The sections of `stepgold --help` in order; other commands follow them."""


class LazyGroup(TyperGroup):
    """Looks commands up in the table, so that `--help` and short commands start quickly."""

    words: tuple[str, ...] = ()
    """The words before a command of this group, e.g. `("corpus",)`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in this group, in the order of the table."""
        at = len(self.words)
        inside = (words for words in COMMANDS if words[:at] == self.words)
        names = [words[at] for words in inside if len(words) > at]
        return list(dict.fromkeys(names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or group of that name; None if there is none."""
        if cmd_name not in self.commands:
            words = (*self.words, cmd_name)
            if words in COMMANDS:
                self.commands[cmd_name] = _command(cmd_name, words)
            elif not self.words and cmd_name in GROUPS:
                self.commands[cmd_name] = _group(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word; an unknown one is answered with the closest.

        Raises:
            InputError: there is no such command.
        """
        word = args[0]
        if (
            len(args) > 1 and (word,) in COMMANDS and tuple(args[:2]) in COMMANDS
        ):  # a command with subcommands
            return " ".join(args[:2]), _command(args[1], (word, args[1])), args[2:]
        is_known = self.get_command(ctx, word) is not None
        if not (is_known or ctx.resilient_parsing or word.startswith("-")):
            close = closest(word, self.list_commands(ctx))
            raise InputError(
                f"No such command '{word}'." + (f" Did you mean '{close}'?" if close else ""),
                remedy=" ".join(filter(None, [ctx.command_path, close, "--help"])),
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summaries, at the top level by section, without building a command."""
        listed = {} if self.words else SECTIONS
        known = {name for names in listed.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in known]
        for title, names in (*listed.items(), ("Other" if listed else "Commands", others)):
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name, self._summary(name)) for name in names])

    def _summary(self, name: str) -> str:
        entry = COMMANDS.get((*self.words, name))
        return GROUPS[name] if entry is None else entry.summary


def _command(name: str, words: tuple[str, ...]) -> Any:
    info = CommandInfo(name=name, callback=COMMANDS[words].build(), help=COMMANDS[words].help)
    found = get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
    if not any(words == longer[:-1] for longer in COMMANDS):
        return found
    group = LazyGroup(
        name=name,
        callback=found.callback,
        params=found.params,
        help=found.help,
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    group.words = words
    return group


def _group(name: str) -> LazyGroup:
    group = LazyGroup(name=name, help=GROUPS[name], no_args_is_help=True, rich_markup_mode=None)
    group.words = (name,)
    return group
