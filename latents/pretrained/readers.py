"""Readers of weight files that cannot execute code: `.npz`, `.safetensors`, and both `.pth` formats.

A `.pth` file is a pickle, and a pickle is a program. The unpickler here knows how to rebuild tensors,
storages, `OrderedDict`s and dtypes, and refuses every other name, so a hostile file ends in a
`UserError`, never in a call. Neither torch nor the file's own package is imported.

Every reader gives a flat `{key: numpy array}`; nested dicts and lists in a `.pth` are joined by "/",
and its leaves that are no tensors (epoch numbers, hyper-parameters) are left out.
"""

import collections
import contextlib
import hashlib
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors.numpy

from latents.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of torch.save's stream format (torch < 1.6)
_LEGACY_PROTOCOL = 1001
_NODES, _DEPTH = 200_000, 50  # values in a .pth tree and their nesting: real ones have thousands and a few

_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
  "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip
# What to do with releases that are whole modules, by the start of the modules' names.
WHOLE = {
  "dall_e": ": where you trust both files, torch.save({side: torch.load(f'{side}.pkl', weights_only=False).state_dict()"
  " for side in ('encoder', 'decoder')}, 'dalle.pt') makes one that is",
}
_DTYPES = (
  "float64", "double", "float32", "float", "float16", "half", "bfloat16",
  "int64", "long", "int32", "int", "int16", "short", "int8", "uint8", "bool",
)  # fmt: skip


def read_weights(path: str) -> dict[str, np.ndarray]:
  """{key: array} from a `.npz`, `.safetensors` or `.pth` file, told apart by content, not by name.

  Raises UserError (one line) for a missing, truncated, foreign or hostile file.
  """
  with _open(path) as file:
    head = file.read(16)
  if head[:4] == b"PK\x03\x04":
    with _guard(path, "a zip archive"), zipfile.ZipFile(path) as archive:
      names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
      return read_pth(path)
    return read_npz(path)
  # safetensors: 8 bytes of header length, then JSON; the length may begin like a pickle, not the reverse
  if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
    return read_safetensors(path)
  if head[:1] == b"\x80":
    return read_pth(path)
  raise UserError(f"{path}: not a weights file that can be read (.npz, .safetensors or .pth)")


def read_npz(path: str) -> dict[str, np.ndarray]:
  """{key: array} from a numpy archive; arrays of Python objects (pickles) are refused."""
  with _open(path) as file, _guard(path, "an .npz file"), np.load(path, allow_pickle=False) as archive:
    _afford(file, sum(member.file_size for member in archive.zip.infolist()))
    return {key: archive[key] for key in archive.files}


def check_sha256(path: str, declared: str) -> None:
  """UserError unless the file is the one that was declared, by the SHA-256 of its bytes in 64 hex digits."""
  with _open(path) as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if not declared:
    raise UserError(f"say which file {path} is: its sha256 is {found}")
  if found != declared:
    raise UserError(f"{path} is not the declared file: its SHA-256 is {found[:12]}.., declared is {declared[:12]}..")


def read_safetensors(path: str) -> dict[str, np.ndarray]:
  """{key: array} from a safetensors file."""
  with _open(path), _guard(path, "a .safetensors file"):
    return dict(safetensors.numpy.load_file(path))


def read_pth(path: str) -> dict[str, np.ndarray]:
  """{key: array} from a `torch.save` file: the zip format or the older stream of pickles."""
  with _open(path) as file, _guard(path, "a .pth file"):
    if zipfile.is_zipfile(file):
      tree = _read_zip(file)
    else:
      file.seek(0)
      tree = _read_stream(file)
    flat = _flatten(tree)
    _afford(file, sum(view.nbytes for view in flat.values()))
    # copies: views of one buffer must not share memory
    flat = {key: np.array(view) for key, view in flat.items()}
  if not flat:
    raise UserError(f"{path}: a .pth file without tensors")
  return flat


def _afford(file: BinaryIO, size: int) -> None:
  """UserError where a file says that it unpacks to far more than weights can be compressed."""
  if size > (64 << 20) + 20 * os.fstat(file.fileno()).st_size:
    raise UserError(f"refused: unpacks to {size / 2**20:,.0f} MiB, far more than its size")


def _open(path: str) -> BufferedReader:
  try:
    return open(path, "rb")
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def _guard(path: str, what: str) -> Iterator[None]:
  """Turns whatever a broken file makes the parsers raise into one UserError.

  All exceptions, because the file is untrusted: pickle alone raises a dozen kinds on garbage.
  """
  try:
    yield
  except UserError as error:
    raise UserError(f"{path}: {error}") from None
  except Exception as error:  # noqa: BLE001
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    raise UserError(f"{path}: {what} that is damaged or incomplete ({detail})") from None


class _Storage:
  """A flat buffer that tensors are views of; the stream format fills it after the pickle is read."""

  __slots__ = ("data",)

  def __init__(self, data: np.ndarray):
    self.data = data


class _Allowed:
  """A harmless stand-in for a name in a pickle, made anew for each load so that none can be altered."""

  __slots__ = ("_call", "dtype")

  def __init__(self, call: Callable[..., Any] | None = None, dtype: Any = None):
    self._call, self.dtype = call, dtype

  def __call__(self, *args: Any) -> Any:
    if self._call is None:
      raise UserError("refused: calls something that is no tensor constructor")
    return self._call(*args)


def _rebuild_tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> np.ndarray:
  """A view of a storage. `np.ndarray(buffer=...)` checks the bounds; `as_strided` would read any address."""
  if not isinstance(storage, _Storage) or not isinstance(storage.data, np.ndarray):
    raise UserError("refused: a tensor without storage")
  item, shape = storage.data.itemsize, tuple(map(int, shape))
  if math.prod(shape) > storage.data.size:  # a stride of 0 makes terabytes of one number
    raise UserError("refused: a tensor larger than its storage")
  return np.ndarray(
    shape,
    storage.data.dtype,
    buffer=np.ascontiguousarray(storage.data).view(np.uint8),
    offset=int(offset) * item,
    strides=tuple(int(stride) * item for stride in strides),
  )


def _allow(module: str, name: str) -> Any:
  """What a name in the pickle stands for; UserError for all but tensors, storages, dicts and dtypes."""
  if (module, name) == ("collections", "OrderedDict"):
    return collections.OrderedDict
  if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
    return _Allowed(_rebuild_tensor)
  if module == "torch._utils" and name == "_rebuild_parameter":
    return _Allowed(lambda tensor, *_: tensor)
  if module == "torch" and name in _STORAGES:
    return _Allowed(dtype=np.dtype(_STORAGES[name]))
  if module == "torch" and name == "Size":
    return _Allowed(tuple)
  if module == "torch" and name in _DTYPES:
    return _Allowed()
  hint = next((how for start, how in WHOLE.items() if module.startswith(start)), "")
  raise UserError(f"refused: the pickle asks for {module}.{name}, and only tensors are read{hint}")


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
  """Builds tensors only. `find` gives the storage of a persistent id.

  The unpickler in Python: the one in C takes gigabytes for its memo when five bytes ask for it.
  """

  def __init__(self, file: Any, find: Callable[[tuple], _Storage] | None = None):
    super().__init__(file, encoding="latin-1")
    self._find = find

  def find_class(self, module: str, name: str) -> Any:
    return _allow(module, name)

  def persistent_load(self, pid: Any) -> _Storage:
    if self._find is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
      raise UserError("refused: an external reference that is no tensor storage")
    if not isinstance(pid[1], _Allowed) or pid[1].dtype is None:
      raise UserError("refused: a storage of unknown dtype")
    return self._find(pid)


def _read_zip(file: BinaryIO) -> Any:
  with zipfile.ZipFile(file) as archive:
    _afford(file, sum(member.file_size for member in archive.infolist()))
    entry = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
    if entry is None:
      raise UserError("a zip archive without data.pkl: not a .pth file")
    root = entry[: -len("data.pkl")]
    if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
      raise UserError("refused: a big-endian file")
    storages: dict[str, _Storage] = {}

    def find(pid: tuple) -> _Storage:
      _, kind, key, _, count = pid[:5]
      if key not in storages:
        raw = archive.read(f"{root}data/{key}")
        storages[key] = _Storage(np.frombuffer(raw, kind.dtype, count=int(count)))
      return storages[key]

    with archive.open(entry) as stream:
      return _Unpickler(stream, find).load()


def _read_stream(file: BinaryIO) -> Any:
  """Magic, protocol, system, the tree, the storage keys; then each storage: int64 count and raw data."""
  limit = os.fstat(file.fileno()).st_size
  if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
    raise UserError("a pickle, but not a torch.save file")
  system = _Unpickler(file).load()
  if not system.get("little_endian", True):
    raise UserError("refused: a big-endian file")
  storages: dict[str, _Storage] = {}

  def find(pid: tuple) -> _Storage:
    _, kind, key, _, count = pid[:5]
    if key not in storages:
      if int(count) * kind.dtype.itemsize > limit:
        raise UserError("incomplete: a storage is larger than the file")
      storages[key] = _Storage(np.zeros(int(count), kind.dtype))
    view = pid[5] if len(pid) > 5 else None
    if view is None:
      return storages[key]
    _, start, size = view
    return _Storage(storages[key].data[int(start) : int(start) + int(size)])

  tree = _Unpickler(file, find).load()
  for key in _Unpickler(file).load():
    data = storages[key].data
    count = int.from_bytes(file.read(8), "little")
    raw = file.read(data.nbytes)
    if count != data.size or len(raw) != data.nbytes:
      raise UserError("incomplete: the data of a storage is cut off")
    data[:] = np.frombuffer(raw, data.dtype)
  return tree


def _flatten(tree: Any) -> dict[str, np.ndarray]:
  """The tensors of a tree by their paths. A few bytes can say [[..] * 100] * 100 and so on: nodes are counted."""
  flat: dict[str, np.ndarray] = {}
  stack, seen = [(tree, "", 0)], 0
  while stack:
    node, path, depth = stack.pop()
    seen += 1
    if seen > _NODES or depth > _DEPTH:
      raise UserError(f"refused: more than {_NODES:,} values, or nested deeper than {_DEPTH}")
    if isinstance(node, np.ndarray):
      flat[path or "tensor"] = node
      continue
    if isinstance(node, Mapping):
      items = list(node.items())
    elif isinstance(node, (list, tuple)):
      items = list(enumerate(node))
    else:
      continue
    seen += len(items)
    stack += [(value, f"{path}/{_key(key)}" if path else _key(key), depth + 1) for key, value in reversed(items)]
  return flat


def _key(key: Any) -> str:
  if not isinstance(key, (str, int)):
    raise UserError("refused: a key that is neither a text nor a number")
  return str(key)
