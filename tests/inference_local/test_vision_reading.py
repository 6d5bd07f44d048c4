"""Conversations with images: the processor's ids, the same beginning for all prefixes, right pixels."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.local.engines import prove_reading
from inference.local.vision import ImageHead, VisionReader, decode_image
from inference.local.vision_config import folder_takes_images, takes_images
from inference.local.vision_loading import image_ids, load_processor, load_vision_model
from inference.protocol import Message
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from tests.tiny_vision import KINDS, save_vision, shown, tiny_vision
from traces.errors import ModelRefused

STEPS = ("Step 1: 6 mg per kg.\n", "\n\nStep 2: 300 mg", " ", "- A 180")


def conversation(*steps: str, images: int = 2, question: str = "Which dose?") -> list[Message]:
    user = Message("user", question, tuple(shown(n, (84, 56 + 28 * n)) for n in range(images)))
    head = [Message("system", "Be brief."), user]
    return [*head, Message("assistant", "".join(steps))] if steps else head


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: pytest.FixtureRequest) -> tuple[Any, Any, VisionReader]:
    """Model, processor and reader of each architecture."""
    model, processor = tiny_vision(request.param)
    return model, processor, VisionReader(processor, image_ids(model.config, processor), model.device)  # fmt: skip


def headed(reader: VisionReader, messages: list[Message]) -> ImageHead:
    head = reader.head(messages)
    assert head is not None
    return head


def test_ids_are_the_processors_on_the_whole_conversation(
    made: tuple[Any, Any, VisionReader],
) -> None:
    _, processor, reader = made
    prefixes = [conversation(*STEPS[:steps]) for steps in range(len(STEPS) + 1)]
    rows = reader.ids(prefixes, headed(reader, prefixes[0]))
    for messages, ids in zip(prefixes, rows, strict=True):
        turns: list[dict[str, Any]] = [
            {
                "role": turn.role,
                "content": [
                    *({"type": "image", "image": decode_image(image)} for image in turn.images),
                    {"type": "text", "text": turn.text},
                ],
            }
            for turn in messages[:2]
        ]
        prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
        written = "".join(turn.text for turn in messages[2:])
        images = [part["image"] for part in turns[1]["content"] if "image" in part]
        wanted = processor(text=[prompt + written], images=[images], add_special_tokens=False)
        assert ids == tuple(wanted["input_ids"][0]) == reader.read(messages).ids
        # Nothing of the template stands between the generation prompt and what is written.
        assert str(reader.tokenizer.decode(list(ids))).endswith(f"assistant<|close|>\n\n{written}")


def test_the_head_holds_every_image_token_and_goes_alone(
    made: tuple[Any, Any, VisionReader],
) -> None:
    model, processor, reader = made
    whole = reader.read(conversation(*STEPS))
    head = headed(reader, conversation(*STEPS))
    placeholders = image_ids(model.config, processor)
    assert placeholders & set(head.ids)
    assert not placeholders & set(whole.ids[len(head.ids) :])
    for name, value in reader.inputs(head).beside.items():
        per_token = value.shape[:2] == (1, len(head.ids))
        wanted = whole.beside[name]
        assert value.equal(wanted[:, : len(head.ids)] if per_token else wanted)


def test_heads_are_equal_where_ids_and_images_are(made: tuple[Any, Any, VisionReader]) -> None:
    *_, reader = made
    head = headed(reader, conversation("a"))
    assert headed(reader, conversation("b")) is head
    assert headed(reader, conversation("a", question="Which other dose?")) == head
    assert headed(reader, conversation("a", images=1)) != head
    other = replace(conversation()[1], images=(shown(7, (84, 56)), shown(8, (84, 84))))
    assert headed(reader, [conversation()[0], other]) != head


def test_pixels_that_were_let_go_are_read_again(
    made: tuple[Any, Any, VisionReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor, _ = made
    reader = VisionReader(processor, image_ids(model.config, processor), model.device)
    monkeypatch.setattr("inference.local.vision._PIXEL_BYTES", 1)
    head = headed(reader, conversation("a"))
    before = reader.inputs(head)
    headed(reader, conversation("a", images=1))
    again = reader.inputs(head)
    assert again is not before
    assert again.ids == before.ids
    assert all(value.equal(again.beside[name]) for name, value in before.beside.items())


def test_without_images_the_ids_are_those_of_the_text(made: tuple[Any, Any, VisionReader]) -> None:
    _, processor, reader = made
    messages = conversation(*STEPS, images=0)
    assert reader.head(messages) is None
    [ids] = reader.ids([messages], None)
    assert ids == tuple(processor(text=[reader.text(messages)], add_special_tokens=False)["input_ids"][0])  # fmt: skip
    assert reader.read(messages).beside == {}
    assert ids[0] == reader.tokenizer.bos_token_id != ids[1]


def test_a_placeholder_that_a_question_spells_is_no_image(
    made: tuple[Any, Any, VisionReader],
) -> None:
    model, processor, reader = made
    marks = [mark for name in ("image_token", "boi_token") if (mark := getattr(processor, name, None))]  # fmt: skip
    question = f"What do {' and '.join(marks)} show?"
    count = len(set(reader.read(conversation("a")).ids) & image_ids(model.config, processor))
    spelled = reader.read(conversation(f"As {marks[0]} shows", question=question))
    assert len(set(spelled.ids) & image_ids(model.config, processor)) == count
    assert (
        spelled.ids
        == reader.ids(
            [conversation(f"As {marks[0]} shows", question=question)],
            headed(reader, conversation(question=question)),
        )[0]
    )


def test_a_template_that_shows_no_image_is_refused() -> None:
    model, processor = tiny_vision("llava")
    processor.chat_template = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    reader = VisionReader(processor, image_ids(model.config, processor), model.device)
    with pytest.raises(ModelRefused, match=r"rejects it: .*<image>"):
        prove_reading(reader)


def test_a_template_that_ends_with_the_image_is_refused() -> None:
    model, processor = tiny_vision("llava")
    processor.chat_template = (
        "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}<image><image>"
    )
    reader = VisionReader(processor, image_ids(model.config, processor), model.device)
    with pytest.raises(ModelRefused, match="nothing after the images"):
        reader.head(conversation())


def test_without_a_template_turns_are_paragraphs() -> None:
    model, processor = tiny_vision("llava")
    processor.chat_template = processor.tokenizer.chat_template = None
    reader = VisionReader(processor, image_ids(model.config, processor), model.device)
    assert reader.text(conversation("a b")) == (
        "<|begin|>Be brief.\n\n<image><image>Which dose?\n\na b"
    )


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_vision(tmp_path, "qwen2_vl")
    model, reader = load_vision_model(tmp_path)
    made_model, made_processor = tiny_vision("qwen2_vl")
    made = VisionReader(made_processor, image_ids(made_model.config, made_processor), model.device)
    got, wanted = reader.read(conversation("a")), made.read(conversation("a"))
    assert got.ids == wanted.ids
    assert {name: value.tolist() for name, value in got.beside.items()} == {
        name: value.tolist() for name, value in wanted.beside.items()
    }
    assert model.config.model_type == "qwen2_vl"


def test_what_takes_images_is_told_by_its_files(tmp_path: Path) -> None:
    vision = save_vision(tmp_path / "v", "llava")
    tokenizer = tiny_tokenizer()
    text = save(tmp_path / "t", tokenizer, tiny_llama(tokenizer))
    assert folder_takes_images(vision)
    assert takes_images(str(vision))
    assert not folder_takes_images(text)
    assert not takes_images("nobody/nothing-of-the-hub")
    (vision / "processor_config.json").unlink()  # a text model made of it: no image processor
    assert not folder_takes_images(vision)
    (text / "config.json").write_bytes(b"\xff{")
    assert not folder_takes_images(text)


def test_an_unknown_processor_is_refused(tmp_path: Path) -> None:
    save_vision(tmp_path, "qwen2_vl")
    (tmp_path / "processor_config.json").write_text('{"processor_class": "NoSuchProcessor"}')
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelRefused, match=r"image processor in .* cannot be loaded"):
        load_processor(tmp_path)


def encoded(image: Image.Image, **options: Any) -> Any:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return replace(shown(0), data=out.getvalue())


def test_pictures_are_upright_opaque_and_of_eight_bits() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    assert decode_image(encoded(clear)).getpixel((0, 0)) == (10, 20, 30)
    assert decode_image(encoded(clear)).getpixel((1, 1)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16))
    assert decode_image(encoded(deep)).getpixel((1, 1)) == (0x80, 0x80, 0x80)
    turned = Image.new("RGB", (6, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert decode_image(encoded(turned, exif=exif)).size == (3, 6)
    assert decode_image(encoded(Image.new("1", (5, 5), 1))).mode == "RGB"
