-- A database at revision m0008, written by the last code that had this revision and dumped with
-- sqlite3.Connection.iterdump(). Every table has a row.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('m0008');
CREATE TABLE batch_jobs (
	id VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	name VARCHAR, 
	requests INTEGER NOT NULL, 
	progress VARCHAR NOT NULL, 
	progress_at FLOAT NOT NULL, 
	cancelled_at FLOAT, 
	created_at FLOAT NOT NULL, 
	closed_at FLOAT, 
	ending VARCHAR, 
	detail VARCHAR, 
	CONSTRAINT pk_batch_jobs PRIMARY KEY (id), 
	CONSTRAINT ck_batch_jobs_state CHECK (state IN ('prepared', 'submitted', 'closed')), 
	CONSTRAINT ck_batch_jobs_ending CHECK (ending IN ('succeeded', 'failed', 'cancelled', 'expired', 'stuck', 'lost', 'refused', 'never_sent')), 
	CONSTRAINT ck_batch_jobs_closed CHECK ((state = 'closed') = (ending IS NOT NULL))
);
INSERT INTO "batch_jobs" VALUES('j1','gemini:m','https://service','submitted','batches/x',1,'RUNNING',1001.0,NULL,1000.0,NULL,NULL,NULL);
CREATE TABLE batch_requests (
	"key" VARCHAR NOT NULL, 
	job_id VARCHAR, 
	jobs INTEGER NOT NULL, 
	request VARCHAR NOT NULL, 
	tokens INTEGER NOT NULL, 
	usd FLOAT, 
	meta JSON NOT NULL, 
	CONSTRAINT pk_batch_requests PRIMARY KEY ("key"), 
	CONSTRAINT ck_batch_requests_usd CHECK (usd >= 0), 
	CONSTRAINT fk_batch_requests_job_id FOREIGN KEY(job_id) REFERENCES batch_jobs (id)
);
INSERT INTO "batch_requests" VALUES('k1','j1',1,'Is it?',100,0.25,'{"trace_id": "t1"}');
CREATE TABLE continuations (
	trace_label_pk INTEGER NOT NULL, 
	step_index INTEGER NOT NULL, 
	continuation_index INTEGER NOT NULL, 
	text VARCHAR NOT NULL, 
	finish_reason VARCHAR NOT NULL, 
	answer VARCHAR, 
	correct BOOLEAN, 
	tokens INTEGER NOT NULL, 
	CONSTRAINT pk_continuations PRIMARY KEY (trace_label_pk, step_index, continuation_index), 
	CONSTRAINT fk_continuations_trace_label_pk FOREIGN KEY(trace_label_pk) REFERENCES trace_labels (pk) ON DELETE CASCADE
);
INSERT INTO "continuations" VALUES(4,0,0,'So 10 mg.','stop','10',1,4);
INSERT INTO "continuations" VALUES(4,0,1,'json:"json: cut\u0000"','length',NULL,NULL,9);
CREATE TABLE corpora (
	pk INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	licence VARCHAR, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_corpora PRIMARY KEY (pk), 
	CONSTRAINT uq_corpora_name UNIQUE (name)
);
INSERT INTO "corpora" VALUES(1,'guides','CC-BY-4.0','2026-11-30T13:14:29.424+00:00');
CREATE TABLE corpus_files (
	pk INTEGER NOT NULL, 
	corpus_pk INTEGER NOT NULL, 
	root VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	sha256 VARCHAR, 
	settings VARCHAR NOT NULL, 
	problems JSON NOT NULL, 
	CONSTRAINT pk_corpus_files PRIMARY KEY (pk), 
	CONSTRAINT uq_corpus_files_corpus_pk_root_path UNIQUE (corpus_pk, root, path), 
	CONSTRAINT fk_corpus_files_corpus_pk FOREIGN KEY(corpus_pk) REFERENCES corpora (pk) ON DELETE CASCADE
);
INSERT INTO "corpus_files" VALUES(1,1,'/docs','a.jsonl','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','r1','[{"line": 3}]');
CREATE TABLE corpus_sources (
	corpus_pk INTEGER NOT NULL, 
	source VARCHAR NOT NULL, 
	CONSTRAINT pk_corpus_sources PRIMARY KEY (corpus_pk), 
	CONSTRAINT fk_corpus_sources_corpus_pk FOREIGN KEY(corpus_pk) REFERENCES corpora (pk) ON DELETE CASCADE
);
INSERT INTO "corpus_sources" VALUES(1,'https://guides');
CREATE TABLE datasets (
	pk INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	retrieval_config JSON, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_datasets PRIMARY KEY (pk), 
	CONSTRAINT uq_datasets_name UNIQUE (name)
);
INSERT INTO "datasets" VALUES(1,'d','{"retriever": "dense", "k": 1}','2026-11-30T13:14:29.365+00:00');
CREATE TABLE document_origins (
	document_pk INTEGER NOT NULL, 
	corpus_file_pk INTEGER NOT NULL, 
	split VARCHAR NOT NULL, 
	CONSTRAINT pk_document_origins PRIMARY KEY (document_pk), 
	CONSTRAINT fk_document_origins_document_pk FOREIGN KEY(document_pk) REFERENCES documents (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_document_origins_corpus_file_pk FOREIGN KEY(corpus_file_pk) REFERENCES corpus_files (pk) ON DELETE CASCADE
);
INSERT INTO "document_origins" VALUES(1,1,'s1');
CREATE TABLE documents (
	pk INTEGER NOT NULL, 
	corpus_pk INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	source VARCHAR NOT NULL, 
	CONSTRAINT pk_documents PRIMARY KEY (pk), 
	CONSTRAINT uq_documents_corpus_pk_name UNIQUE (corpus_pk, name), 
	CONSTRAINT fk_documents_corpus_pk FOREIGN KEY(corpus_pk) REFERENCES corpora (pk) ON DELETE CASCADE
);
INSERT INTO "documents" VALUES(1,1,'dosing','On dosing','Give 5 mg/kg.','sha-Give 5 mg/kg.','dosing.md');
CREATE TABLE evidence (
	evidence_set_pk INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	similarity FLOAT, 
	evidence_passage_pk INTEGER NOT NULL, 
	CONSTRAINT pk_evidence PRIMARY KEY (evidence_set_pk, position), 
	CONSTRAINT ck_evidence_similarity CHECK (similarity BETWEEN -1 AND 1), 
	CONSTRAINT ck_evidence_rank CHECK (rank >= 0), 
	CONSTRAINT fk_evidence_evidence_set_pk FOREIGN KEY(evidence_set_pk) REFERENCES evidence_sets (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_evidence_evidence_passage_pk FOREIGN KEY(evidence_passage_pk) REFERENCES evidence_passages (pk)
);
INSERT INTO "evidence" VALUES(1,0,0,NULL,1);
INSERT INTO "evidence" VALUES(2,0,0,0.5,2);
INSERT INTO "evidence" VALUES(3,0,0,0.5,2);
CREATE TABLE evidence_passages (
	pk INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	corpus VARCHAR NOT NULL, 
	document VARCHAR NOT NULL, 
	passage_index INTEGER NOT NULL, 
	start_char INTEGER NOT NULL, 
	end_char INTEGER NOT NULL, 
	title VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	CONSTRAINT pk_evidence_passages PRIMARY KEY (pk), 
	CONSTRAINT uq_evidence_passages_digest UNIQUE (digest)
);
INSERT INTO "evidence_passages" VALUES(1,'78e3b38e6143c4751bdf8c60c2339d87810ab2154620950d65b54bb137717cf9','guides','dosing',0,0,18,'Dosing','Came with the row.');
INSERT INTO "evidence_passages" VALUES(2,'e16bf8479cfd41cdd62419aa16095c6d4ef541a4275ff6e6710568d3b09d71ff','guides','dosing',0,0,13,'Dosing','Give 5 mg/kg.');
CREATE TABLE evidence_sets (
	pk INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_evidence_sets PRIMARY KEY (pk), 
	CONSTRAINT uq_evidence_sets_digest UNIQUE (digest)
);
INSERT INTO "evidence_sets" VALUES(1,'1a77b429d37ffb0ced1b35ac0ed00c7b4d34b3c375a2074fa35d4cef94347e72');
INSERT INTO "evidence_sets" VALUES(2,'0a49521615954ec010b52225b76da5678fcc5be63889512311e09b2afa3be33e');
INSERT INTO "evidence_sets" VALUES(3,'e36814309431e9514b3d15bd8225ef6a98169180eb9d189b46f29b75b4848cf2');
CREATE TABLE evidence_steps (
	evidence_set_pk INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	step_index INTEGER NOT NULL, 
	CONSTRAINT pk_evidence_steps PRIMARY KEY (evidence_set_pk, position), 
	CONSTRAINT fk_evidence_steps_evidence_set_pk_position FOREIGN KEY(evidence_set_pk, position) REFERENCES evidence (evidence_set_pk, position) ON DELETE CASCADE, 
	CONSTRAINT ck_evidence_steps_step_index CHECK (step_index >= 0)
);
INSERT INTO "evidence_steps" VALUES(3,0,0);
CREATE TABLE failures (
	dataset_pk INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	retryable BOOLEAN NOT NULL, 
	detail VARCHAR NOT NULL, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_failures PRIMARY KEY (dataset_pk, id, stage), 
	CONSTRAINT ck_failures_reason CHECK (reason IN ('blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', 'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', 'gold_unusable')), 
	CONSTRAINT fk_failures_dataset_pk FOREIGN KEY(dataset_pk) REFERENCES datasets (pk) ON DELETE CASCADE
);
INSERT INTO "failures" VALUES(1,'t1','judge','model_error',1,'timeout','2026-11-30T13:14:29.423+00:00');
CREATE TABLE labelers (
	pk INTEGER NOT NULL, 
	dataset_pk INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	config JSON NOT NULL, 
	model VARCHAR, 
	resolved_model VARCHAR, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_labelers PRIMARY KEY (pk), 
	CONSTRAINT uq_labelers_dataset_pk_name UNIQUE (dataset_pk, name), 
	CONSTRAINT ck_labelers_kind CHECK (kind IN ('gold', 'judge', 'mc', 'consensus', 'prm', 'expert')), 
	CONSTRAINT fk_labelers_dataset_pk FOREIGN KEY(dataset_pk) REFERENCES datasets (pk) ON DELETE CASCADE
);
INSERT INTO "labelers" VALUES(1,1,'gold','gold','{"from": "test"}',NULL,NULL,'2026-11-30T13:14:29.373+00:00');
INSERT INTO "labelers" VALUES(2,1,'judge','judge','{"votes": 1}','gemini:m','m-001','2026-11-30T13:14:29.387+00:00');
INSERT INTO "labelers" VALUES(3,1,'mc','mc','{"k": 2}','hf:m',NULL,'2026-11-30T13:14:29.420+00:00');
CREATE TABLE model_calls (
	"key" VARCHAR NOT NULL, 
	request VARCHAR NOT NULL, 
	text VARCHAR, 
	raw VARCHAR NOT NULL, 
	finish_reason VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	resolved_model VARCHAR, 
	input_tokens INTEGER NOT NULL, 
	cached_tokens INTEGER NOT NULL, 
	output_tokens INTEGER NOT NULL, 
	thinking_tokens INTEGER NOT NULL, 
	usd FLOAT, 
	prices_as_of VARCHAR, 
	meta JSON NOT NULL, 
	hits INTEGER NOT NULL, 
	created_at VARCHAR NOT NULL, purpose VARCHAR, 
	CONSTRAINT pk_model_calls PRIMARY KEY ("key"), 
	CONSTRAINT ck_model_calls_usd CHECK (usd >= 0)
);
INSERT INTO "model_calls" VALUES('k0','Is it?','Yes.','{}','stop','gemini:m','m-001',10,2,3,4,0.25,'2026-11-01','{"purpose": "judge"}',1,'2026-11-30T13:14:29.458+00:00','judge');
CREATE TABLE passages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	document_pk INTEGER NOT NULL, 
	passage_index INTEGER NOT NULL, 
	start_char INTEGER NOT NULL, 
	end_char INTEGER NOT NULL, 
	title VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	CONSTRAINT uq_passages_document_pk_passage_index UNIQUE (document_pk, passage_index), 
	CONSTRAINT fk_passages_document_pk FOREIGN KEY(document_pk) REFERENCES documents (pk) ON DELETE CASCADE
);
INSERT INTO "passages" VALUES(1,1,0,0,8,'','Give 5 m');
INSERT INTO "passages" VALUES(2,1,1,8,13,'','g/kg.');
CREATE TABLE problems (
	pk INTEGER NOT NULL, 
	dataset_pk INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	question VARCHAR NOT NULL, 
	options JSON NOT NULL, 
	answer VARCHAR, 
	images JSON NOT NULL, 
	meta JSON NOT NULL, 
	digest VARCHAR NOT NULL, 
	evidence_set_pk INTEGER, 
	CONSTRAINT pk_problems PRIMARY KEY (pk), 
	CONSTRAINT uq_problems_dataset_pk_id UNIQUE (dataset_pk, id), 
	CONSTRAINT fk_problems_dataset_pk FOREIGN KEY(dataset_pk) REFERENCES datasets (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_problems_evidence_set_pk FOREIGN KEY(evidence_set_pk) REFERENCES evidence_sets (pk)
);
INSERT INTO "problems" VALUES(1,1,'p','How much, é?','["5 mg", "10 mg"]','B','["x.png"]','{"phi_removed": false}','7ca7b3367a367c2142e933edde7a2db37b30aa26893071002a94633282c2f720',2);
CREATE TABLE prompts (
	sha256 VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_prompts PRIMARY KEY (sha256)
);
INSERT INTO "prompts" VALUES('pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp','Judge the steps.','2026-11-30T13:14:29.419+00:00');
CREATE TABLE quotes (
	trace_label_pk INTEGER NOT NULL, 
	step_index INTEGER NOT NULL, 
	text VARCHAR NOT NULL, 
	document INTEGER, 
	verified BOOLEAN NOT NULL, 
	start_char INTEGER, 
	end_char INTEGER, 
	method VARCHAR, 
	CONSTRAINT pk_quotes PRIMARY KEY (trace_label_pk, step_index), 
	CONSTRAINT fk_quotes_trace_label_pk_step_index FOREIGN KEY(trace_label_pk, step_index) REFERENCES step_labels (trace_label_pk, step_index) ON DELETE CASCADE
);
INSERT INTO "quotes" VALUES(3,0,'5 mg',1,1,5,9,'exact');
CREATE TABLE rejected_rows (
	source_file_pk INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	file VARCHAR NOT NULL, 
	line INTEGER, 
	id VARCHAR, 
	reason VARCHAR NOT NULL, 
	imported BOOLEAN NOT NULL, 
	CONSTRAINT pk_rejected_rows PRIMARY KEY (source_file_pk, position), 
	CONSTRAINT fk_rejected_rows_source_file_pk FOREIGN KEY(source_file_pk) REFERENCES source_files (pk) ON DELETE CASCADE
);
INSERT INTO "rejected_rows" VALUES(1,0,'a.json',3,'t2','The row has no steps.',0);
INSERT INTO "rejected_rows" VALUES(2,0,'policy',NULL,'p:policy:1','The solution is cut.',0);
CREATE TABLE source_files (
	pk INTEGER NOT NULL, 
	dataset_pk INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	format VARCHAR NOT NULL, 
	options JSON NOT NULL, 
	imported_at VARCHAR NOT NULL, 
	CONSTRAINT pk_source_files PRIMARY KEY (pk), 
	CONSTRAINT uq_source_files_dataset_pk_name UNIQUE (dataset_pk, name), 
	CONSTRAINT fk_source_files_dataset_pk FOREIGN KEY(dataset_pk) REFERENCES datasets (pk) ON DELETE CASCADE
);
INSERT INTO "source_files" VALUES(1,1,'a.json','sha-1','traces','{}','2026-11-30T13:14:29.366+00:00');
INSERT INTO "source_files" VALUES(2,1,'policy','473df1bf9f1546d015e97261299209181cf35122a4589bbbd4e2f77a2fd3cc40','sample','{"n": 2}','2026-11-30T13:14:29.470+00:00');
CREATE TABLE step_labels (
	trace_label_pk INTEGER NOT NULL, 
	step_index INTEGER NOT NULL, 
	verdict VARCHAR, 
	score FLOAT, 
	abstention VARCHAR, 
	abstention_detail VARCHAR, 
	successes INTEGER, 
	continuations INTEGER, 
	unparsed INTEGER, 
	unfinished INTEGER, 
	reasoning VARCHAR, 
	CONSTRAINT pk_step_labels PRIMARY KEY (trace_label_pk, step_index), 
	CONSTRAINT ck_step_labels_verdict CHECK (verdict IN ('correct', 'incorrect', 'neutral')), 
	CONSTRAINT ck_step_labels_abstention CHECK (abstention IN ('blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', 'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', 'gold_unusable')), 
	CONSTRAINT ck_step_labels_score CHECK (score BETWEEN 0 AND 1), 
	CONSTRAINT ck_step_labels_word CHECK ((abstention IS NULL) = (verdict IS NOT NULL OR score IS NOT NULL)), 
	CONSTRAINT fk_step_labels_trace_label_pk FOREIGN KEY(trace_label_pk) REFERENCES trace_labels (pk) ON DELETE CASCADE
);
INSERT INTO "step_labels" VALUES(3,0,'correct',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'fits');
INSERT INTO "step_labels" VALUES(3,1,'incorrect',0.25,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "step_labels" VALUES(3,2,NULL,NULL,'no_evidence','json:"half \ud83d"',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "step_labels" VALUES(4,0,NULL,0.5,NULL,NULL,1,2,0,1,NULL);
CREATE TABLE steps (
	trace_pk INTEGER NOT NULL, 
	step_index INTEGER NOT NULL, 
	text VARCHAR NOT NULL, 
	CONSTRAINT pk_steps PRIMARY KEY (trace_pk, step_index), 
	CONSTRAINT fk_steps_trace_pk FOREIGN KEY(trace_pk) REFERENCES traces (pk) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES(1,0,'Take 5 mg.');
INSERT INTO "steps" VALUES(1,1,'Double it.');
INSERT INTO "steps" VALUES(1,2,'Give 10 mg.');
INSERT INTO "steps" VALUES(2,0,'Take 5 mg.');
INSERT INTO "steps" VALUES(3,0,'Give 10 mg.');
CREATE TABLE trace_evidence (
	trace_pk INTEGER NOT NULL, 
	evidence_set_pk INTEGER NOT NULL, 
	CONSTRAINT pk_trace_evidence PRIMARY KEY (trace_pk), 
	CONSTRAINT fk_trace_evidence_trace_pk FOREIGN KEY(trace_pk) REFERENCES traces (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_trace_evidence_evidence_set_pk FOREIGN KEY(evidence_set_pk) REFERENCES evidence_sets (pk)
);
INSERT INTO "trace_evidence" VALUES(2,3);
CREATE TABLE trace_labels (
	pk INTEGER NOT NULL, 
	labeler_pk INTEGER NOT NULL, 
	trace_pk INTEGER NOT NULL, 
	first_error_given BOOLEAN NOT NULL, 
	first_error_index INTEGER, 
	abstention VARCHAR, 
	abstention_detail VARCHAR, 
	meta JSON NOT NULL, 
	imported BOOLEAN NOT NULL, 
	created_at VARCHAR NOT NULL, 
	CONSTRAINT pk_trace_labels PRIMARY KEY (pk), 
	CONSTRAINT uq_trace_labels_labeler_pk_trace_pk UNIQUE (labeler_pk, trace_pk), 
	CONSTRAINT ck_trace_labels_abstention CHECK (abstention IN ('blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', 'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', 'gold_unusable')), 
	CONSTRAINT ck_trace_labels_first_error CHECK (first_error_given OR first_error_index IS NULL), 
	CONSTRAINT fk_trace_labels_labeler_pk FOREIGN KEY(labeler_pk) REFERENCES labelers (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_trace_labels_trace_pk FOREIGN KEY(trace_pk) REFERENCES traces (pk) ON DELETE CASCADE
);
INSERT INTO "trace_labels" VALUES(1,1,1,1,1,NULL,NULL,'{}',1,'2026-11-30T13:14:29.378+00:00');
INSERT INTO "trace_labels" VALUES(2,1,2,1,NULL,NULL,NULL,'{}',1,'2026-11-30T13:14:29.378+00:00');
INSERT INTO "trace_labels" VALUES(3,2,1,0,NULL,NULL,NULL,'{"documents_dropped": 1, "documents": 2, "tokens": 900}',0,'2026-11-30T13:14:29.388+00:00');
INSERT INTO "trace_labels" VALUES(4,3,2,0,NULL,NULL,NULL,'{}',0,'2026-11-30T13:14:29.421+00:00');
CREATE TABLE traces (
	pk INTEGER NOT NULL, 
	dataset_pk INTEGER NOT NULL, 
	problem_pk INTEGER NOT NULL, 
	source_file_pk INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	subset VARCHAR NOT NULL, 
	generator VARCHAR, 
	final_answer VARCHAR, 
	final_answer_correct BOOLEAN, 
	n_steps INTEGER NOT NULL, 
	meta JSON NOT NULL, 
	digest VARCHAR NOT NULL, 
	evidence_set_pk INTEGER, 
	CONSTRAINT pk_traces PRIMARY KEY (pk), 
	CONSTRAINT uq_traces_dataset_pk_id UNIQUE (dataset_pk, id), 
	CONSTRAINT ck_traces_n_steps CHECK (n_steps >= 1), 
	CONSTRAINT fk_traces_dataset_pk FOREIGN KEY(dataset_pk) REFERENCES datasets (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_traces_problem_pk FOREIGN KEY(problem_pk) REFERENCES problems (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_traces_source_file_pk FOREIGN KEY(source_file_pk) REFERENCES source_files (pk) ON DELETE CASCADE, 
	CONSTRAINT fk_traces_evidence_set_pk FOREIGN KEY(evidence_set_pk) REFERENCES evidence_sets (pk)
);
INSERT INTO "traces" VALUES(1,1,1,1,0,'t0','sub','gpt','10 mg',1,3,'{"n": 1.5}','0978e29b9e418648692aeeedab5c6b308e4438b7a449437667da789c2fefa750',1);
INSERT INTO "traces" VALUES(2,1,1,1,1,'t1','default',NULL,NULL,NULL,1,'{}','a49b840b2e54b6eaf4385fdddfc6f8f51e924ab69d2dc01d661ab1858878c73c',NULL);
INSERT INTO "traces" VALUES(3,1,1,2,0,'p:policy:0','default',NULL,NULL,NULL,1,'{}','c5ab5012c3c99ffef20cf0d5310f6fb20cd6d71554aa70cefaefbe0c6bd966bf',NULL);
CREATE TABLE votes (
	trace_label_pk INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	vote_index INTEGER NOT NULL, 
	escalated BOOLEAN NOT NULL, 
	resolved_model VARCHAR, 
	words JSON NOT NULL, 
	first_error_named BOOLEAN NOT NULL, 
	first_error_index INTEGER, 
	abstention VARCHAR, 
	abstention_detail VARCHAR, 
	request_keys JSON NOT NULL, 
	CONSTRAINT pk_votes PRIMARY KEY (trace_label_pk, model, vote_index), 
	CONSTRAINT ck_votes_abstention CHECK (abstention IN ('blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', 'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', 'gold_unusable')), 
	CONSTRAINT ck_votes_first_error CHECK (first_error_named OR first_error_index IS NULL), 
	CONSTRAINT fk_votes_trace_label_pk FOREIGN KEY(trace_label_pk) REFERENCES trace_labels (pk) ON DELETE CASCADE
);
INSERT INTO "votes" VALUES(3,'gemini:m',0,0,'m-001','["correct", "no_evidence", "incorrect"]',1,2,NULL,NULL,'["k0"]');
CREATE INDEX ix_evidence_evidence_passage_pk ON evidence (evidence_passage_pk);
CREATE INDEX ix_problems_evidence_set_pk ON problems (evidence_set_pk);
CREATE INDEX ix_traces_problem_pk ON traces (problem_pk);
CREATE INDEX ix_traces_source_file_pk ON traces (source_file_pk);
CREATE INDEX ix_traces_evidence_set_pk ON traces (evidence_set_pk);
CREATE INDEX ix_trace_labels_trace_pk ON trace_labels (trace_pk);
CREATE INDEX ix_batch_requests_job_id ON batch_requests (job_id);
CREATE INDEX ix_document_origins_corpus_file_pk ON document_origins (corpus_file_pk);
CREATE INDEX ix_trace_evidence_evidence_set_pk ON trace_evidence (evidence_set_pk);
CREATE INDEX ix_model_calls_spending ON model_calls (model, purpose, resolved_model, usd, hits, input_tokens, cached_tokens, output_tokens, thinking_tokens);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('passages',2);
COMMIT;
