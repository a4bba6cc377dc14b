"""`latents average`: an average of another width of a run's checkpoints."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from latents.command import reading
from latents.machine import cluster, environment
from latents.machine.disk import on_disk


def add(sub: Any, command: Callable) -> None:
  """The command. command: as `main` makes a command."""
  to = command(sub, "average", call, "make a power average of another width of a run's checkpoints, and use it")
  to.add_argument("run", type=on_disk)
  to.add_argument("--width", type=float, required=True, help="its deviation over the length of the run, e.g. 0.07")
  to.add_argument("--stage", type=int, choices=(1, 2), help="default: the last one")
  reading.reads(to)


def call(arguments: argparse.Namespace) -> None:
  """Make it."""
  environment.prepare()
  reading.admit(arguments)
  from latents.runs import averages

  cluster.check_alone(os.environ)
  print(averages.make(arguments.run, arguments.width, arguments.stage))
