"""Pairs of gold answer and solution on which answer checkers have gone wrong, with the decision.

`True` and `False` are decisions; `None` says that the solution names no answer that can be read,
which is counted apart and is never "wrong".
"""

from __future__ import annotations

from typing import NamedTuple

from tests.labeling.answers.answer_cases import CHOICES, MATHEMATICS, NUMBERS, OPTIONS


class Pair(NamedTuple):
    """One gold answer, one solution, one right decision."""

    gold: str
    solution: str
    right: bool | None
    options: tuple[str, ...] = ()


_DRUGS = ("Amoxicillin", "Amoxicillin-clavulanate", "Ceftriaxone", "None of the above", "Vitamin C")
_DOSES = ("5 mg", "50 mg", "0.5 mg", "5 mg/kg")
_NINE = tuple(f"cause {number}" for number in range(1, 10))

_CHOICE_PAIRS = [
    # letters only within the options
    Pair("A", "The answer is E.", False, _DRUGS),
    Pair("A", "The answer is F.", None, _DRUGS),
    Pair("I", "The answer is I.", True, _NINE),
    Pair("I", "I think the answer is I.", True, _NINE),
    Pair("I", "The answer is I believe H.", None, _NINE),
    Pair("I", "The answer is (H).", False, _NINE),
    # what it is not
    Pair("B", "The answer is not B.", None, _DRUGS),
    Pair("B", "The answer cannot be B.", None, _DRUGS),
    Pair("B", "The answer is C, not B.", False, _DRUGS),
    Pair("B", "The answer is never B but C.", False, _DRUGS),
    Pair("B", "The answer is B rather than A.", True, _DRUGS),
    Pair("B", "It is not A, so the answer is B.", True, _DRUGS),
    Pair("B", "Option B is incorrect. The answer is C.", False, _DRUGS),
    Pair("B", "If the answer were B the fever would have gone.", None, _DRUGS),
    Pair("B", "Whether the answer is B depends on the culture.", None, _DRUGS),
    # the text of an option instead of its letter
    Pair("B", "The answer is amoxicillin-clavulanate.", True, _DRUGS),
    Pair("A", "The answer is amoxicillin-clavulanate.", False, _DRUGS),
    Pair("A", "The answer is amoxicillin.", True, _DRUGS),
    Pair("A", "The answer is Amoxicillin (500 mg).", True, _DRUGS),
    Pair("D", "The answer is none of the above.", True, _DRUGS),
    Pair("E", "The answer is vitamin C.", True, _DRUGS),
    Pair("C", "The answer is vitamin C.", False, _DRUGS),
    Pair("ceftriaxone", "The answer is (C).", True, _DRUGS),
    Pair("A", "The answer is 5 mg.", True, _DOSES),
    Pair("A", "The answer is 5 mg/kg.", False, _DOSES),
    Pair("A", "The answer is 50 mg.", False, _DOSES),
    Pair("C", "The answer is 0.5 mg.", True, _DOSES),
    # several, or a change of mind
    Pair("A", "The answer is A/B.", None, _DRUGS),
    Pair("A", "The answer is A & C.", None, _DRUGS),
    Pair("A", "The answer is either A or B.", None, _DRUGS),
    Pair("A", "The answer is both A and B.", None, _DRUGS),
    Pair("A", "The answer is B. Hmm, the answer is A.", True, _DRUGS),
    Pair("A", "The answer is A. On reflection, the answer is B.", False, _DRUGS),
    Pair("A", r"\boxed{A} and then \boxed{B}", False, _DRUGS),
    Pair("A", "The answer is A.\n\nStep 5: the answer is C.", False, _DRUGS),
    # dress
    Pair("B", "### Final Answer\n\\boxed{\\textbf{(B)}}", True, _DRUGS),
    Pair("B", "<answer>B</answer>", True, _DRUGS),
    Pair("B", "Answer - B", True, _DRUGS),
    Pair("B", "ANSWER: B", True, _DRUGS),
    Pair("B", "**The correct answer is: B) Amoxicillin-clavulanate**", True, _DRUGS),
    Pair("B", "The answer is Ｂ.", True, _DRUGS),
    Pair("B", "The answer is “B”.", True, _DRUGS),
    Pair("B", "The answer is `B`.", True, _DRUGS),
    Pair("B", "The answer is [B].", True, _DRUGS),
    Pair("B", "The answer is {B}.", True, _DRUGS),
    Pair("B", "The answer is option\nB", True, _DRUGS),
    Pair("B", "My final answer: B", True, _DRUGS),
    Pair("B", "", None, _DRUGS),
    Pair("B", "B-lactams are of no use here.", None, _DRUGS),
]

_WORD_PAIRS = [
    Pair("yes", "The answer is yes, with caution.", True),
    Pair("yes", "The answer is no.", False),
    Pair("no", "The answer is no, it is yes that some say.", True),
    Pair("no", "The answer is none.", None),
    Pair("maybe", "The answer is maybe.", True),
    Pair("maybe", "Answer: **maybe**", True),
    Pair("maybe", "The answer is not maybe.", None),
    Pair("yes", "The answer is unknown", None),
    Pair("Yes", "Final answer: YES!", True),
    Pair("no", "no", True),
    Pair("yes", "The answer is yes or no.", None),
]

_TEXT_PAIRS = [
    Pair("Kawasaki disease", "## Final Diagnosis: Kawasaki disease", True),
    Pair("Kawasaki disease", "## Final Diagnosis: Kawasaki Disease (M30.3)", True),
    Pair("Kawasaki disease", "The diagnosis is Kawasaki disease.", True),
    Pair("Kawasaki disease", "The final diagnosis is not Kawasaki disease.", None),
    Pair("Kawasaki disease", "Final diagnosis: Scarlet fever", False),
    Pair("Sjögren's syndrome", "The answer is Sjogren syndrome.", True),
    Pair("Sjögren syndrome", "Final diagnosis: Sjögren’s Syndrome", True),
    Pair("Guillain-Barré syndrome", "Final diagnosis: Guillain Barre syndrome", True),
    Pair("acute pancreatitis", "Final diagnosis: the acute pancreatitis", True),
    Pair("acute pancreatitis", "Final diagnosis: chronic pancreatitis", False),
    Pair("acute pancreatitis", "Final diagnosis: pancreatitis", False),
    Pair("type 2 diabetes", "Final diagnosis: type 1 diabetes", False),
    Pair("type 2 diabetes", "Final diagnosis: Type II diabetes", True),
    Pair("anaemia", "Final diagnosis: anemia", True),
    Pair("hypothyroidism", "Final diagnosis: hyperthyroidism", False),
    Pair("COPD (chronic obstructive pulmonary disease)", "Final diagnosis: COPD", True),
    Pair(
        "chronic obstructive pulmonary disease (COPD)",
        "Final diagnosis: chronic obstructive pulmonary disease",
        True,
    ),
    Pair("chronic obstructive pulmonary disease (COPD)", "Final diagnosis: COPD", True),
]

_NUMBER_PAIRS = [
    Pair("0.5", "The answer is 50%.", True),
    Pair("50%", r"The answer is \frac{1}{2}.", True),
    Pair("50", "The answer is 0.5.", False),
    Pair("1/3", "The answer is 0.333.", False),
    Pair("1/3", r"\boxed{\dfrac{1}{3}}", True),
    Pair("2/3", "The answer is 4/6.", True),
    Pair("1000000", "The answer is 1,000,000.", True),
    Pair("1e6", "The answer is 1 million.", True),
    Pair("5 mg", "The answer is 5 mcg.", False),
    Pair("5 mg", "The answer is 5000 mcg.", True),
    Pair("5 mg", "The answer is 0.005 g.", True),
    Pair("10 mg", "The answer is 5-10 mg.", False),
    Pair("10 mg", "The answer is 10 to 20 mg.", False),
    Pair("10 mg", "The answer is 10 mg or 20 mg.", None),
    Pair("10 mg", "The answer is at most 10 mg.", False),
    Pair("12", "The answer is 12:30.", False),
    Pair("1", "The answer is 1:3.", False),
    Pair("37 °C", "The answer is 37°C.", True),
    Pair("37 °C", "The answer is 37 °F.", False),
    Pair("0", "The answer is -0.", True),
    Pair("0", "The answer is zero.", True),
    Pair("-3", "The answer is negative 3.", True),
    Pair("100", "The answer is 10^2.", True),
    Pair("8", "The answer is 2^3.", True),
    Pair("7", "The answer is 7.0.", True),
    Pair("7", "The answer is 07.", True),
    Pair("$1,250.50", "The answer is \\$1250.5.", True),
    Pair("42", r"$$\boxed{42}$$", True),
    Pair("42", r"\[ \boxed{42\ \text{patients}} \]", True),
    Pair("42", r"\boxed{x = 42}", True),
    Pair("42", r"\boxed{\boxed{42}}", True),
    Pair("42", "The answer is forty-two.", None),
    Pair("2.5 h", "The answer is 150 min.", True),
    Pair("2.5 h", "The answer is 2 h 30 min.", True),
]

_MATH_PAIRS = [
    Pair(r"\frac{\pi}{4}", r"\boxed{\pi/4}", True),
    Pair(r"\frac{\pi}{4}", r"\boxed{45^\circ}", False),
    Pair(r"\{1,2,3\}", r"\boxed{1,2,3}", True),
    Pair(r"\{1,2,3\}", r"\boxed{\{3,2,1\}}", True),
    Pair("(2,3)", r"\boxed{(3,2)}", False),
    Pair(r"x \in [1, 2]", r"\boxed{[1,2]}", True),
    Pair(r"[1,2] \cup [3,4]", r"\boxed{[3,4]\cup[1,2]}", True),
    Pair("2x+1", r"\boxed{1+2x}", True),
    Pair("(x+1)^2", r"\boxed{x^2+2x+1}", True),
    Pair(r"\sqrt{12}", r"\boxed{2\sqrt{3}}", True),
    Pair(r"\frac{1}{\sqrt{2}}", r"\boxed{\frac{\sqrt{2}}{2}}", True),
    Pair(r"e^{2}", r"\boxed{e^2}", True),
    Pair(r"\log_2 8", r"\boxed{3}", True),
    Pair("3+4i", r"\boxed{4i+3}", True),
    Pair(r"\frac{1}{2}", r"\boxed{10^{10^{10^{10}}}}", None),
    Pair("x^2", r"\boxed{\frac{}{}}", None),
]


def tricky_pairs() -> list[Pair]:
    """All pairs: those of the single readers and those above."""
    choices = [
        Pair("B", text, None if letter is None else letter == "B", OPTIONS)
        for text, letter in CHOICES
    ]
    numbers = [Pair(gold, text, right) for gold, text, _, right in NUMBERS]
    mathematics = [Pair(gold, text, right) for gold, text, right in MATHEMATICS]
    return [
        *choices,
        *numbers,
        *mathematics,
        *_CHOICE_PAIRS,
        *_WORD_PAIRS,
        *_TEXT_PAIRS,
        *_NUMBER_PAIRS,
        *_MATH_PAIRS,
    ]
