"""What runs on each worker of a TPU slice: the shell of the job, of its start, its end and its log.

In the worker's home folder: latents-job.sh, latents-tree/, latents-env/, latents.pid (the job's process
group), latents.log, latents.exit (its exit code, once it has ended).
"""

from collections.abc import Sequence

from launch import command

JOB = "latents-job.sh"
LOCK = "/tmp/libtpu_lockfile"
PYTHON = "3.11"  # the images' own may be older than the package needs; uv brings one
FREE_S = 30  # for a process that is ending to let go of the TPU

# The last job, if it still runs, ends before a new one starts: TERM lets it save, KILL takes what is left.
STOP = (
  "group=$(cat latents.pid 2>/dev/null); "
  'runs() { grep -qs latents-job "/proc/$group/cmdline"; }; '
  'if runs; then kill -TERM -- "-$group"; for _ in $(seq 300); do runs || break; sleep 0.2; done; '
  'kill -KILL -- "-$group" 2>/dev/null; fi; true'
)

# setsid and nohup: the job belongs to no ssh session and outlives this one
START = (
  f"{STOP}; rm -f latents.exit; : > latents.log; "
  f"setsid nohup bash {JOB} > /dev/null 2>&1 < /dev/null & echo $! > latents.pid"
)

# `exit=CODE`, or `exit=running`
CODES = 'echo "exit=$(cat latents.exit 2>/dev/null || echo running)"'

# from a line of the log on, until the job has ended
TAIL = 'tail -n +{line} --pid="$(cat latents.pid)" -s 0.2 -f latents.log'

_SCRIPT = """\
#!/bin/bash
# Written by launch.tpu_pod: one worker's part of the job.
cd ~ || exit 1
trap : TERM  # when the machine goes `latents` gets it too and saves; this shell waits for it
held() {{ [ -n "$(sudo find /proc/[0-9]*/fd -lname {lock} -print -quit 2>/dev/null)" ]; }}
(
  set -euo pipefail
  left={free}
  while held; do
    if [ "$left" -le 0 ]; then echo "another process of this worker uses the TPU: it holds {lock}"; exit 1; fi
    left=$((left - 1)); sleep 1
  done
  sudo rm -f {lock}  # left by a process that was killed; libtpu would take it for a process
  mkdir -p latents-tree
  find latents-tree -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {{}} +
  tar -xzf latents-tree.tar.gz -C latents-tree
  export PIP_BREAK_SYSTEM_PACKAGES=1
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --allow-existing --python {python} latents-env
  cd latents-tree
  python3 -m uv pip install --quiet --python ~/latents-env/bin/python '.[tpu]'
  {setup}
  exec ~/latents-env/bin/latents {words}
) > latents.log 2>&1
echo $? > latents.exit
"""


def script(words: Sequence[str], setup: str = "") -> str:
  """The text of latents-job.sh, which runs `latents` with these words. setup: shell lines that run before."""
  names = {"lock": LOCK, "free": FREE_S, "python": PYTHON}
  return _SCRIPT.format(setup=setup or ":", words=command.quoted(words), **names)
