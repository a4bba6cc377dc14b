"""Sound [T,C], float in [-1,1] at a rate."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latents.media.base import BESIDE, Kind
from latents.media.drawing import grid, spectrogram, waveform
from latents.media.log_mel import log_mel
from latents.media.mark import MARK


class Sound(Kind):
  """Seen as spectrograms of the first channel; "audio" is the stored name."""

  name: ClassVar[str] = "audio"
  suffixes: ClassVar[tuple[str, ...]] = (".flac", ".wav", ".npz", ".png")
  on: ClassVar[str] = "log mel energies"

  def judge(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """Energies of mel bands: not waves, whose phase says nothing of what is heard."""
    return log_mel(x, rate) if rate else x

  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """Spectrograms."""
    return np.stack([spectrogram(w[:, 0], rate or 1) for w in x])

  def sheet(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """Waveforms, each above its spectrogram."""
    tiles = [np.concatenate([waveform(wave), spectrogram(wave, rate or 1)]) for wave in x[..., 0]]
    return grid(np.stack(tiles), columns=4, pad=6)

  def picture(self, arrays: dict[str, np.ndarray], rate: int | None) -> np.ndarray:
    """The first sixteen."""
    return super().picture({k: v if k in BESIDE else v[:16] for k, v in arrays.items()}, rate)

  def write(self, path: Path, x: np.ndarray, labels: np.ndarray | None, rate: int | None) -> None:
    """One after another where the file is sound."""
    if path.suffix in (".npz", ".png"):
      return super().write(path, x, labels, rate)
    import soundfile  # loads a C library

    with soundfile.SoundFile(path, "w", rate or 1, x.shape[-1]) as file:
      file.comment = MARK
      file.write(x.reshape(-1, x.shape[-1]))
    return None

  def beside(self, rate: int | None) -> dict[str, Any]:
    """The rate."""
    return {"rate": np.asarray(rate)}
