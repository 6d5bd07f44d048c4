"""Every count of tools/house.py on a small made product, so that each is known to count."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tools import house
from tools.house_tree import Product, load
from tools.house_words import CALQUES, Passage, calques_in

Make = Callable[..., Product]

PACKAGES = ("traces", "formats", "lab", "commands")

HELD = sorted(house.LIMITS.keys() - house.NOT_YET)
"""Limits that the repository keeps."""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a repository with the packages of PACKAGES and cli.py, and loads it."""

    def made(files: Mapping[str, str], exclude: str = "") -> Product:
        (tmp_path / "pyproject.toml").write_text(
            "[tool.hatch.build.targets.wheel]\n"
            'only-include = ["traces", "formats", "lab", "commands", "cli.py"]\n' + exclude
        )
        always = {f"{name}/__init__.py": "" for name in PACKAGES}
        for name, text in (always | {"cli.py": ""} | dict(files)).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load(tmp_path)

    return made


def value(product: Product, name: str) -> int:
    """The value of one count."""
    count = house.COUNTS[name]
    return count.value(count.find(product))


def places(product: Product, name: str) -> list[str]:
    """The places of one count, as `path:line`."""
    return [f"{one.path}:{one.line}" for one in house.COUNTS[name].find(product)]


def whats(product: Product, name: str) -> list[str]:
    """What one count says of its places."""
    return [one.what for one in house.COUNTS[name].find(product)]


def test_lengths_of_files(make: Make) -> None:
    product = make({"traces/long.py": "x = 1\n" * 601, "lab/short.py": "x = 1\n" * 3})
    assert value(product, "files") == 7
    assert value(product, "longest-file") == 601
    assert places(product, "long-files") == ["traces/long.py:601"]
    assert value(product, "median-file") == 0
    assert value(product, "p90-file") == 242


def test_files_outside_the_wheel_are_no_product(make: Make) -> None:
    product = make({"tests/a.py": "x = 1\n", "tools/b.py": "x = 1\n"})
    assert {one.path.split("/")[0] for one in house.COUNTS["files"].find(product)} == {
        *PACKAGES,
        "cli.py",
    }


@pytest.mark.parametrize("pattern", ["lab/training", "/lab/training", "lab/training/**"])
def test_what_the_wheel_excludes_is_not_shipped(make: Make, pattern: str) -> None:
    files = {"lab/training/grow.py": "x = 1\n" * 10, "lab/train.py": "x = 1\n" * 2}
    product = make(files, exclude=f'exclude = ["{pattern}"]\n')
    assert value(product, "shipped-lines") == 2
    assert value(product, "files") == 7


def test_long_lines(make: Make) -> None:
    product = make({"traces/a.py": "# " + "x" * 98 + "\n# " + "x" * 99 + "\n"})
    assert places(product, "long-lines") == ["traces/a.py:2"]


def test_edges_are_pairs_of_modules(make: Make) -> None:
    product = make(
        {
            "traces/a.py": "class A: ...\nclass B: ...\n",
            "traces/__init__.py": "from traces.a import A\n",
            "lab/b.py": (
                "from typing import TYPE_CHECKING\n"
                "import json\n"
                "from traces.a import A\n"
                "from traces import a\n"
                "from traces import A as again\n"
                "if TYPE_CHECKING:\n    from lab import c\n"
                "def f():\n    import traces.a\n    from . import d\n"
            ),
            "lab/c.py": "",
            "lab/d.py": "",
        }
    )
    assert sorted(whats(product, "edges")) == [
        "lab.b -> lab.c",
        "lab.b -> lab.d",
        "lab.b -> traces",
        "lab.b -> traces.a",
        "traces -> traces.a",
    ]
    assert whats(product, "past-faces") == ["lab.b -> traces.a"]


def test_private_modules_are_private_to_their_package(make: Make) -> None:
    product = make(
        {
            "traces/_inside.py": "x = 1\n",
            "traces/a.py": "from traces._inside import x\n",
            "lab/b.py": "from traces._inside import x\n",
        }
    )
    assert places(product, "private-imports") == ["lab/b.py:1"]


def test_cycles_are_of_imports_at_load(make: Make) -> None:
    late = "def f():\n    from traces import a\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from traces import a\n"
    for back, expected in (("from traces import a\n", 1), (late, 0), (typed, 0)):
        files = {
            "traces/a.py": "from traces import b\n",
            "traces/b.py": "from traces import c\n",
            "traces/c.py": back,
        }
        assert value(make(files), "cycles") == expected
    product = make(files | {"traces/c.py": "from traces import a\n"})
    assert whats(product, "cycles") == ["traces.a <-> traces.b <-> traces.c"]


def test_a_file_with_one_reader(make: Make) -> None:
    product = make({"traces/a.py": "x = 1\n", "lab/b.py": "from traces.a import x\n"})
    assert places(product, "single-reader") == ["traces/a.py:1"]
    assert places(product, "unread") == ["lab/b.py:1"]
    product = make({"lab/c.py": "from traces.a import x\n"})
    assert places(product, "single-reader") == []


def test_readers_are_found_through_a_face(make: Make) -> None:
    reader = {"lab/b.py": "from traces import shown\n"}
    eager = {"traces/__init__.py": "from traces.a import x as shown\n"}
    lazy = {"traces/__init__.pyi": "from .a import x as shown\n"}
    for face in (eager, lazy):
        files = {"traces/a.py": "x = 1\n"} | face | reader
        assert whats(make(files), "single-reader") == ["read by lab.b only"]
        more = files | {"lab/c.py": "from traces import shown\n"}
        assert value(make(more), "single-reader") == 0
        make({"lab/c.py": "", "traces/__init__.py": ""})


def test_a_module_named_in_a_string_is_read_there(make: Make) -> None:
    product = make({"traces/a.py": "x = 1\n", "lab/b.py": "TABLE = {'a': 'traces.a'}\n"})
    assert whats(product, "single-reader") == ["read by lab.b only"]
    assert places(product, "unread") == ["lab/b.py:1"]


@pytest.mark.parametrize(
    ("path", "reader", "text", "counted"),
    [
        ("formats/field/trl.py", "traces/r.py", "x = 1\n", False),
        ("commands/judge.py", "cli.py", "x = 1\n", False),
        ("commands/judge_setup.py", "commands/judge.py", "x = 1\n", True),
        ("lab/training/grow.py", "traces/r.py", "x = 1\n", False),
        ("lab/heavy.py", "traces/r.py", "import torch\nx = 1\n", False),
        ("lab/light.py", "traces/r.py", "x = 1\ndef f():\n    import torch\n", True),
    ],
)
def test_files_that_may_have_one_reader(
    make: Make, path: str, reader: str, text: str, counted: bool
) -> None:
    module = path.removesuffix(".py").replace("/", ".")
    product = make({path: text, reader: f"from {module} import x\n"})
    assert (f"{path}:1" in places(product, "single-reader")) == counted


def test_a_heavy_reader_needs_no_guard(make: Make) -> None:
    product = make(
        {
            "lab/heavy.py": "import torch\nx = 1\n",
            "lab/reader.py": "import faiss\nfrom lab.heavy import x\n",
        }
    )
    assert places(product, "single-reader") == ["lab/heavy.py:1"]


def test_plug_ins_that_are_gone(make: Make) -> None:
    assert "'formats/field/*.py' matches no file" in whats(make({}), "stale-plug-ins")


def test_class_names_defined_twice(make: Make) -> None:
    product = make(
        {
            "traces/a.py": "class Kept: ...\nclass Other:\n    class Kept: ...\n",
            "lab/b.py": "\nclass Kept: ...\n",
        }
    )
    assert whats(product, "duplicate-classes") == ["Kept, also lab/b.py:2"]


def test_long_functions(make: Make) -> None:
    product = make(
        {
            "traces/a.py": "def short():\n" + "    x = 1\n" * 59,
            "traces/b.py": "class C:\n    async def long(self):\n" + "        x = 1\n" * 60,
        }
    )
    assert places(product, "long-functions") == ["traces/b.py:2"]


def test_many_parameters(make: Make) -> None:
    eight, nine = "a, b, c, d, e, f, *, g, h", "a, b, c, d, e, f, *, g, h, i"
    product = make(
        {
            "traces/a.py": f"def one({nine}): ...\ndef two({eight}): ...\n",
            "traces/b.py": (
                f"class C:\n    def m(self, {eight}): ...\n    def n(self, {nine}): ...\n"
            ),
            "commands/c.py": f"def command({nine}): ...\n",
        }
    )
    assert places(product, "many-parameters") == ["traces/a.py:1", "traces/b.py:3"]


def test_boolean_parameters(make: Make) -> None:
    product = make(
        {
            "traces/a.py": (
                "def by_annotation(x: bool): ...\n"
                "def by_default(x=True): ...\n"
                "def optional(x: bool | None): ...\n"
                "def quoted(x: 'bool'): ...\n"
                "def keyword(*, x: bool = False): ...\n"
                "def listed(x: list[bool], y=1): ...\n"
                "class C:\n"
                "    @x.setter\n"
                "    def x(self, value: bool): ...\n"
            ),
            "commands/options.py": (
                "import typer\nJson = Annotated[bool, typer.Option('--json')]\n"
            ),
            "commands/b.py": (
                "import typer\n"
                "from commands import options\n"
                "from commands.options import Json\n"
                "def one(as_json: Json = False): ...\n"
                "def two(as_json: options.Json, x: bool): ...\n"
                "def three(x: Annotated[bool, typer.Option()] = False): ...\n"
                "def helper(as_json: bool): ...\n"
            ),
        }
    )
    assert whats(product, "boolean-parameters") == [
        "by_annotation(x)",
        "by_default(x)",
        "optional(x)",
        "quoted(x)",
        "helper(as_json)",
    ]


CALLED = """
from dataclasses import dataclass

@dataclass
class Row:
    a: int

    @classmethod
    def read(cls, *texts): return cls(1, 2, 3, 4, 5)

def work(*values): ...

class Base:
    def inherited(self, *values): ...
"""

CALLING = """
import json
from dataclasses import dataclass
from traces import Base, shown, a
from traces.a import Row

@dataclass
class Job(Base):
    row: Row

    def __init__(self, base: Base):
        self.kept = base

    def run(self, row: Row, shown_by, other: "str"):
        self.inherited(1, 2, 3, 4, 5)
        self.row.read(1, 2, 3, 4, 5)
        self.kept.inherited(1, 2, 3, 4, 5)
        super().inherited(1, 2, 3, 4, 5)
        row.read(1, 2, 3, 4, 5)
        made = Row(1)
        made.read(1, 2, 3, 4, 5)
        Row.read(*[1], 2, 3, 4, 5)
        a.work(1, 2, 3, 4, 5)
        shown(1, 2, 3, 4, 5)
        Row(1, 2, 3, 4, 5)
        # None of these is known to be a call of the product.
        shown_by(1, 2, 3, 4, 5)
        other.inherited(1, 2, 3, 4, 5)
        json.dumps(1, 2, 3, 4, 5)
        print(1, 2, 3, 4, True)
        self.unknown(1, 2, 3, 4, 5)
        # Four are allowed.
        Row(1, 2, 3, 4, e=5)

def shadowed(shown):
    shown(1, 2, 3, 4, 5)

def flags(job: Job | None):
    shown(True, x=False)
    job.run(1, False)
"""


def test_calls_of_the_product(make: Make) -> None:
    product = make(
        {
            "traces/a.py": CALLED,
            "traces/__init__.py": "from traces.a import Base, work as shown\n",
            "lab/b.py": CALLING,
        }
    )
    assert whats(product, "many-arguments") == [
        "cls: 5",
        "self.inherited: 5",
        "self.row.read: 5",
        "self.kept.inherited: 5",
        "super().inherited: 5",
        "row.read: 5",
        "made.read: 5",
        "Row.read: 5",
        "a.work: 5",
        "shown: 5",
        "Row: 5",
    ]
    assert whats(product, "boolean-arguments") == ["shown(True)", "job.run(False)"]


def test_calques_are_looked_for_in_all_that_is_read(make: Make) -> None:
    product = make(
        {
            "traces/a.py": (
                '"""One\n\nA page stands here."""\n'
                "x = f'{1} anew'  # held\n"
                "# against gold, and\n# anew\n"
                "nobody = told = 1\n"
            ),
            "README.md": "One\n\nof ours\n",
            "docs/sub/page.md": "whoever\n",
            "CHANGELOG.md": "whoever\n",
            "tests/b.py": "# anew\n",
        }
    )
    assert places(product, "calques") == [
        "traces/a.py:3",
        "traces/a.py:4",
        "traces/a.py:4",
        "traces/a.py:6",
        "README.md:3",
        "docs/sub/page.md:1",
    ]


CAUGHT = {
    "told apart": "they are told apart by content",
    "held against": "hold the labels against gold",
    "behind": "a mark behind each step",
    "lies": "where the folder lies",
    "stands": "what stands for an image",
    "told": "bounds are told in work",
    "nobody, whoever": "whoever waits",
    "anew": "asked anew",
    "of ours": "a row of ours",
    "an own": "an own prompt",
    "a word on": "has a word on it",
    "what came of it": "says what came of it",
    "on their way": "jobs on their way",
    "so many, as many": "every so-manieth of so many",
}


@pytest.mark.parametrize("calque", CALQUES, ids=lambda one: one.phrase)
def test_each_calque_is_found(calque: object) -> None:
    phrase = getattr(calque, "phrase", "")
    found = [one.what for one in calques_in(Passage("a.py", 1, CAUGHT[phrase]))]
    assert found
    assert all(one.startswith(f"{phrase}: ") for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "a model behind an OpenAI-compatible server",
        "leaves an empty file behind",
        "the idea behind it",
        "lay the rows out",
        "the score lies between 0 and 1",
        "PRM stands for process reward model",
        "the notebook is a stand-in",
        "the judge is told that images are missing",
        "as many attempts as the policy allows",
        "twice as many",
        "so many rows that memory ends",
        "on its way to the model",
        "tell two diagnoses apart",
    ],
)
def test_plain_english_is_no_calque(text: str) -> None:
    assert list(calques_in(Passage("a.py", 1, text))) == []


def test_the_command_line(
    make: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(house.LIMITS, "stale-plug-ins")
    monkeypatch.setitem(house.LIMITS, "shipped-lines", 0)
    make({"lab/a.py": "x = 1\n"})
    root = ["--root", str(tmp_path)]
    assert house.main(root) == 0
    assert "calques" in capsys.readouterr().out
    make({"lab/a.py": "x = 1  # anew\n" + "y = 1\n" * 1000})
    assert house.main(root) == 1
    assert "NO" in capsys.readouterr().out
    assert house.main(["--json", *root]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["longest-file"] == {"value": 1001, "limit": 600, "ok": False}
    assert document["calques"] == {"value": 1, "limit": 20, "ok": True}
    assert document["unread"]["limit"] is None
    assert house.main(["--list", "calques", *root]) == 0
    assert capsys.readouterr().out.startswith("lab/a.py:1: anew: ")
    assert house.main(["--list", "longest-file", "--json", *root]) == 1
    assert json.loads(capsys.readouterr().out)[0]["line"] == 1001


def test_every_limit_is_of_a_count() -> None:
    assert house.LIMITS.keys() <= house.COUNTS.keys()


@pytest.fixture(scope="module")
def repository() -> Product:
    return load(house.ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("name", HELD)
def test_the_repository_keeps_its_limits(repository: Product, name: str) -> None:
    count = house.COUNTS[name]
    found = count.find(repository)
    assert count.value(found) <= house.LIMITS[name], found[:20]
