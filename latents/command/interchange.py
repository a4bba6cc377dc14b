"""`latents import|export`: their flags, and what they call; they import the rest when they are called, as `main`."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latents.machine import cluster, environment
from latents.machine.disk import on_disk


def add(sub: Any, command: Callable) -> None:
  """The two commands. command: as `main` makes a command."""
  _add_import(command(sub, "import", bring_in, "make a run of weights that others trained"))
  _add_export(command(sub, "export", send_out, "write stage 1 of a run, or its prior's backbone, as others read it"))


def _add_import(to: argparse.ArgumentParser) -> None:
  to.add_argument("file", metavar="FILE", help="a file, a folder, or hf:OWNER/NAME[@REVISION][:FILE]")
  known = "sd, sdxl, sd3, flux, ldm-vq-f4, ldm-vq-f8, ldm-vq-f16, or diffusers-kl, ldm-kl, diffusers-dc, diffusers-vq, "
  known += "taming, taming-gumbel, dalle (a prior sees codes), diffusers-vq-reg, ldm-vq (vectors before it); priors "
  known += "(with --on): diffusers-unet, diffusers-unet2d, dit, dit-4, dit-8, sit, lightning-dit, lightning-dit-2, "
  known += "llamagen, taming-gpt"
  to.add_argument("--layout", help=f"{known} (default: as the arrays are called)")
  to.add_argument("--name", required=True, help="the run's folder within --runs")
  to.add_argument("--runs", type=on_disk, default=Path("runs"), help="the folder that holds runs")
  to.add_argument("--statistics", type=_pair, metavar="SCALE,SHIFT", help="of the latents: scale (z - shift) is a unit")
  to.add_argument("--data", metavar="SOURCE", help="measure them on folder:PATH, tfds:NAME, ...")
  to.add_argument("--data-dir", help="where TFDS data sets lie")
  to.add_argument("--size", type=_positive, help="pixels a side of the pictures")
  to.add_argument("--on", type=on_disk, metavar="RUN", help="of a prior: the run whose stage 1 makes its latents")
  to.add_argument(
    "--texts", metavar="FILE", help="of a prior that reads texts: their embeddings, text [K,L,E], text_mask"
  )


def bring_in(arguments: argparse.Namespace) -> None:
  """Make the run."""
  environment.prepare()
  from latents.runs import interchange

  cluster.check_alone(os.environ)
  folder = interchange.bring_in(
    arguments.file, arguments.layout, arguments.runs, arguments.name, arguments.statistics, arguments.data,
    arguments.size, arguments.data_dir, arguments.on, arguments.texts,
  )  # fmt: skip
  print(folder.path)


def _add_export(to: argparse.ArgumentParser) -> None:
  to.add_argument("run", type=on_disk)
  to.add_argument("--layout", required=True, help="diffusers-kl, ldm-kl, diffusers-dc, ..., as of import")
  to.add_argument("--out", type=on_disk, required=True, help="a folder that is not there yet")
  to.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")


def send_out(arguments: argparse.Namespace) -> None:
  """Write the files."""
  environment.prepare()
  from latents.runs import interchange

  for path in interchange.send_out(arguments.run, arguments.layout, arguments.out, arguments.dtype):
    print(path)


def _pair(text: str) -> tuple[float, float]:
  try:
    scale, shift = map(float, text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(f"'{text}' is not SCALE,SHIFT such as 0.18215,0") from None
  if not (0 < scale < math.inf and abs(shift) < math.inf):
    raise argparse.ArgumentTypeError(f"'{text}': the scale is above 0, and both are finite")
  return scale, shift


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
  return int(text)
