# %% [markdown]
# # Does a PRM choose better than a majority?
#
# Needs `problems.jsonl` with rows `{"id", "problem", "answer"}`. The models are the bundled lab's.

# %%
import stepgold

ws = stepgold.Workspace("runs/best-of-n")

# %% Sample candidates, and score every step of them
print(ws.sample(dataset="pool", problems="problems.jsonl", policy="lab", n=4, min_steps=2))
print(ws.score(dataset="pool", prm="lab"))

# %% Choose among 1, 2 and 4 candidates, averaged over all subsets of that size
result = ws.best_of_n(n=(1, 2, 4), dataset="pool", labeler="prm", expected=True)
print(result)

# %% The same for candidates and scores in files; no workspace is read
print(stepgold.Workspace().best_of_n(n=8, pool="candidates.jsonl.gz", scores="prm.jsonl.gz"))
