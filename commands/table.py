"""Commands that are nothing but their verb: options, one call, the result in words."""

from __future__ import annotations

import typer

from commands.build import command
from stepgold import contents, corpora, doctor, exchange, overlap, retrieval, searching

COMMANDS = {
    "import": command(
        exchange.ImportOptions,
        exchange.import_,
        help="Import traces, or a third party's scores. Every row that cannot be used is listed.",
    ),
    "export": command(
        exchange.ExportOptions,
        exchange.export,
        help="Write the labels of one labeler to a file. It holds all that the format can carry.",
    ),
    "index": command(
        searching.IndexOptions,
        searching.index,
        help="Bring the index over all corpora up to date. Only new passages are encoded.",
    ),
    "search": command(
        searching.SearchOptions,
        searching.search,
        help="Show the passages for a text. Its words are marked; similarity, source and offsets"
        " are given.",
    ),
    "retrieve": command(
        retrieval.RetrieveOptions,
        retrieval.retrieve,
        help="Find evidence for problems that have none yet.",
    ),
    "overlap": command(
        overlap.OverlapOptions,
        overlap.overlap,
        help="Find problems of a dataset in training sets. They are matched by id and by word"
        " n-grams.",
    ),
    "status": command(
        contents.StatusOptions,
        contents.status,
        help="Show datasets, labelers, failures and spending.",
    ),
    "doctor": command(
        doctor.DoctorOptions,
        doctor.doctor,
        help="Check installation, GPU, keys and workspace. Keys are reported as set or not set.",
    ),
}
"""By name; `cli.py` decides their order."""

corpus = typer.Typer(help="Add, list or remove guideline documents.", no_args_is_help=True)
corpus.command("add")(
    command(
        corpora.CorpusAddOptions,
        corpora.corpus_add,
        help="Split documents into passages. An unchanged file costs nothing; one that is gone is"
        " removed.",
    )
)
corpus.command("list")(
    command(
        corpora.CorpusListOptions,
        corpora.corpus_list,
        help="List the corpora with their size and license.",
    )
)
corpus.command("remove")(
    command(
        corpora.CorpusRemoveOptions,
        corpora.corpus_remove,
        help="Remove a corpus or one document. Attached evidence stays readable.",
    )
)

remove = typer.Typer(help="Remove a dataset or a labeler.", no_args_is_help=True)
remove.command("dataset")(
    command(
        contents.RemoveDatasetOptions,
        contents.remove_dataset,
        help="Remove a dataset with all its labels. Recorded model replies stay in the ledger.",
    )
)
remove.command("labeler")(
    command(
        contents.RemoveLabelerOptions,
        contents.remove_labeler,
        help="Remove the labels of one labeler. Recorded model replies stay in the ledger.",
    )
)
