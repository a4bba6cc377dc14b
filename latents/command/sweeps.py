"""`latents ablate`: its flags, and what it calls; it imports the rest when it is called, as `main` does."""

import argparse
import os
from pathlib import Path

from latents.command import reading
from latents.machine.disk import on_disk

PUBLISHED = Path("experiments/results/ablations")


def add(to: argparse.ArgumentParser) -> None:
  """The flags."""
  to.add_argument("file", metavar="FILE", help="a file of experiments/ablations, or its bare name")
  to.add_argument("--scale", choices=("tiny", "paper"), default="tiny")
  to.add_argument("--seeds", type=_positive, default=3, help="runs of each variant (default: 3)")
  to.add_argument("--jobs", type=_positive, default=1, help="runs at a time (default: 1)")
  to.add_argument("--runs", type=on_disk, default=Path("runs"), help="the folder that holds runs")
  to.add_argument("--name", help="the ablation's folder within it (default: the file's name)")
  place = {"type": on_disk, "nargs": "?", "const": PUBLISHED, "metavar": "FOLDER"}
  to.add_argument("--publish", help=f"afterwards write numbers and page there (default: {PUBLISHED})", **place)
  to.add_argument("--page", help="only write the page there anew, from the numbers that lie there", **place)
  to.add_argument(
    "--lpips", type=reading.place, metavar="WEIGHTS", help="a file of LPIPS(squeeze) weights: measured too"
  )
  to.add_argument("--only", metavar="VARIANT", help="bring this one run to its end, as the sweep does")
  to.add_argument("--seed", type=int, default=0, help="with --only: the number of its seed, from 0")
  to.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)  # a sweep's own: it ends with the sweep


def ablate(arguments: argparse.Namespace) -> None:
  """Run a sweep, or one of its members, or only write its page. UserError, one line."""
  from latents.command import overrides
  from latents.machine import cluster
  from latents.report import ablation as pages
  from latents.runs.ablate import Sweep

  file = overrides.find_file(arguments.file)
  name = arguments.name or file.stem
  if arguments.page:
    print(pages.rewrite(arguments.page, name))
    return
  cluster.check_alone(os.environ)
  made, document = overrides.build_sweep(file, arguments.scale)
  sweep = Sweep(made, file, document, arguments.scale, arguments.runs, name, arguments.lpips)
  if arguments.only is not None:
    sweep.run(arguments.only, arguments.seed)
    return
  stored = sweep.all(arguments.seeds, arguments.jobs)
  print(pages.text(stored))
  if arguments.publish:
    print(pages.publish(arguments.publish, name, stored, sweep.folder))


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
  return int(text)
