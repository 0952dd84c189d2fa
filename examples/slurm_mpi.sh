#!/bin/bash
# A run on many GPUs that a Slurm job carries from one allocation to the next; the next may have
# another number of them:  sbatch examples/slurm_mpi.sh
#SBATCH --job-name=wave-mpi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4      # a rank for each GPU, of which it sees no other
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --requeue                # after a preemption Slurm queues it again by itself
#SBATCH --open-mode=append       # into one log
#SBATCH --signal=USR1@120        # two minutes before the time is up; only the steps of srun get it

# The store is on a file system that all nodes share. If all ranks say that they are rank 0, srun
# and mpi4py speak of different MPIs: `srun --mpi=list` shows what there is.
# USR1 stops all ranks after the same step, and they have 90 of the 120 seconds to save.
srun checkpointable run wave --mpi --store runs/wave-mpi \
  --overhead 1% --keep last:3,spread:8 --grace 90s -- --n 16000 --period 4
code=$?

# 75: the state is saved, start me again. Anything else is the end, or needs a look.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
