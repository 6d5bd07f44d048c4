#!/bin/bash
# A Ray cluster over the nodes of one job, and one command that uses all of its GPUs.
#     sbatch examples/cluster/slurm_ray.sh
#SBATCH --job-name=stepgold-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
head=$(hostname)
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS="$head:$port"
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --port "$port" --include-dashboard=false --block &
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do sleep 2; done
srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" --overlap \
  ray start --address "$RAY_ADDRESS" --block &
# The workspace is on a local disk of this node or in PostgreSQL, the model where all nodes see it.
stepgold --workspace "$HOME/runs/bio" score --dataset bio --prm hf:/models/prm \
  --engine ray --actors "1:$((8 * SLURM_NNODES))" --gpus-per-actor 1
