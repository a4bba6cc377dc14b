"""A user's own clips and texts through a model that hands them back."""

import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latents.data import Text, Video
from latents.errors import UserError
from latents.media.video import animation
from latents.use import files


def model(data: Any, change: Any = lambda x: x) -> Any:
  stage = types.SimpleNamespace(data=data)
  return types.SimpleNamespace(
    experiment=types.SimpleNamespace(stage1=stage), reconstruct=lambda x, steps=None: change(x)
  )


def test_texts_are_decoded_window_after_window_and_keep_their_length(tmp_path):
  text = b"caf\xe9 and more\n" * 13
  (tmp_path / "a.txt").write_bytes(text)

  def wrong(x):
    return np.where(x == ord("m"), ord("M"), x)

  (line,) = files.reconstruct(model(Text(path="", length=10), wrong), [tmp_path / "a.txt"], tmp_path / "out", None)
  assert (tmp_path / "out" / "a.txt").read_bytes() == text.replace(b"m", b"M")
  assert "182 bytes, 92.86 % right" in line
  for content, message in ((b"", "is empty"), (None, "No such file")):
    if content is not None:
      (tmp_path / "b.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
      list(
        files.reconstruct(
          model(Text(path="")), [tmp_path / ("c" if content is None else "b.txt")], tmp_path / "other", None
        )
      )


def test_clips_stand_beside_their_reconstruction(tmp_path):
  frames = np.stack([np.full((12, 16, 3), 20 * i, np.uint8) for i in range(6)])
  (tmp_path / "a.gif").write_bytes(animation(frames, "GIF"))
  data = Video(path="", frames=4, size=8)
  (line,) = files.reconstruct(model(data), [tmp_path / "a.gif"], tmp_path / "out", None)
  with Image.open(tmp_path / "out" / "a.webp") as made:
    assert (made.n_frames, made.size) == (4, (16, 8))
  assert "4 frames of 8x8, PSNR 100.00 dB" in line
  (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:40])
  with pytest.raises(UserError, match=r"cut.gif: "):
    list(files.reconstruct(model(data), [tmp_path / "cut.gif"], tmp_path / "other", None))
  assert not (tmp_path / "other").exists()  # nothing is written unless all can be read
