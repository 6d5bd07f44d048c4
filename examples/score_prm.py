# %% [markdown]
# # Score a PRM on ProcessBench
#
# Needs `gsm8k.json` and `math.json` of Qwen/ProcessBench in the current folder:
# `hf download Qwen/ProcessBench --repo-type dataset --include "*.json" --local-dir .`

# %%
import stepgold

PRM = "hf:Qwen/Qwen2.5-Math-PRM-7B"
ws = stepgold.Workspace("runs/processbench")

# %% Import the benchmark, one subset per file
for subset in ("gsm8k", "math"):
    print(ws.import_("processbench", f"{subset}.json", dataset="pb", subset=subset))

# %% How many traces fit, and how long will it take?
print(ws.plan(dataset="pb", prm=PRM))

# %% Score; run this cell again after an interruption, and it continues
print(ws.score(dataset="pb", prm=PRM))

# %% Evaluate with the default threshold, then with one fitted on GSM8K
print(ws.evaluate(dataset="pb", labeler="prm"))
fitted = ws.evaluate(dataset="pb", labeler="prm", threshold="fit:pb/gsm8k", subset="math")
print(f"math: {fitted.average.processbench_f1:.3f} at {fitted.threshold_source}")

# %% Step scores, for your own analysis
scores = {
    label.trace_id: [step.score for step in label.step_labels]
    for label in ws.labels(dataset="pb", labeler="prm")
}
print(len(scores), "traces scored")

# %% One page with all figures
ws.report("processbench.html", dataset="pb")
