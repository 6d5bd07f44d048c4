# %% [markdown]
# # Label traces with a judge, Monte Carlo and their consensus
#
# Needs `traces.jsonl` and a folder `guidelines`. The models are the bundled lab's, so that the
# script runs offline; set JUDGE to "gemini:gemini-3.5-flash-lite" and POLICY to "openai:my-model"
# for yours.

# %%
import stepgold

JUDGE = "lab"
POLICY = "lab"
ws = stepgold.Workspace("runs/labels")

# %% Guidelines and traces
ws.corpus_add("guidelines", corpus="guidelines", passage_tokens=160)
ws.index()
ws.import_("traces", "traces.jsonl", dataset="bio")
ws.retrieve(dataset="bio", k=1)

# %% A pilot, to see what a trace costs and whether the verdicts make sense
print(ws.judge(dataset="bio", judge=JUDGE, limit=2))
print(ws.status())

# %% The whole dataset: the pilot is not paid for again
print(ws.judge(dataset="bio", judge=JUDGE))
print(ws.continue_(dataset="bio", policy=POLICY, k=4, strategy="early-stop"))

# %% Keep what both agree on
kept = ws.consensus(dataset="bio", judge="judge", mc="mc")
print(kept)

# %% A training set, and how good the labels are where gold exists
print(ws.export("trl", "training.jsonl", dataset="bio", labeler="consensus"))
print(ws.compare("judge", "mc", "consensus", dataset="bio"))
