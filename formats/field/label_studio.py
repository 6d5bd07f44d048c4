"""Tasks for Label Studio (labelstud.io), with a labeler's verdicts as predictions.

A JSON list of `{"data": {"trace_id", "problem", "options", "evidence", "steps": [{"text",
"suggestion"}]}, "predictions": [{"model_version", "result": [{"from_name": "verdict_0",
"to_name": "step_0", "type": "choices", "value": {"choices": ["correct"]}}]}]}`. INTERFACE is the
labeling interface to paste into the project; its Repeater makes one block a step. What Label
Studio exports as JSON is read by `formats.field.expert_answers`.
"""

from __future__ import annotations

from typing import Any

from formats.field.potato import remarks
from formats.rows import ExportRow, FileFormat, Part, Rendered, require_label

INTERFACE = """\
<View>
  <Header value="Problem"/>
  <Text name="problem" value="$problem"/>
  <Text name="options" value="$options"/>
  <Collapse><Panel value="Evidence"><Text name="evidence" value="$evidence"/></Panel></Collapse>
  <Repeater on="$steps" indexFlag="{{idx}}">
    <View>
      <Text name="step_{{idx}}" value="$steps[{{idx}}].text"/>
      <Text name="suggestion_{{idx}}" value="$steps[{{idx}}].suggestion"/>
      <Choices name="verdict_{{idx}}" toName="step_{{idx}}" choice="single" showInline="true">
        <Choice value="correct" hotkey="c"/>
        <Choice value="incorrect" hotkey="i"/>
        <Choice value="neutral" hotkey="n"/>
        <Choice value="cannot_tell" hotkey="t"/>
      </Choices>
      <TextArea name="note_{{idx}}" toName="step_{{idx}}" placeholder="Note" maxSubmissions="1"/>
    </View>
  </Repeater>
</View>
"""
"""The labeling interface of these tasks (documented tags of the open-source edition)."""


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    labels = row.label.step_labels
    steps = [
        {"text": text, "suggestion": remarks(labels[index]) if index < len(labels) else ""}
        for index, text in enumerate(row.trace.steps)
    ]
    result: list[dict[str, Any]] = [
        {
            "from_name": f"verdict_{index}",
            "to_name": f"step_{index}",
            "type": "choices",
            "value": {"choices": [step.verdict.value]},
        }
        for index, step in enumerate(labels)
        if step.verdict is not None
    ]
    data = {
        "trace_id": row.trace.id,
        "problem": row.problem.question,
        "options": "\n".join(row.problem.options),
        "evidence": "\n\n".join(one.passage.text for one in row.evidence),
        "steps": steps,
    }
    prediction = {"model_version": row.labeler.name, "result": result}
    return Rendered({"data": data, "predictions": [prediction]})


FORMAT = FileFormat(
    name="label-studio",
    required=frozenset({"data", "predictions"}),
    render=_render,
    always_list=True,
    carries=frozenset(
        {Part.OPTIONS, Part.NEUTRAL, Part.LATER_VERDICTS, Part.EVIDENCE, Part.REMARKS}
    ),
)
