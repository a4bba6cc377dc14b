"""What all commands take that read runs: the file of one's own parts, and where the data lie now."""

import argparse

from latents.machine.disk import on_disk


def place(text: str) -> str:
  """The text of a path, of this machine's disks."""
  return str(on_disk(text))


def reads(command: argparse.ArgumentParser, tile: bool = False) -> None:
  """Add what a command takes that reads a run. tile: and encodes or decodes pictures."""
  if tile:
    text = "see pictures in tiles of N x N pixels, in the memory of one; equal to the whole where the network is local"
    command.add_argument("--tile", type=int, metavar="N", help=text)
  command.add_argument("--experiment", type=place, metavar="FILE", help="the file in which parts of your own stand")


def measures(command: argparse.ArgumentParser, tile: bool = False) -> None:
  """Add what a command takes that reads a run and its data."""
  reads(command, tile)
  command.add_argument(
    "--data", type=place, metavar="FOLDER", help="where the data of the run lie now, if they were moved"
  )


def admit(arguments: argparse.Namespace) -> None:
  """Let stored declarations name the parts of --experiment."""
  if arguments.experiment is not None:
    from latents.command import overrides

    overrides.load_file(overrides.find_file(arguments.experiment))
