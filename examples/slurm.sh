#!/bin/bash
# A run that a Slurm job carries from one allocation to the next:  sbatch examples/slurm.sh
#SBATCH --job-name=wave
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue                # after a preemption Slurm queues it again by itself
#SBATCH --open-mode=append       # into one log
#SBATCH --signal=USR1@120        # two minutes before the time is up; only the steps of srun get it

# USR1 stops the run at its next safe point. It has 90 of the 120 seconds to save: a full
# checkpoint, a delta, or only the one in flight, whatever fits.
srun checkpointable run wave --store runs/wave \
  --overhead 1% --keep last:3,spread:8 --delta --grace 90s
code=$?

# 75: the state is saved, start me again. Anything else is the end, or needs a look.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
