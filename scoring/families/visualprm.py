"""VisualPRM: a conversation with images, one user turn a step, each answered with `+` or `-`.

Wang et al., "VisualPRM: An Effective Process Reward Model for Multimodal Reasoning",
https://arxiv.org/abs/2503.10291; checkpoints `OpenGVLab/VisualPRM-8B` and `-8B-v1_1`. Layout and
read-out: `generate_steps_with_soft_score_v2` of the published modeling_internvl_chat.py. The first user
turn is the question with its images and the first step; every earlier step was answered `+`; the score
is P(+) against P(-) of the next answer, read where the assistant's turn begins. All of a trace are read
in one forward pass. Steps stay a list, where the script joins and splits them at blank lines.

Aggregated by the mean ("soft"). For VisualProcessBench a step is correct above 0.85 (the official
threshold, as third parties quote it; the code's own default is 0.5). The conversation is written as the
script writes it, whatever chat template the checkpoint has. The system turn is the checkpoint's
`system_message` (config.json), as in the script. Where there is none the script takes that of the
template that the original configuration names; a converted checkpoint has lost that name, and gets the
turn of the published training conversations (InternVL 2410d1d,
tools/reasoning_data_pipeline/utils/constants.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import Aggregation, LaidOutTrace
from scoring.images.tokens import ImageTokens
from scoring.layout import ChatLayout, Turn, single_token
from traces import Evidence, PrmError, Problem, TraceInContext

NAME: Final = "visualprm"
ORIGINAL: Final = "InternVLRewardModel"
"""The architecture that the published checkpoints name, of their own code."""
SIGNS: Final = ("+", "-")
"""The answers whose logits are compared: right, wrong."""
IMAGE: Final = "<image>"
"""Where a question wants an image to stand."""
SYSTEM: Final = """\
You are an advanced AI assistant, designed to serve as a process supervision model. In this task, I will \
provide a problem statement followed by the first step of the solution process. For each subsequent turn, \
I will give you a new step in the solution. Your role is to assess whether the solution process is correct \
up to the current step.

- In the **first round**, I will input the problem and the first step of the solution process.
- In **each subsequent round**, I will provide the next step in the solution.

For each step, you should:

- Respond with **"+"** if you believe the solution process is correct up to this step.
- Respond with **"-"** if you detect any issues or errors in the process up to this step.

Please note:
- Only respond with **"+"** or **"-"**. Do not provide any additional explanations, comments, or \
justifications.

Your task is to verify the accuracy and correctness of each step in the given solution process."""
"""The published training conversations' system turn."""
SYSTEM_OF_TEMPLATE: Final = {
    "internvl2_5": "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态"
    "大语言模型。"
}
"""What the published code writes for checkpoints that name a template and no `system_message`: the
template's own (conversation.py of InternVL 2410d1d)."""
TEMPLATE: Final = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] }}<|im_end|>\n"
    "{% endfor %}"
)
"""The conversation as InternVL 2.5's own code writes it."""


class VisualPrm:
    """The VisualPRM read-out on one checkpoint."""

    name = NAME
    aggregation: Aggregation = "mean"
    takes_documents = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        backbone: PreTrainedModel,
        head: Tensor,
        images: ImageTokens,
        system: str = SYSTEM,
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has `+` and `-` as single tokens.
            backbone: the language model inside, whose embedding knows the ids of `images`.
            head: `[vocabulary, width]`, the rows of the output head.
            images: the images of problems as tokens.
            system: the system turn.

        Raises:
            PrmError: a token of the conversation is missing.
        """
        signs = [single_token(tokenizer, sign) for sign in SIGNS]
        control = [single_token(tokenizer, token) for token in ("<|im_start|>", "<|im_end|>")]
        if None in signs or None in control:
            raise PrmError(
                'The checkpoint has no single tokens "+", "-", "<|im_start|>" and "<|im_end|>", which '
                "the family visualprm reads.",
                remedy="name the right family with --family",
            )
        self.tokenizer, self.backbone, self.image_tokens = tokenizer, backbone, images
        self._plus, self._minus = (int(i) for i in signs if i is not None)
        self._rows = head[[self._plus, self._minus]].detach().float()
        self._system = system
        self._layouts: dict[int, ChatLayout] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The system turn, which checkpoints may change; and that images are not shown, if so."""
        unseen = {} if self.image_tokens.shown else {"images": False}
        return {"system": self._system, **unseen}

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Images, question and first step, then step by step, each answered `+`; no place for evidence.

        Raises:
            CannotLayOut: an image of the problem cannot be read.
        """
        first, *others = context.trace.steps
        asked: list[str | int] = ["### Question:\n", *self._question(context.problem)]
        places: list[list[str | int]] = [[*asked, f"\n\n### Solution Process:\n{first}"]]
        for step in others:
            places += [[self._plus], [step]]
        ids, markers = self._layout(len(context.trace.steps)).fill([*places, [self._plus]])
        # An answer is predicted by the token before it.
        read_at = tuple((place - 1,) for place in markers if ids[place] == self._plus)
        return LaidOutTrace(context.trace.id, ids, read_at)

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """P(+) of the two answers, read before each."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]

    def _question(self, problem: Problem) -> list[str | int]:
        """The question with its images where it wants them, else before it."""
        images = self.image_tokens.of(problem)
        options = (f"\n({chr(65 + i)}) {option}" for i, option in enumerate(problem.options))
        texts = _around(f"{problem.question}{''.join(options)}", len(images))
        pieces: list[str | int] = [texts[0]]
        for image, text in zip(images, texts[1:], strict=True):
            pieces += [*image, text]
        return pieces

    def _layout(self, steps: int) -> ChatLayout:
        """The conversation of that many steps, rendered once."""
        if steps not in self._layouts:
            turns: list[Turn] = [
                ("system", self._system),
                *[("user", None), ("assistant", None)] * steps,
            ]
            self._layouts[steps] = ChatLayout(
                self.tokenizer, turns, add_generation_prompt=False, template=TEMPLATE
            )
        return self._layouts[steps]


def _around(question: str, images: int) -> list[str]:
    """The texts before, between and behind the images.

    One image goes into a line above the question, several into numbered ones (the convention of
    InternVL, as in VLMEvalKit e8e78f05, vlmeval/vlm/internvl), unless the question has a place for each.

    >>> _around("Which dose?", 1)
    ['', '\\nWhich dose?']
    >>> _around("Is <image> worse than <image>?", 2)
    ['Is ', ' worse than ', '?']
    """
    if images and question.count(IMAGE) == images:
        return question.split(IMAGE)
    if images <= 1:
        return ["", f"\n{question}"] if images else [question]
    lines = [f"\nImage-{number}: " for number in range(1, images + 1)]
    return [lines[0].lstrip(), *lines[1:], f"\n{question}"]
