"""Starting `latents` on machines: each module sets the environment and calls it; none knows what is trained.

  python -m launch.local        [flags] -- run experiments/images/digits.py    this machine, one process
  python -m launch.multiprocess [flags] -- run experiments/images/digits.py    this machine, N processes on its CPU
  python -m launch.slurm        [flags] -- run experiments/images/digits.py    a batch job of one or many nodes
  python -m launch.tpu_pod      [flags] -- run experiments/images/digits.py    a Cloud TPU: make, start, follow, delete

They run from the project root. What stands after `--` goes to `latents` as it is; with more than one
process `--distributed` is added. `--dry-run` prints, shell-quoted, each command that an undisturbed run
would execute, and executes none. `latents` exits with 75 when it was preempted with its state saved:
all four take that for 'run the same command again'. Bad input is one line and exit code 2.
"""
