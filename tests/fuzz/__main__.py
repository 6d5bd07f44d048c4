"""Fuzz every reader: `make fuzz`, or `python -m tests.fuzz --inputs 200000 --seed 7`.

Inputs are seeded mutations and the same on every machine. Each must end as a command's exit codes
0, 1 and 2 do: read, rejected, or a `ToolkitError`. With `--atheris TARGET` one target is fuzzed by
coverage, where atheris is installed (`pip install atheris`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import Target, all_targets
from traces import ToolkitError, watch_defects

SLOW_S = 2.0
"""CPU seconds from which an input is reported as slow."""


@dataclass
class Finding:
    """An input that ended in another way than it may, or took long."""

    target: str
    number: int
    what: str
    data: bytes = field(repr=False)

    @property
    def file_name(self) -> str:
        """Where the input is kept."""
        kept = hashlib.sha256(self.data).hexdigest()[:12]
        return f"{self.target.replace(' ', '-')}-{kept}"


@dataclass
class Report:
    """What a run of the fuzzer found."""

    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    broken: dict[str, Finding] = field(default_factory=dict)
    """The first finding of each kind of failure."""
    slow: list[Finding] = field(default_factory=list)


def attempt(target: Target, data: bytes, folder: Path) -> tuple[str | None, bool]:
    """Run one input; returns what is wrong (None if nothing is), and whether it was refused."""
    refused = False
    try:
        with watch_defects() as defects:
            try:
                target.run(data, folder)
            except ToolkitError:
                refused = True
    except BaseException as fault:
        if isinstance(fault, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(fault.__traceback__)[-1]
        shown = "".join(traceback.format_exception(fault)[-4:])
        return f"{type(fault).__name__} at {place.filename}:{place.lineno}\n{shown}", refused
    return (f"a defect was recorded: {defects[0]}" if defects else None), refused


def inputs(targets: Sequence[Target], seed: int) -> Iterator[tuple[int, Target, bytes]]:
    """Numbered inputs without end; the same for the same targets and seed."""
    weights = [target.weight for target in targets]
    choose = random.Random(f"targets/{seed}")
    for number in range(10**9):
        (target,) = choose.choices(targets, weights)
        rng = random.Random(f"{seed}/{target.name}/{number}")
        yield number, target, mutate(rng, target.seeds, rows=target.rows)


def fuzz(
    targets: Sequence[Target],
    *,
    seed: int,
    most: int,
    seconds: float,
    show: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run inputs until there were `most`, or the time is over."""
    report = Report()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="stepgold-fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, target, data in inputs(targets, seed):
            if number >= most or time.monotonic() > until:
                break
            before = time.process_time()
            what, refused = attempt(target, data, Path(folder))
            took = time.process_time() - before
            report.inputs[target.name] += 1
            report.refused[target.name] += refused
            report.seconds[target.name] += took  # type: ignore[assignment]
            if what is not None and (key := what.splitlines()[0]) not in report.broken:
                report.broken[key] = Finding(target.name, number, what, data)
                show(f"input {number}, {target.name}: {what}")
            if took > SLOW_S:
                report.slow.append(Finding(target.name, number, f"{took:.1f} CPU s", data))
                show(f"input {number}, {target.name}: {took:.1f} CPU s")
            if number and number % 10_000 == 0:
                show(f"{number:,} inputs, {len(report.broken)} failures")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if an input ended in a way that it may not."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz every reader.")
    parser.add_argument("--inputs", type=int, default=10**9, help="stop after this many [none]")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time [none]")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other inputs [0]")
    parser.add_argument("--target", action="append", help="part of a target's name [all]")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    parser.add_argument("--list", action="store_true", help="print the targets")
    parser.add_argument("--replay", type=Path, help="run one kept file through --target")
    parser.add_argument("--atheris", metavar="TARGET", help="fuzz one target by coverage")
    asked, rest = parser.parse_known_args(arguments)
    named = asked.target or [""]
    targets = [one for one in all_targets() if any(part in one.name for part in named)]
    if asked.list:
        print("\n".join(one.name for one in targets))
        return 0
    if asked.atheris is not None:
        return _by_coverage(asked.atheris, rest)
    if asked.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            what, _ = attempt(targets[0], asked.replay.read_bytes(), Path(folder))
        print(what or "nothing is wrong")
        return 0 if what is None else 1
    report = fuzz(targets, seed=asked.seed, most=asked.inputs, seconds=asked.seconds, show=_show)
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
        for one in (*report.broken.values(), *report.slow):
            (asked.keep / one.file_name).write_bytes(one.data)
    print(table(report))
    return 1 if report.broken else 0


def _show(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(report: Report) -> str:
    """What was run, by target, and the failures."""
    lines = [f"{'TARGET':<32}{'INPUTS':>8}{'REFUSED':>9}{'CPU S':>9}"]
    for name, count in sorted(report.inputs.items()):
        cpu = report.seconds[name]
        lines.append(f"{name:<32}{count:>8}{report.refused[name]:>9}{cpu:>9.1f}")
    total = sum(report.inputs.values())
    cpu = sum(report.seconds.values())
    lines.append(f"{'all':<32}{total:>8}{sum(report.refused.values()):>9}{cpu:>9.1f}")
    lines += [
        f"FAILED {one.target}, input {one.number}: {one.what}" for one in report.broken.values()
    ]
    lines += [f"SLOW {one.target}, input {one.number}: {one.what}" for one in report.slow]
    lines.append(f"{len(report.broken)} kinds of failure, {len(report.slow)} slow inputs")
    return "\n".join(lines)


def _by_coverage(name: str, rest: Sequence[str]) -> int:
    """Let atheris choose the inputs; `rest` are libFuzzer's options, such as `-runs=100000`."""
    try:
        atheris: Any = import_module("atheris")  # no wheel for some machines: not a dependency
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    target = next(one for one in all_targets() if one.name == name)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        corpus = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)

        def one_input(data: bytes) -> None:
            what, _ = attempt(target, data, Path(folder))
            if what is not None:
                raise RuntimeError(what)

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *rest, str(corpus)], one_input)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
