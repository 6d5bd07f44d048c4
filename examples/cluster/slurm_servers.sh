#!/bin/bash
# One vLLM server and one command that feeds it per GPU; all commands share a labeler in PostgreSQL.
#     sbatch examples/cluster/slurm_servers.sh
#SBATCH --job-name=stepgold
#SBATCH --array=0-31
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
model=Qwen/Qwen2.5-7B-Instruct
port=$((8000 + SLURM_ARRAY_TASK_ID))
vllm serve "$model" --host 127.0.0.1 --port "$port" &
trap 'kill %1' EXIT
until curl -sf "http://127.0.0.1:$port/health"; do sleep 5; done
# PGPASSWORD or ~/.pgpass has the password. A task that is requeued does what is missing.
stepgold --db postgresql+psycopg://db.example/stepgold continue --dataset bio \
  --policy "openai:$model" --base-url "http://127.0.0.1:$port/v1" --concurrency 256
