"""`latents data inspect|prepare`: their flags, and what they call; it imports the rest when it is called, as `main`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latents.machine.disk import on_disk

KINDS = "digits, shapes, photos, topics, folder:PATH, tfds:NAME, audio:PATH, video:PATH, strips:NAME or text:PATH"


def add(to: argparse.ArgumentParser, command: Callable, kind: Any) -> None:
  """The two commands; command, kind: as `main` makes a command, and its parser."""
  inner = to.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=kind)
  look = command(inner, "inspect", inspect, "a picture of a decoded batch, and statistics")
  look.add_argument("source", help=KINDS)
  look.add_argument("--data-dir", type=on_disk, help="where TFDS data sets lie")
  look.add_argument("--size", type=_size, help="pixels a side, or HEIGHT,WIDTH")
  look.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour")
  look.add_argument("--out", type=on_disk, default=Path("data.png"), help="x.png (default: data.png)")
  look.add_argument("--overwrite", action="store_true", help="replace the picture where it is there")
  ready = command(inner, "prepare", prepare, "an image folder to a TFDS ArrayRecord set")
  ready.add_argument("folder", type=_folder, help="a folder, or folder:PATH")
  ready.add_argument("name")
  ready.add_argument("--out", type=on_disk, help="data_dir (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)")


def _folder(text: str) -> str:
  """A path, or folder:PATH."""
  return str(on_disk(text.removeprefix("folder:")))


def _size(text: str) -> int | tuple[int, ...]:
  """'32' or '32,48'."""
  sides = tuple(int(word) for word in text.split(","))
  return sides[0] if len(sides) == 1 else sides


def inspect(arguments: argparse.Namespace) -> None:
  """Write the picture, print the statistics."""
  import json

  from latents.data import inspect, source
  from latents.machine import disk

  disk.check_file(arguments.out, [".png"], arguments.overwrite)
  options = {
    "size": arguments.size,
    "channels": arguments.channels,
    "data_dir": arguments.data_dir and str(arguments.data_dir),
  }
  made = source(arguments.source, **{k: v for k, v in options.items() if v is not None})
  print(json.dumps(inspect(made, arguments.out), indent=1))


def prepare(arguments: argparse.Namespace) -> None:
  """Write the set, print what is in it."""
  from latents.data import prepare
  from latents.machine import endings

  with endings.unwound():
    print(prepare(arguments.folder, arguments.name, arguments.out))
