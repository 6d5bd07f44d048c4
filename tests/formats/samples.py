"""One sound row of every format."""

from __future__ import annotations

from typing import Any

from formats.field.critique import BEGIN, END
from tests.formats.test_case import CASE
from tests.formats.test_math_shepherd import INPUT, LABEL
from tests.formats.test_medprm import QUESTION, SOLUTION
from tests.formats.test_mr_ben import ROW as MR_BEN
from tests.formats.test_processbench import ROW as PROCESSBENCH
from tests.formats.test_traces_jsonl import ROW as TRACES
from tests.formats.test_trl import ROW as TRL

CRITIQUE = {
    "messages": [
        {
            "role": "user",
            "content": f"{BEGIN}\n\nProblem:\n\nHow many?\n\nSolution:\n\n<paragraph_0>\n1 + 1 = 2\n"
            f"</paragraph_0>\n\n<paragraph_1>\nSo 3.\n</paragraph_1>{END}",
        },
        {
            "role": "assistant",
            "content": "<paragraph_0>\nTrue.\nVerdict: correct\n</paragraph_0>\n\n<paragraph_1>\n"
            "Verdict: incorrect\n</paragraph_1>\n\n\\boxed{1}",
        },
    ]
}

MR_GSM8K: dict[str, Any] = {
    "uuid": "u-1",
    "question": "How far?",
    "ground_truth_solution": "5 * 2 = 10\n#### 10",
    "ground_truth_answer": 10,
    "model_output_steps": ["Step 1: 5 + 2 = 7", "Step 2: #### 7"],
    "model_output_answer_correctness": "wrong",
    "model_output_solution_correctness": "wrong",
    "model_output_solution_first_error_step": 1,
    "model_output_solution_first_error_reason": "Adds where it has to multiply.",
    "question_type": "original",
}
BIG_BENCH_MISTAKE: dict[str, Any] = {
    "input": "((2 + 3)) =",
    "steps": ["2 + 3 = 6.", "So the answer is 6."],
    "answer": "6",
    "target": "5",
    "mistake_index": 0,
}
PRMBENCH: dict[str, Any] = {
    "original_question": "What is 2 + 3?",
    "modified_question": "What is 2 + 3?",
    "original_process": ["2 + 3 = 5", "So 5"],
    "modified_process": ["Assume 6", "6 = 6", "So 6"],
    "modified_steps": [1, 2],
    "error_steps": [1, 3],
    "reason": "Circular.",
    "idx": "prm_test_p1_0",
    "question": "What is 2 + 3?",
    "classification": "circular",
}
PRM800K: dict[str, Any] = {
    "labeler": "340d89bc",
    "timestamp": "2023-01-22T04:34:27.052924",
    "generation": 9,
    "is_quality_control_question": False,
    "is_initial_screening_question": False,
    "question": {
        "problem": "What is 2 * 3?",
        "ground_truth_solution": "6",
        "ground_truth_answer": "6",
        "pre_generated_steps": ["Let us see.", "2 * 3 = 6.", "So 7.", "# Answer\n\n7"],
        "pre_generated_answer": "7",
        "pre_generated_verifier_score": 0.01,
    },
    "label": {
        "steps": [
            {
                "completions": [{"text": "Let us see.", "rating": 0, "flagged": None}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "2 * 3 = 6.", "rating": 1, "flagged": None}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [
                    {"text": "So 7.", "rating": -1, "flagged": None},
                    {"text": "So 6.", "rating": 1, "flagged": False},
                ],
                "human_completion": None,
                "chosen_completion": None,
            },
        ],
        "total_time": 278270,
        "finish_reason": "found_error",
    },
}
VISUALPROCESSBENCH: dict[str, Any] = {
    "image": ["images/1.png", "images/2.png"],
    "question": "Which shape?",
    "answer": "B",
    "response": {
        "steps": ["I see a circle.", "Hm.", "So A."],
        "process_correctness": [1, 0, -1],
    },
    "policy_model": "InternVL2.5-8B",
    "data_source": "MMMU",
}
OPENRLHF: dict[str, Any] = {"input": INPUT, "value": ["+", "-"]}
QWEN_PRM: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "2 + 3 = 5.<extra_0>So 6.<extra_0>"},
    ],
    "labels": [True, False],
}
SHAREGPT: dict[str, Any] = {
    "image": "a.png",
    "conversations": [
        {
            "from": "human",
            "value": "### Question:\n<image>\nHow many?\n\n### Solution Process:\nI see 2.",
        },
        {"from": "gpt", "value": "+"},
        {"from": "human", "value": "So 3."},
        {"from": "gpt", "value": "-"},
    ],
}
VISUALPRM_RAW: dict[str, Any] = {
    "image": "a.png",
    "question": "What is 3 squared?",
    "answer": "9",
    "response": "Square it.\n\nIt is 9.",
    "steps_with_score": [
        {"step": "Square it.", "score": 0.75, "num_mc_correct": 12, "num_mc_total": 16},
        {"step": "It is 9.", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 0},
    ],
}
OPENR: dict[str, Any] = {
    "question": "What is 2 + 3?",
    "process": "2 + 3 = 5.\n\n\n\n\nSo 6.\n\n\n\n\n",
    "label": ["+", "-"],
}
RESPONSES = {"id": "r1", "problem": "2 + 2?", "answer": "4", "response": "Add.\n\nIt is 4."}
FOVER: dict[str, Any] = {
    "id": "f1",
    "problem": "Prove that 2 + 2 is even.",
    "solution_steps": ["2 + 2 = 4.", "4 is odd.", "So it is odd."],
    "error_labels": [True, False, None],
    "base_dataset": "isabelle_all",
    "messages": [{"role": "user", "content": "Is it right?"}],
    "y_true": "PROVED",
}
HARD2VERIFY: dict[str, Any] = {
    "unique_id": "h1",
    "question": "Prove that n + n is even.",
    "model_response_by_step": ["n + n = 2n.", "2n is odd.", "Done."],
    "human_labels": [1, 0, 0],
    "human_labels_first_error_idx": 1,
    "model": "m",
    "canary": "c-1",
}
DELTABENCH: dict[str, Any] = {
    "id": "d1",
    "origin": "made",
    "task_l1": "math",
    "question": "What is 2 + 3 + 4?",
    "answer": "9",
    "sections_content": "section1: 2 + 3 = 5.\n\n\nsection2: hmm, wait.\n\nsee section 7:\n"
    "section3: 5 + 4 = 10.\n\nsection4: so 10.",
    "sections_labeled_info": [
        {"section_number": 1, "reasoning_correctness": "0", "explanation": ""},
        {"section_number": 2, "reasoning_correctness": "0", "explanation": ""},
        {"section_number": 3, "reasoning_correctness": "1", "explanation": "It is 9."},
        {"section_number": 4, "reasoning_correctness": "", "explanation": ""},
    ],
    "reason_error_section_numbers": [3],
    "reason_unuseful_section_numbers": [2],
    "final_correct": 0,
    "error_type": "Calculation Error",
}
AGENTPROCESSBENCH: dict[str, Any] = {
    "total_index": 3,
    "query_index": 0,
    "question": "Who wrote it?",
    "data_source": "made",
    "ground_truth": {"target": ["Ann"]},
    "answer_text": "Bob",
    "messages": [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "Who wrote it?"},
        {
            "role": "assistant",
            "content": "I search.",
            "tool_calls": [{"function": {"name": "search", "arguments": '{"q": "it"}'}}],
        },
        {"role": "tool", "name": "search", "content": "It was written by Ann."},
        {"role": "assistant", "content": "Let me think."},
        {"role": "assistant", "content": "Bob wrote it."},
    ],
    "step_labels": {"2": 1, "4": 0, "5": -1},
    "final_label": -1,
}
SAMPLES: dict[str, dict[str, Any]] = {
    "case": CASE,
    "mr-ben": MR_BEN,
    "mr-gsm8k": MR_GSM8K,
    "big-bench-mistake": BIG_BENCH_MISTAKE,
    "prmbench": PRMBENCH,
    "prm800k": PRM800K,
    "visualprocessbench": VISUALPROCESSBENCH,
    "visualprm-raw": VISUALPRM_RAW,
    "openr": OPENR,
    "responses": RESPONSES,
    "fover": FOVER,
    "hard2verify": HARD2VERIFY,
    "deltabench": DELTABENCH,
    "agentprocessbench": AGENTPROCESSBENCH,
    "medprm": QUESTION | {"solutions": [SOLUTION]},
    "math-shepherd": {"input": INPUT, "label": LABEL},
    "openrlhf": OPENRLHF,
    "qwen-prm": QWEN_PRM,
    "sharegpt": SHAREGPT,
    "critique": CRITIQUE,
    "trl": TRL,
    "processbench": PROCESSBENCH,
    "traces": TRACES,
}
WANT_LABELER = {"trl", "openrlhf", "qwen-prm", "sharegpt", "critique", "openr"}
