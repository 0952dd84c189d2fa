#!/bin/bash
# Many runs that differ in their seed, each carried from one allocation to the next by itself:
#   sbatch examples/slurm_array.sh
#SBATCH --job-name=ising
#SBATCH --array=0-31%8           # 32 runs, at most 8 of them at a time
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue                # after a preemption Slurm queues it again by itself
#SBATCH --output=ising-%A-%a.log # a log for each run
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120        # two minutes before the time is up; only the steps of srun get it

# A store for each: only one run at a time can use a store.
seed=$SLURM_ARRAY_TASK_ID
srun checkpointable run ising --store "runs/ising-$seed" \
  --overhead 1% --keep last:3 --grace 90s -- --seed "$seed"
code=$?

# 75: the state is saved, start me again. By the array's number alone all its runs would be queued.
if [ "$code" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
