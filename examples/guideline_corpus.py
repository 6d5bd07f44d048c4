# %% [markdown]
# # A guideline corpus: build it, search it, measure it
#
# Needs a folder `guidelines`, `traces.jsonl`, and `qrels.jsonl` with rows
# `{"problem", "document", "relevance", "decisive"}`.

# %%
import stepgold

ws = stepgold.Workspace("runs/corpus")

# %% Add a folder; adding it again brings the corpus up to date
print(ws.corpus_add("guidelines", corpus="guidelines", license="CC-BY-4.0", passage_tokens=160))
print(ws.corpus_list())
print(ws.index())

# %% Search
for hit in ws.search("maximum daily dose in renal impairment", k=3).as_json()["hits"]:
    print(f"{hit['document']}: {hit['text'][:80]}")

# %% Is the deciding passage found? Compare three ways to search
ws.import_("traces", "traces.jsonl", dataset="lab")
for mode in ("dense", "bm25", "hybrid"):
    print(mode, ws.retrieve(dataset="lab", evaluate="qrels.jsonl", mode=mode))

# %% Attach evidence, for the judge
print(ws.retrieve(dataset="lab", k=3))
