"""Readers: every format comes back exactly, and hostile or broken files end in one clear line."""

import collections
import io
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from latents.errors import UserError
from latents.pretrained import assign, read_npz, read_pth, read_safetensors, read_weights

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.array([1, -2], np.float16)}


class Name:
  """Pickles as a global name of another module, as torch's classes do."""

  def __init__(self, module: str, name: str):
    self.module, self.name = module, name


class Call:
  """Pickles as a call of a name."""

  def __init__(self, module: str, name: str, *args):
    self.name, self.args = Name(module, name), args


class Tensor:
  """Pickles as torch writes a tensor: a rebuild call on a storage that lies outside of the pickle."""

  def __init__(self, key: str, array: np.ndarray, strides: tuple | None = None, shape: tuple | None = None):
    self.key, self.array = key, array
    self.shape = shape or array.shape
    self.strides = strides or tuple(s // array.itemsize for s in array.strides)


class Writer(pickle._Pickler):
  """A pickler in Python, so that names can be written without the modules they belong to."""

  def persistent_id(self, obj):
    if isinstance(obj, tuple) and obj and obj[0] == "storage":
      return obj
    return None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Name):
      self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
    elif isinstance(obj, Call):
      self.save(obj.name)
      self.save(obj.args)
      self.write(pickle.REDUCE)
    elif isinstance(obj, Tensor):
      kind = {"float32": "FloatStorage", "float16": "HalfStorage"}[obj.array.dtype.name]
      storage = ("storage", Name("torch", kind), obj.key, "cpu", obj.array.size)
      hooks = collections.OrderedDict()
      args = (storage, 0, obj.shape, obj.strides, False, hooks)
      self.save(Call("torch._utils", "_rebuild_tensor_v2", *args))
    elif isinstance(obj, tuple) and obj and obj[0] == "storage" and save_persistent_id:
      self.write(pickle.MARK)
      for part in obj:
        self.save(part)
      self.write(pickle.TUPLE + pickle.BINPERSID)
    else:
      super().save(obj, save_persistent_id)


def dump(obj) -> bytes:
  file = io.BytesIO()
  Writer(file, 2).dump(obj)
  return file.getvalue()


def stream(tree, arrays: dict[str, np.ndarray]) -> bytes:
  """The format of torch < 1.6."""
  parts = [dump(0x1950A86A20F9469CFC6C), dump(1001), dump({"little_endian": True, "protocol_version": 1001})]
  parts += [dump(tree), dump(list(arrays))]
  parts += [len(a.reshape(-1)).to_bytes(8, "little") + a.tobytes() for a in arrays.values()]
  return b"".join(parts)


def archive(tree, arrays: dict[str, np.ndarray]) -> bytes:
  """The zip format."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as out:
    out.writestr("m/data.pkl", dump(tree))
    for key, array in arrays.items():
      out.writestr(f"m/data/{key}", array.tobytes())
  return file.getvalue()


def save(tmp_path, data: bytes, name: str = "w.pth") -> str:
  path = tmp_path / name
  path.write_bytes(data)
  return str(path)


def model() -> tuple[dict, dict[str, np.ndarray]]:
  arrays = dict(zip("01", ARRAYS.values(), strict=True))
  tree = collections.OrderedDict((k, Tensor(i, a)) for i, (k, a) in zip("01", ARRAYS.items(), strict=True))
  return tree, arrays


def equal(found: dict[str, np.ndarray]) -> None:
  assert set(found) == set(ARRAYS)
  for key, array in ARRAYS.items():
    assert found[key].dtype == array.dtype
    np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("write", [stream, archive])
def test_pth_round_trip(tmp_path, write):
  path = save(tmp_path, write(*model()), "without_extension")
  equal(read_pth(path))
  equal(read_weights(path))


def test_npz_and_safetensors_are_told_apart_by_content(tmp_path):
  file = io.BytesIO()
  np.savez(file, **ARRAYS)
  npz = save(tmp_path, file.getvalue(), "a.pth")
  equal(read_npz(npz))
  equal(read_weights(npz))
  tensors = save(tmp_path, safetensors.numpy.save(ARRAYS), "b.npz")
  equal(read_safetensors(tensors))
  equal(read_weights(tensors))


@pytest.mark.parametrize("write", [stream, archive])
def test_nested_trees_views_and_other_leaves(tmp_path, write):
  base = np.arange(6, dtype=np.float32)
  tree = {
    "state": {"t": Tensor("0", base, (1, 2), (2, 3))},  # transposed view
    "list": [Tensor("0", base), 3],
    "epoch": 7,
    "dtype": Name("torch", "float32"),
  }
  found = read_pth(save(tmp_path, write(tree, {"0": base})))
  assert set(found) == {"state/t", "list/0"}
  np.testing.assert_array_equal(found["state/t"], base.reshape(3, 2).T)
  found["list/0"][:] = 0
  assert found["state/t"].any()  # views of one storage come back as separate arrays


@pytest.mark.parametrize("write", [stream, archive])
@pytest.mark.parametrize(
  ("module", "name"),
  [("os", "system"), ("builtins", "eval"), ("torch.storage", "_load_from_bytes"), ("functools", "partial")],
)
def test_code_is_refused_by_name(tmp_path, write, module: str, name: str):
  mark = tmp_path / "mark"
  tree = {"x": Call(module, name, f"touch {mark}")}
  with pytest.raises(UserError, match=f"refused.*{module}.{name}"):
    read_pth(save(tmp_path, write(tree, {})))
  assert not mark.exists()


def test_reduce_of_a_real_object_is_refused(tmp_path):
  class Evil:
    def __reduce__(self):
      return os.system, ("exit 1",)

  with pytest.raises(UserError, match="refused"):
    read_weights(save(tmp_path, pickle.dumps(Evil())))


@pytest.mark.parametrize("write", [stream, archive])
def test_tensors_beyond_their_storage_are_refused(tmp_path, write):
  small = np.zeros(4, np.float32)
  for strides, shape in [((1,), (5,)), ((3,), (3,)), ((-1,), (2,)), ((10**12,), (2,))]:
    path = save(tmp_path, write({"x": Tensor("0", small, strides, shape)}, {"0": small}))
    with pytest.raises(UserError):
      read_pth(path)


@pytest.mark.parametrize("write", [stream, archive])
def test_truncation_anywhere_is_one_line(tmp_path, write):
  data = write(*model())
  for cut in range(0, len(data) - 1, 7):
    with pytest.raises(UserError) as error:
      read_weights(save(tmp_path, data[:cut]))
    assert "\n" not in str(error.value)


def test_garbage_and_missing_files_are_one_line(tmp_path):
  rng = np.random.default_rng(0)
  heads = [b"", b"\x80\x02", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", b"\x93NUMPY", b"hello"]
  paths = [save(tmp_path, head + rng.bytes(200), f"{i}") for i, head in enumerate(heads)]
  for path in [*paths, str(tmp_path / "missing"), str(tmp_path)]:
    for reader in (read_weights, read_npz, read_pth, read_safetensors):
      with pytest.raises(UserError) as error:
        reader(path)
      assert "\n" not in str(error.value)


def test_npz_with_pickled_objects_is_refused(tmp_path):
  path = str(tmp_path / "o.npz")
  np.savez(path, o=np.array([{}], object))
  with pytest.raises(UserError):
    read_weights(path)


TEMPLATE = {
  "conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32)},
  "dense": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
}
SOURCES = {"conv/kernel": ("c.weight", "conv"), "dense/kernel": ("d.weight", "dense")}


def test_assign_transposes_and_casts():
  conv, dense = np.random.default_rng(0).normal(size=(4, 2, 3, 3)), np.ones((3, 2), np.float16)
  tree = assign(TEMPLATE, {"c.weight": conv, "d.weight": dense, "skip.x": dense}, SOURCES, what="f", ignore=["skip."])
  assert tree["conv"]["kernel"].dtype == np.float32
  np.testing.assert_allclose(tree["conv"]["kernel"][1, 2, 0, 3], conv[3, 0, 1, 2], rtol=1e-6)
  assert tree["dense"]["kernel"].shape == (2, 3)


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"c.weight": np.ones((4, 2, 3, 3))}, r"1 missing \(d.weight\)"),
    ({f"x{i}": np.ones(1) for i in range(5)}, r"2 missing .*5 extra \(x0, x1, x2, \.\.\.\)"),
    ({"c.weight": np.ones((4, 2, 3, 1)), "d.weight": np.ones((3, 2))}, r"1 wrong shapes \(c.weight"),
  ],
)
def test_assign_names_what_does_not_fit(arrays, message: str):
  with pytest.raises(UserError, match=message) as error:
    assign(TEMPLATE, arrays, SOURCES, what="f")
  assert "\n" not in str(error.value)
