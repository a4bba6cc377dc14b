"""`latents sample`: its flags, and what it calls; it imports the rest when it is called, as `main`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latents.command import reading
from latents.errors import UserError
from latents.machine import environment
from latents.machine.disk import on_disk


def add(sub: Any, command: Callable) -> None:
  """The command. command: as `main` makes one."""
  to = command(sub, "sample", sample, "draw samples from a finished run")
  to.add_argument("run", type=on_disk)
  to.add_argument("--decoder", type=on_disk, metavar="RUN", help="a run of the same latents, whose decoder is used")
  to.add_argument("--labels", type=_labels, help="numbers or names, e.g. 0,1,2 or dress,hat; default: all in turn")
  to.add_argument("--text", type=_words, help="conditions by name, e.g. three,seven")
  to.add_argument("--number", type=int, help="how many; labels and prompts repeat in turn")
  to.add_argument("--guidance", type=float, help="default: the experiment's")
  to.add_argument("--steps", type=int, help="of the prior's sampler (default: the experiment's)")
  to.add_argument("--temperature", type=float, help="of draws; 0: the likeliest (default: the experiment's)")
  to.add_argument("--top-k", type=int, help="draws are of the k likeliest codes; 0: of all")
  to.add_argument("--top-p", type=float, help="draws are of the likeliest codes that make up p; 1: of all")
  words = "after RUN: samples begin with the codes of these files, brought to the model's size (of a prior over codes)"
  to.add_argument("--prompt", type=on_disk, nargs="+", metavar="FILE", help=words)
  to.add_argument("--keep", type=float, help="the share of a prompt's codes that is kept (default: 0.5)")
  to.add_argument("--batch", type=int, default=64, help="samples at a time, at most (default: 64)")
  to.add_argument("--seed", type=int, default=0)
  kinds = "x.png, x.npz, x.flac for sound, x.gif or x.webp for clips, x.txt for text"
  to.add_argument("--out", type=on_disk, default=Path("samples.png"), help=kinds)
  to.add_argument("--overwrite", action="store_true", help="replace the file where it is there")
  reading.reads(to, tile=True)


def _words(text: str) -> list[str]:
  words = [word.strip() for word in text.split(",")]
  if not all(words):
    raise argparse.ArgumentTypeError(f"'{text}' is not a list such as 0,1,2 or dress,hat")
  return words


def _labels(text: str) -> list[int | str]:
  return [int(word) if word.isdecimal() else word for word in _words(text)]


def sample(arguments: argparse.Namespace) -> None:
  """Draw, write, and say what was written."""
  environment.prepare()
  reading.admit(arguments)
  from latents.use import files, model, prompt
  from latents.use.sample import How

  if arguments.prompt and arguments.tile is not None:
    raise UserError("--prompt is encoded as it is, not in tiles: leave --tile out")
  if arguments.keep is not None and not arguments.prompt:
    raise UserError("--keep is of a prompt, and there is none: say --prompt FILE")
  if arguments.prompt and arguments.out.resolve() in {path.resolve() for path in arguments.prompt}:
    raise UserError(f"--out {arguments.out} is one of the prompts, which would be lost")
  files.check_out(arguments.out, overwrite=arguments.overwrite)
  made = model.load(arguments.run, decoder=arguments.decoder)
  source = (made.experiment.stage2 or made.experiment.stage1).data
  files.check_out(arguments.out, source.kind, arguments.overwrite)  # before anything is drawn
  how = How(arguments.steps, arguments.temperature, arguments.top_k, arguments.top_p)
  sampler = made.drawing(arguments.batch, how)
  asked = arguments.labels if arguments.text is None else arguments.text
  begun = None
  if arguments.prompt:
    labels = sampler.begun(asked, arguments.number, len(arguments.prompt))
    keep = 0.5 if arguments.keep is None else arguments.keep
    begun = sampler.prompt(prompt.of_files(made, arguments.prompt, keep, arguments.batch), len(labels))
  else:
    labels = sampler.labels(asked, arguments.number)
  x, note = files.draw(made, sampler, labels, arguments.seed, arguments.guidance, arguments.tile, begun)
  files.write_signals(arguments.out, x, labels if sampler.classes else None, source)
  print(f"{arguments.out}: {len(x)} samples{note}")
