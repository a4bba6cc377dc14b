"""ArrayRecord shards and the tf.train.Examples in them, read at random and as untrusted data.

TFDS would import whatever class the metadata of a set name and open whatever path they give. Here metadata give
numbers and names of files beside them, and a record is bytes.
"""

import bisect
import itertools
import os
import re
import resource
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from latents.data.source import Broken
from latents.errors import UserError, first_line

Values = list[bytes] | list[int] | list[float]


class Shards:
  """Files [(path, records)] as one sequence of bytes. A shard is opened when it is first asked for, and stays open.

  UserError for a shard that is missing, damaged, or has another number of records than it should.
  """

  def __init__(self, shards: Sequence[tuple[str, int]]):
    self.paths = [path for path, _ in shards]
    self.counts = [count for _, count in shards]
    self.ends = list(itertools.accumulate(self.counts))
    self.readers: dict[int, Any] = {}
    self.lock = threading.Lock()
    for path in self.paths:
      if not os.path.isfile(path):
        raise UserError(f"{path} is missing")
    if len(shards) > 500:  # every shard is an open file, and 1,024 are usually allowed
      _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
      resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

  def __len__(self) -> int:
    return self.ends[-1] if self.ends else 0

  def __getitem__(self, i: int) -> bytes:
    if not 0 <= i < len(self):
      raise IndexError(i)
    shard = bisect.bisect_right(self.ends, i)
    place = i - (self.ends[shard] - self.counts[shard])
    reader = self.readers.get(shard) or self._open(shard)
    try:
      return bytes(reader.read([place])[0])
    except Exception as error:
      raise Broken(f"record {place} of {os.path.basename(self.paths[shard])} is damaged") from error

  def _open(self, shard: int) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    path = self.paths[shard]
    with self.lock:
      if shard in self.readers:
        return self.readers[shard]
      try:
        # read-ahead is for those who read in order; the buffer is what Grain and TFDS give it
        reader = ArrayRecordReader(path, options="readahead_buffer_size:0", file_reader_buffer_size=32_768)
        found = int(reader.num_records())
      except Exception as error:
        raise UserError(f"{path} is not a readable ArrayRecord file: {first_line(error)}") from error
      if found != self.counts[shard]:
        raise UserError(f"{path} holds {found} records, and dataset_info.json says {self.counts[shard]}")
      self.readers[shard] = reader
      return reader


def shard_names(template: str, dataset: str, split: str, count: int) -> list[str]:
  """The file names of a split's shards, as TFDS forms them. UserError where one would be no plain file name."""
  digits = max(5, len(str(count)))
  known = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": "array_record", "NUM_SHARDS": f"{count:0{digits}}"}

  def fill(shard: int) -> str:
    index = f"{shard:0{digits}}"
    words = known | {"SHARD_INDEX": index, "SHARD_X_OF_Y": f"{index}-of-{known['NUM_SHARDS']}"}
    # not str.format: a template is data, and a format can ask for attributes
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found.group(1), found.group(0)), template)

  names = [fill(shard) for shard in range(count)]
  if any(not re.fullmatch(r"[\w.+=,@ -]+", name) or name.startswith(".") for name in names):
    raise UserError(f"the shards of the {split[:40]} split are named {names[0][:80]!r}, which is no plain file name")
  return names


def example(record: bytes, wanted: Sequence[str]) -> dict[str, Values]:
  """The wanted features of a serialised tf.train.Example. Raises Broken for bytes that are none."""
  found: dict[str, Values] = {}
  try:
    for _, features in _fields(record, {1: bytes}):
      for _, entry in _fields(features, {1: bytes}):
        pair = dict(_fields(entry, {1: bytes, 2: bytes}))
        name = bytes(pair.get(1, b"")).decode()
        if name in wanted and 2 in pair:
          found[name] = _values(pair[2])
  except (ValueError, IndexError, struct.error) as error:
    raise Broken("is no tf.train.Example") from error
  return found


def _values(feature: Any) -> Values:
  """A Feature: bytes_list 1, float_list 2 or int64_list 3, each with repeated value 1, packed or not."""
  values: list[Any] = []
  for kind, body in _fields(feature, {1: bytes, 2: bytes, 3: bytes}):
    for _, value in _fields(body, {1: bytes if kind == 1 else object}):
      if kind == 1:
        values.append(bytes(value))
      elif isinstance(value, int):
        values.append(value)
      elif kind == 2:
        values += np.frombuffer(value, "<f4").tolist()
      else:
        values += _varints(value)
  return [signed(value) if isinstance(value, int) else value for value in values]


def signed(value: int) -> int:
  """64 bits as a two's complement number."""
  return value - 2**64 if value >= 2**63 else value


def _varints(data: Any) -> list[int]:
  values, place = [], 0
  while place < len(data):
    value, place = _varint(data, place)
    values.append(value)
  return values


def _varint(data: Any, place: int) -> tuple[int, int]:
  """(number, next place): 7 bits a byte, the lowest first."""
  value = 0
  for shift in range(0, 70, 7):
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value & (2**64 - 1), place
  raise ValueError("a number without end")


def _fields(data: Any, wanted: dict[int, type]) -> Iterator[tuple[int, Any]]:
  """(number, value) of the wanted fields of a protobuf message: bytes as views, numbers as int."""
  view, place = memoryview(data), 0
  while place < len(view):
    key, place = _varint(view, place)
    number, wire = key >> 3, key & 7
    if wire == 0:
      value, place = _varint(view, place)
    elif wire in (1, 5):
      size = 8 if wire == 1 else 4
      value, place = view[place : place + size], place + size
    elif wire == 2:
      size, place = _varint(view, place)
      value, place = view[place : place + size], place + size
    else:
      raise ValueError(f"wire type {wire}")
    if place > len(view):
      raise ValueError("cut off")
    if number in wanted:
      if wanted[number] is bytes and wire != 2:
        raise ValueError(f"field {number} holds no bytes")
      yield number, value


def whole(x: Any, what: str) -> int:
  """A JSON number, or a number in a text as protobuf writes 64 bits, at least 0. Raises UserError."""
  if isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 10**15:
    return x
  if isinstance(x, str) and re.fullmatch(r"[0-9]{1,15}", x):
    return int(x)
  raise UserError(f"{what} is {str(x)[:40]!r}, not a whole number")
