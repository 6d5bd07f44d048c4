"""Further architectures: what both engines write is what the model's own `generate` gives."""

from __future__ import annotations

from typing import Any

import pytest

from inference.local.engines import Engine, PlainEngine, engine_for
from inference.local.model import LocalModel
from inference.local.shared_prefix import PrefixEngine, PrefixRow, SharedTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.local.vision import VisionReader, run_model
from inference.local.vision_loading import image_ids
from inference.protocol import Message
from tests.tiny_vision import shown, tiny_vision
from tests.tiny_vision_more import ALONE, SHARING

ASKED = (Message("user", "Which dose?", (shown(0, (84, 56)), shown(1, (56, 84)))), Message("assistant", "Step 1: 6 mg.\nStep 2:"))  # fmt: skip
BARE = (Message("user", "Which dose?"), ASKED[1])
NEW = 8


def loaded(kind: str) -> tuple[LocalModel, VisionReader]:
    model, processor = tiny_vision({**SHARING, **ALONE}[kind])
    reader = VisionReader(processor, image_ids(model.config, processor), model.device)
    return LocalModel(model, reader.tokenizer, 512, frozenset([4]), None, reader), reader


def by_generate(local: LocalModel, reader: VisionReader, turns: tuple[Message, ...]) -> str:
    inputs = reader.read(turns)
    model: Any = local.model
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 4, "pad_token_id": 0}
    ids = run_model(model, inputs, model.generate, **options)[0, len(inputs.ids) :].tolist()
    return str(local.tokenizer.decode(ids, skip_special_tokens=True))


def by_engine(engine: Engine, local: LocalModel, turns: tuple[Message, ...]) -> str:
    [ids], head = local.read([turns])
    trace = SharedTrace(
        ids, (PrefixRow(len(ids) - 2, ids[-2:], noise_key(0, ""), (0, 0)),), head=head
    )
    [done] = engine.continue_all(
        [trace], SamplingRule(), max_new_tokens=NEW, stop=(), tokenizer=local.tokenizer
    )
    return done.rows[0].text


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SHARING, *ALONE])
def test_the_engine_that_is_chosen_writes_what_generate_does(kind: str) -> None:
    local, reader = loaded(kind)
    wanted = [by_generate(local, reader, turns) for turns in (ASKED, BARE)]
    engine = engine_for(local)
    assert isinstance(engine, PrefixEngine if kind in SHARING else PlainEngine)
    assert (engine.slow_because is None) == (kind in SHARING)
    assert [by_engine(engine, local, turns) for turns in (ASKED, BARE)] == wanted
    assert wanted[0] != wanted[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SHARING, *ALONE])
def test_ids_are_the_processors(kind: str) -> None:
    local, reader = loaded(kind)
    engine_for(local)
    prefixes = [(ASKED[0], Message("assistant", ASKED[1].text[:end])) for end in (1, 9, 21)]
    ids, _ = local.read(prefixes)
    assert ids == [reader.read(prefix).ids for prefix in prefixes]
    assert not reader.always_asks
