"""A folder of pictures -> a TFDS data set in ArrayRecord files, without TensorFlow."""

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from latents.data.images import EXTENSIONS, check_all, eight_bit, load, open_image, upright
from latents.data.listing import Listing, list_folder
from latents.data.source import Broken, Split, warn_skipped
from latents.data.tfds import root
from latents.errors import UserError

VERSION = "1.0.0"


def prepare(folder: str, name: str, out_dir: str | None = None) -> dict[str, Any]:
  """Writes `out_dir`/`name`/1.0.0 (out_dir None: $TFDS_DATA_DIR or ~/tensorflow_datasets),
  which `Tfds(name, data_dir=out_dir)` and TFDS itself read.

  Labels and splits are as in `Folder`. The bytes of upright RGB and grey JPEG and PNG files are kept as
  they are; everything else becomes an RGB PNG. Broken files are left out, and one warning names them.
  Returns {"path", "train", "test", "classes", "skipped"}: where, examples per split, label names, and the
  files left out. Raises UserError, with nothing written, for a bad name, an existing set or an empty folder.
  """
  if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
    raise UserError(f"{name!r} cannot name a data set: lower-case letters, digits and _, a letter first")
  folder, out_dir = os.path.expanduser(folder), root(out_dir)
  final = os.path.join(out_dir, name)
  if os.path.lexists(final):
    raise UserError(f"{final} exists already; remove it or choose another name")
  listing = list_folder(folder, EXTENSIONS, "image files").tell()
  kept, skipped = sift(listing)
  for split in ("train", "test"):
    if not kept[split]:
      raise UserError(f"no usable image for the {split} split in {folder}{': ' + skipped[0] if skipped else ''}")
  try:
    os.makedirs(out_dir, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{name}-", dir=out_dir)
  except OSError as error:
    raise UserError(f"cannot write to {out_dir}: {error.strerror}") from error
  try:
    counts = write(listing, kept, skipped, name, temporary)
    os.rename(os.path.join(temporary, name), final)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  warn_skipped(folder, skipped)
  path = os.path.join(final, VERSION)
  return {"path": path, **counts, "classes": listing.names, "skipped": tuple(skipped)}


def sift(listing: Listing) -> tuple[dict[Split, list[str]], list[str]]:
  """The readable files of each split, and the others with their reasons."""
  kept: dict[Split, list[str]] = {"train": [], "test": []}
  skipped = []
  for split, names in kept.items():
    files = listing.files(split)
    checks = check_all([os.path.join(listing.root, file) for file in files])
    for file, (reason, _) in zip(files, checks, strict=True):
      if reason:
        skipped.append(f"{file} ({reason})")
      else:
        names.append(file)
  return kept, skipped


def write(
  listing: Listing, kept: dict[Split, list[str]], skipped: list[str], name: str, data_dir: str
) -> dict[str, int]:
  """Runs the TFDS builder; what breaks on the way is added to `skipped`. Returns the examples per split."""
  import tensorflow_datasets as tfds

  features: dict[str, Any] = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "name": tfds.features.Text(),
  }
  if listing.names:
    features["label"] = tfds.features.ClassLabel(names=list(listing.names))

  def examples(split: Split) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in kept[split]:
      try:
        example = {"image": encoded(os.path.join(listing.root, file)), "name": file}
      except Broken as error:
        skipped.append(f"{file} ({error})")
        continue
      yield file, example | ({"label": listing.label(file)} if listing.names else {})

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
      pair = ("image", "label") if listing.names else None
      return tfds.core.DatasetInfo(
        builder=self,
        description=f"Pictures of the folder {os.path.basename(os.path.abspath(listing.root))}.",
        features=tfds.features.FeaturesDict(features),
        supervised_keys=pair,
      )

    def _split_generators(self, dl_manager: Any) -> Any:
      return {split: examples(split) for split in kept}

    def _generate_examples(self) -> Any:  # the base class asks for one; the splits have theirs
      return iter(())

  Builder.name = name
  tfds.disable_progress_bar()
  builder = Builder(data_dir=data_dir, file_format="array_record")
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints of downloads, and there are none
    builder.download_and_prepare()
  return {split: int(builder.info.splits[split].num_examples) for split in kept}


def encoded(path: str) -> bytes:
  """The file's own bytes where every reader shows them alike, else a PNG. Raises Broken."""
  with open_image(path) as image:
    try:
      turned = image.getexif().get(0x0112, 1) != 1
      plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and "transparency" not in image.info
      if plain and not turned:
        with open(path, "rb") as file:
          return file.read()
      picture = eight_bit(upright(load(image)), 3)
    except Broken:
      raise
    except Exception as error:
      raise Broken("cannot be converted") from error
  buffer = io.BytesIO()
  picture.save(buffer, format="PNG")
  return buffer.getvalue()
