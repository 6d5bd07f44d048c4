"""The methods paragraph and its references."""

from __future__ import annotations

import re
from dataclasses import replace

from evaluation.methods import Methods, threshold_words
from evaluation.protocols.protocol import Protocol
from evaluation.protocols.registry import built_in_protocols, protocol_named

FOUND = Methods(
    dataset="pb",
    gold="gold",
    traces=3400,
    problems=1200,
    left_out=3,
    subsets=("gsm8k", "math"),
    thresholds={
        "prm": threshold_words(0.31, "fit:pb/dev", needed=True),
        "mine": threshold_words(0.5, "given", needed=True),
        "judge": threshold_words(0.5, "none needed: verdicts", needed=False),
    },
    missing={"prm": 0, "judge": 12},
    protocols=[protocol_named("processbench")],
    seed=7,
    resamples=2000,
    version="9.9",
)


def test_it_says_n_bootstrap_seed_and_where_thresholds_come_from() -> None:
    text = FOUND.text()
    for said in (
        "n = 3,400 traces of 1,200 problems in 2 subsets (pb)",
        "3 of them have no usable truth",
        "below 0.31 (fitted on pb/dev) for prm.",
        "below 0.5 (given) for mine.",
        "if its verdict says so for judge.",
        "missing: judge (12)",
        "2,000 resamples, seed 7",
        "StepGold 9.9",
        "Zheng et al., 2024",
    ):
        assert said in text
    assert "prm (0)" not in text


def test_every_protocol_has_a_rule_and_a_reference() -> None:
    for name, protocol in built_in_protocols().items():
        assert protocol.references, name
        assert protocol.measures[0] in protocol.rule or name == "mr-ben"
        for one in protocol.references:
            assert re.fullmatch(r"\d{4}\.\d{5}", one.arxiv)
            entry = one.bibtex()
            assert entry.startswith(f"@misc{{{one.key},")
            assert entry.count("{") == entry.count("}")
            # The key, the text and the identifier name one year, or the paper's own next one.
            year = re.search(r"\d{4}", one.key)
            assert year is not None
            assert year.group() in one.cited
            assert f"20{one.arxiv[:2]}" in entry


def test_a_plug_in_without_a_reference_is_named() -> None:
    plug_in = Protocol(
        name="ours", evaluate=protocol_named("macro-f1").evaluate, measures=("macro_f1",)
    )
    found = replace(FOUND, protocols=[plug_in])
    assert "The protocol is ours." in found.text()
    assert found.bibtex().count("@") == 1


def test_in_latex_the_entries_are_a_comment() -> None:
    tex = replace(FOUND, dataset="a_b").formatted("tex")
    assert r"(a\_b)" in tex
    paragraph, _, entries = tex.partition("\n\n")
    assert "@misc" not in paragraph
    assert all(line.startswith("%") for line in entries.splitlines())
    assert "```bibtex" in FOUND.formatted("md")
