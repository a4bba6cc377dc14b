"""Files on the Hugging Face hub, by `huggingface_hub`: its cache, its token, its rules for being offline."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latents.errors import UserError, first_line

PREFIX = "hf:"
FILES = ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")  # where none is named


def is_hub(path: str) -> bool:
  """Whether a path is one of the hub."""
  return path.startswith(PREFIX)


def fetch(path: str) -> tuple[Path, str]:
  """hf:OWNER/NAME[@REVISION][:FILE] -> (the file in the cache, the same path with the revision's hash and the file).

  UserError, one line, for what there is not, what is gated, and where there is no network.
  """
  found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([^:@]+))?(?::(.+))?", path)
  if found is None:
    raise UserError(f"{path} is no file of the hub: hf:OWNER/NAME, hf:OWNER/NAME:FILE or hf:OWNER/NAME@REVISION:FILE")
  name, revision, file = found.groups()
  tried = (file,) if file else FILES
  for one in tried:
    if (there := _download(path, name, revision, one)) is not None:
      return there, f"{PREFIX}{name}@{_commit(there, one)}:{one}"
  raise UserError(f"{path}: {name} has no file {' or '.join(tried)} (say which one, hf:{name}:FILE)")


def beside(path: str, file: str) -> Path | None:
  """Another file in the folder of a whole path as `fetch` gives it; None where there is none."""
  name, revision, there = re.fullmatch(r"hf:([^@]+)@([^:]+):(.+)", path).groups()  # pyright: ignore
  return _download(path, name, revision, str(Path(there).with_name(file)))


def _download(path: str, name: str, revision: str | None, file: str) -> Path | None:
  """The file in the cache; None where the repository has none of that name."""
  hub = _library()
  with _told(path, name, revision, hub):
    try:
      return Path(hub.hf_hub_download(name, file, revision=revision))
    except hub.errors.LocalEntryNotFoundError:  # is an EntryNotFoundError too
      raise
    except hub.errors.EntryNotFoundError:
      return None


@contextmanager
def _told(path: str, name: str, revision: str | None, hub: Any) -> Iterator[None]:
  """What the library raises, as one line."""
  errors = hub.errors
  try:
    yield
  except errors.GatedRepoError:
    raise UserError(
      f"{path}: {name} is gated: ask for access on its page and log in (`hf auth login`, or HF_TOKEN)"
    ) from None
  except errors.RepositoryNotFoundError:
    raise UserError(f"{path}: the hub has no {name}, or it is private and you are not logged in") from None
  except errors.RevisionNotFoundError:
    raise UserError(f"{path}: {name} has no revision {revision}") from None
  except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
    raise UserError(
      f"{path} is not in the cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE)"
    ) from None
  except UserError:
    raise
  except Exception as error:  # noqa: BLE001  (its HTTP library's, by version)
    raise UserError(f"{path} could not be loaded: {first_line(error)}") from None


def _commit(there: Path, file: str) -> str:
  """The hash of the revision: the cache keeps a file as .../snapshots/HASH/FILE."""
  return there.parts[-1 - len(Path(file).parts)]


def _library() -> Any:
  try:
    import huggingface_hub  # pyright: ignore[reportMissingImports]
    import huggingface_hub.errors  # pyright: ignore[reportMissingImports]
  except ImportError:
    raise UserError("files of the hub need huggingface_hub: pip install -e '.[hub]'") from None
  if "HF_HUB_VERBOSITY" not in os.environ:
    huggingface_hub.logging.set_verbosity_error()  # it warns of each of its tries, and then we say what came of them
  return huggingface_hub
