"""Kinds of signals: what is stored, drawn, written and judged."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from latents import media
from latents.errors import UserError
from latents.media.base import by_label, eight_bit
from latents.media.text import printed
from latents.media.video import animation
from latents.types import to_signal, to_uint8

SHAPES = {"image": (8, 6, 3), "video": (5, 8, 6, 3), "audio": (400, 1), "text": (30,), "array": (4, 5, 2)}
KINDS = pytest.mark.parametrize("name", media.KINDS)


def signals(name: str, count: int = 4) -> np.ndarray:
  rng = np.random.default_rng(0)
  if name == "text":
    return rng.integers(0, 256, (count, *SHAPES[name])).astype(np.int32)
  return rng.uniform(-1, 1, (count, *SHAPES[name])).astype(np.float32)


def test_every_kind_has_a_case_here_and_an_unknown_one_is_an_error():
  assert set(SHAPES) == set(media.KINDS)
  with pytest.raises(UserError, match="video"):
    media.kind("vidoe")


@KINDS
def test_what_is_stored_comes_back_and_is_drawn(name, tmp_path):
  kind, x = media.kind(name), signals(name)
  stored = kind.stored(x)
  assert stored.dtype == np.dtype(kind.dtype) and np.array_equal(kind.stored(stored), stored)
  back = np.asarray(to_signal(stored))
  assert np.abs(back - x).max() <= (1 / 127.5 if kind.dtype == "uint8" else 0)
  assert kind.values(stored).shape[-1] == (1 if name == "text" else x.shape[-1])
  for picture in (kind.sheet(stored, 8000), kind.picture({"x": stored, **kind.beside(8000)}, 8000)):
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3 and picture.std() > 0
  one = kind.picture({"x": stored}, 8000)
  pair = kind.picture({"x": stored, "reconstruction": stored, "pca": np.zeros((4, 2, 2, 3), np.uint8)}, 8000)
  assert pair.size > one.size  # two rows; the picture of the latents is not among them
  assert kind.judge(x, 8000).shape[0] == len(x) and np.isfinite(kind.judge(x, 8000)).all()
  for suffix in kind.suffixes:
    path = tmp_path / f"x{suffix}"
    kind.check(path)
    kind.write(path, x, None, 8000)
    assert path.stat().st_size > 0
  with pytest.raises(UserError, match="ending"):
    kind.check(tmp_path / "x.exe")


@KINDS
def test_clipping_leaves_signals_and_tames_what_is_none(name):
  kind, x = media.kind(name), signals(name)
  np.testing.assert_array_equal(kind.clip(x), x)
  low, high = {"text": (0, 255), "array": (-1000, 1000)}.get(name, (-1, 1))
  wild = kind.clip(x * 1000)
  assert low <= wild.min() and wild.max() <= high


def test_eight_bits_are_those_of_the_device():
  x = np.random.default_rng(0).uniform(-1.2, 1.2, 100_000).astype(np.float32)
  np.testing.assert_array_equal(eight_bit(x), np.asarray(to_uint8(x)))


def test_integers_other_than_uint8_are_no_pixels():
  text = np.arange(5, dtype=np.int32)
  assert to_signal(text).dtype == np.int32
  np.testing.assert_array_equal(to_signal(text), text)


def test_a_clip_is_a_strip_and_an_animation():
  x = np.zeros((1, 3, 4, 5, 1), np.uint8)
  x[0, 1] = 100
  x[0, 2] = 200
  strip = media.kind("video").tiles(x, None)
  assert strip.shape == (1, 4, 15, 1)
  np.testing.assert_array_equal(strip[0, 0, :, 0], np.repeat([0, 100, 200], 5))
  with Pillow.open(io.BytesIO(animation(x[0], "GIF"))) as file:
    levels = []
    for i in range(file.n_frames):
      file.seek(i)
      levels.append(int(np.asarray(file.convert("L")).mean()))
  assert levels == [0, 100, 200]


def test_text_is_written_byte_for_byte_and_printed_in_one_column_a_byte(tmp_path):
  text = b"a\xff\n\x00\xc3\xa4b"
  row = np.frombuffer(text, np.uint8).astype(np.int32)
  media.kind("text").write(tmp_path / "x.txt", row[None], None, None)
  assert (tmp_path / "x.txt").read_bytes() == text + b"\n[made by latents]\n"
  assert printed(row) == "a\N{MIDDLE DOT}\N{PILCROW SIGN}\N{MIDDLE DOT}\N{MIDDLE DOT}\N{MIDDLE DOT}b"
  judged = media.kind("text").judge(np.array([[97, 97, 98, 10]]), None)
  assert judged[0, 97] == 0.5 and judged[0, 98] == 0.25 and judged.sum() == 1


def test_columns_go_by_labels():
  assert by_label(20, np.arange(20) % 5) == 5
  assert by_label(9, None) == 3
