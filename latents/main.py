"""The command line: `latents run|ablate|plan|sample|reconstruct|encode|evaluate|average|import|export|report|list|...`.

It reads arguments and calls the floor below; `endings` says with which exit codes it ends.
"""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler and sys.argv[0].endswith(
  ("latents", "latents/main.py")
):
  signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `endings` has it, ^C is no traceback either

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from latents.command import averages, data, interchange, reading, sampling, sweeps
from latents.errors import UserError, nearest
from latents.machine import endings, environment
from latents.machine.disk import on_disk


class Parser(argparse.ArgumentParser):
  """argparse with one-line errors that name the nearest flag."""

  def error(self, message: str) -> NoReturn:
    """Raise the message as a UserError."""
    known = [o for a in self._actions for o in a.option_strings if o.startswith("--")]
    for word in message.split():
      if message.startswith("unrecognized arguments") and word.startswith("--"):
        raise UserError(f"unknown flag {word.split('=')[0]}{nearest(word.split('=')[0], known)}")
    raise UserError(f"{self.prog.removeprefix('latents ')}: {message}")


def parser() -> Parser:
  """All subcommands; each sets `call` and `parser`."""
  top = Parser(prog="latents", description="Two-stage generative modelling.", allow_abbrev=False)
  top.add_argument("--version", action="version", version=_version())
  sub = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
  _add_training(sub)
  sampling.add(sub, _command)
  _add_using(sub)
  interchange.add(sub, _command)
  averages.add(sub, _command)
  data.add(_command(sub, "data", _run, "look at data, or prepare them"), _command, Parser)
  return top


def _command(into: Any, name: str, call: Callable, text: str, **options: Any) -> Parser:
  made = into.add_parser(name, help=text, description=text, allow_abbrev=False, **options)
  made.set_defaults(call=call, parser=made)
  return made


def _add_training(sub: Any) -> None:
  run = _command(sub, "run", _run, "train both stages, sample, score, report; resumes or does nothing", add_help=False)
  run.add_argument("experiment", metavar="EXPERIMENT", nargs="?", help="a file, or its bare name; then its flags")
  run.add_argument("--runs", type=on_disk, default=Path("runs"), help="the folder that holds runs")
  run.add_argument("--distributed", action="store_true", help="one of several processes: TPU pod, Slurm, MPI, ...")
  run.add_argument("--name", help="the run's folder within it (default: the experiment's name)")
  run.add_argument("--on", type=on_disk, metavar="RUN", help="take stage 1 from that run, in place of the experiment's")

  ablate = _command(sub, "ablate", _ablate, "run the variants of an ablation under several seeds, and judge its claims")
  sweeps.add(ablate)

  evaluate = _command(sub, "evaluate", _evaluate, "measure a finished run again and renew its report")
  evaluate.add_argument("run", type=on_disk)
  evaluate.add_argument("--distributed", action="store_true", help="as for `run`")
  evaluate.add_argument("--images", type=int, help="held-out examples")
  evaluate.add_argument("--samples", type=int, help="samples to draw")
  evaluate.add_argument("--lpips", type=reading.place, help="a file of LPIPS(squeeze) weights")
  reading.measures(evaluate)

  report = _command(sub, "report", _report, "one HTML page of one or many runs")
  report.add_argument("runs", nargs="+", type=on_disk, metavar="RUN")
  report.add_argument("--out", type=on_disk, help="x.html, or x.md for a table (default: report.html)")
  reading.reads(report)

  plan = _command(sub, "plan", _plan, "memory, FLOPs, communication and time of a step, without the devices")
  plan.add_argument("experiment", metavar="EXPERIMENT", help="as of `latents run`; then its flags")
  plan.add_argument("--stage", type=int, choices=(1, 2), required=True)
  plan.add_argument("--topology", required=True, help="v5e:4x4, v5p:4x4x4, h100:SLICESxHOSTSxGPUS, cpu:8, ...")
  plan.add_argument("--slices", type=int, default=1, help="TPU slices, joined by the data-centre network")
  plan.add_argument("--json", action="store_true", help="print one JSON object")

  listing = _command(sub, "list", _list, "all experiments, with paper and state")
  listing.add_argument("--runs", type=on_disk, default=Path("runs"), help="the folder that holds runs")
  _command(sub, "doctor", _doctor, "check devices and versions")


def _add_using(sub: Any) -> None:
  reconstruct = _command(sub, "reconstruct", _reconstruct, "encode and decode pictures, clips or text files")
  reconstruct.add_argument("run", type=on_disk)
  reconstruct.add_argument("files", nargs="+", type=on_disk, metavar="FILE")
  reconstruct.add_argument("--out", type=on_disk, required=True, help="a folder")
  reconstruct.add_argument("--steps", type=int, help="of a generative decoder")
  reading.reads(reconstruct, tile=True)

  encode = _command(sub, "encode", _encode, "write the latent cache of a run's data")
  encode.epilog = "SPLIT/stored.npy [N,2,...]: each example, plain and mirrored, before normalisation; label.npy [N]"
  encode.add_argument("run", type=on_disk)
  encode.add_argument("--out", type=on_disk, required=True, help="a folder that is not there yet")
  encode.add_argument("--split", choices=("train", "test"), default="train")
  reading.measures(encode, tile=True)


def main(argv: list[str] | None = None) -> int:
  """Run a command; its exit code."""
  argv = sys.argv[1:] if argv is None else argv

  def call() -> int | None:
    arguments, rest = parser().parse_known_args(argv)
    if rest and arguments.call not in (_run, _plan):
      arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest, arguments.command = rest, shlex.join(["latents", *argv])
    return arguments.call(arguments)

  return endings.guarded(call)


def _distribute(arguments: argparse.Namespace) -> None:
  """Find the other processes, or make sure that there are none."""
  import os

  from latents.machine import cluster, hosts

  if arguments.distributed:
    hosts.start(os.environ)
  else:
    cluster.check_alone(os.environ)


def _version() -> str:
  from latents import __version__

  return f"latents {__version__}"


# The commands import what they need when they are called, and after the environment is prepared.


def _run(arguments: argparse.Namespace) -> None:
  if arguments.experiment is None:
    if {"-h", "--help"} & set(arguments.rest):
      arguments.parser.print_help()
      print("\nlatents run EXPERIMENT --help lists every flag of that experiment")
      return
    arguments.parser.error("EXPERIMENT is missing: a file such as experiments/images/digits.py")
  environment.prepare()
  from latents.command import catalogue, overrides
  from latents.machine import hosts
  from latents.report import terminal
  from latents.runs import run

  _distribute(arguments)
  file = overrides.find_file(str(arguments.experiment))
  on = None if arguments.on is None else run.share(arguments.on, arguments.runs)
  with catalogue.data_of(file, arguments.rest):
    experiment = overrides.build(file, arguments.rest, on)
    if experiment is None:
      return
    folder = run.run(experiment, arguments.runs, arguments.name, arguments.command, catalogue.first_line(file))
  if hosts.first():
    print(terminal.summary(folder))


def _ablate(arguments: argparse.Namespace) -> None:
  if arguments.attached:
    endings.follow(sys.stdin)
  environment.prepare()
  sweeps.ablate(arguments)


def _plan(arguments: argparse.Namespace) -> None:
  environment.prepare(memory=False)  # the compiler's threads would wait for each other in one arena
  from latents import plan
  from latents.command import overrides

  topology = plan.start(arguments.topology, arguments.slices)
  experiment = overrides.build(overrides.find_file(arguments.experiment), arguments.rest)
  if experiment is not None:
    print(plan.show(plan.make(experiment, arguments.stage, topology), arguments.json))


def _reconstruct(arguments: argparse.Namespace) -> None:
  environment.prepare()
  reading.admit(arguments)
  from latents.use import files, model

  made = model.load(arguments.run)
  for line in files.reconstruct(made, arguments.files, arguments.out, arguments.steps, arguments.tile):
    print(line)


def _encode(arguments: argparse.Namespace) -> None:
  environment.prepare()
  reading.admit(arguments)
  from latents.use import cache as latent_cache

  print(latent_cache.encode(arguments.run, arguments.out, arguments.split, arguments.data, arguments.tile))


def _evaluate(arguments: argparse.Namespace) -> None:
  environment.prepare()
  reading.admit(arguments)
  import json

  from latents.runs import run

  _distribute(arguments)
  changes = {k: v for k in ("images", "samples", "lpips") if (v := getattr(arguments, k)) is not None}
  print(json.dumps(run.evaluate(arguments.run, changes, arguments.command, arguments.data), indent=1))


def _report(arguments: argparse.Namespace) -> None:
  reading.admit(arguments)
  from latents.machine import disk
  from latents.report import write_report, write_table

  alone = len(arguments.runs) == 1
  out = arguments.out or (arguments.runs[0] / "report.html" if alone else Path("report.html"))
  disk.check_file(out, [".html", ".htm", ".md"], overwrite=True)  # a page is renewed
  (write_table if out.suffix == ".md" else write_report)(arguments.runs, out)
  print(out)


def _list(arguments: argparse.Namespace) -> None:
  from latents.command import catalogue

  print(catalogue.table(arguments.runs))


def _doctor(_: argparse.Namespace) -> int:
  environment.prepare()
  found = environment.problems()
  if not any("jax does not start" in line for line in found):
    for name, value in environment.describe().items():
      print(f"{name:22} {value}")
  for line in found:
    print(f"latents: error: {line}", file=sys.stderr)
  return 2 if found else 0


def entry() -> NoReturn:
  """The console script."""
  for stream in (sys.stdout, sys.stderr):  # names of files may be no text
    stream.reconfigure(errors="backslashreplace")  # pyright: ignore
  code = main()
  if code:
    endings.leave(code)
  sys.exit(code)


if __name__ == "__main__":
  entry()
