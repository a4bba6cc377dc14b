"""What a report is made of: sheets of images, sound, axes, numbers."""

import io
import wave

import numpy as np
import pytest
from PIL import Image

from latents.report import curves, figures, scores


def pictures(n: int, side: int, channels: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (n, side, side, channels)).astype(np.uint8)


def test_wav_and_waves_are_exact():
  stored = np.array([[[-32767], [0], [16384]]], np.int16)
  with wave.open(io.BytesIO(figures.wav(figures.waves(stored)[0], 16_000))) as file:
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
    back = np.frombuffer(file.readframes(3), "<i2")
  np.testing.assert_allclose(back, stored[0, :, 0], atol=1)


def test_a_sheet_holds_its_images():
  x = pictures(5, 8, 3)
  made = figures.sheet(x)
  page = np.asarray(Image.open(io.BytesIO(made.png)))
  assert (made.columns, made.rows, page.shape) == (3, 2, (20, 30, 3))
  for i in range(5):
    top, left = i // 3 * 10 + 1, i % 3 * 10 + 1
    np.testing.assert_array_equal(page[top : top + 8, left : left + 8], x[i])
  # CSS: p% of the sheet meets p% of the element, so image 1 starts 11 of 22 possible pixels in
  assert made.place(1).startswith("--x:50.0000%")


def test_videos_and_floats_become_pictures():
  video = np.zeros((2, 7, 4, 5, 3), np.float32)
  video[0, 6] = np.inf
  out = figures.pictures(video)
  assert out.shape == (2, 4, 20, 3) and out[0, 0, -1, 0] == 255 and out[0, 0, 0, 0] == 128


def test_axes_and_ticks():
  assert curves.value_axis(np.array([1e-4, 1.0])).log
  for values in ([0.5, 0.9], [-1.0, 100.0], [0.0, 100.0], [3.0, 3.0], [0.0, 0.0]):
    axis = curves.value_axis(np.array(values))
    assert not axis.log and axis.low < axis.high and 2 <= len(axis.ticks(4)) <= 7
  assert curves.linear_ticks(0, 100, 4) == [0, 25, 50, 75, 100]
  assert 3 <= len(curves.value_axis(np.array([0.03, 0.5])).ticks(4)) <= 7
  spike = np.zeros(5000)
  spike[1234] = 9.0
  kept = curves.thin(spike)
  assert len(kept) <= 302 and 1234 in kept and kept[0] == 0 and kept[-1] == 4999


@pytest.mark.parametrize(
  ("x", "text"),
  [(27.134, "27.13"), (0.95312, "0.953"), (0, "0"), (412345, "412\u202f345"), (1.5e-7, "1.50e\u22127"),
   (None, "\u2013"),
   ([8, 8, 4], "8 \u00d7 8 \u00d7 4"), ([0.5, 2.0], "0.500, 2.000"),
   (float("nan"), "nan"), (float("-inf"), "\u2212\u221e"), (True, "yes"), (-3, "\u22123")],
)  # fmt: skip
def test_numbers(x, text):
  assert scores.number(x) == text


def test_best():
  assert scores.best((1.0, 2.0, None), "low") == {0} and scores.best((1.0, 2.0, 2.0), "high") == {1, 2}
  assert scores.best((0.8, 1.1), "one") == {1} and scores.best((1.0, None), "low") == set()
  assert scores.best((1.0, 1.0), "low") == set() and scores.best((1.0, 2.0), "") == set()
