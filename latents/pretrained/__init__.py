"""Frozen networks that others trained, and safe readers of their weight files.

The contract: a network is a linen module with `abstract()` (its parameter tree as ShapeDtypeStructs, no
file needed) and `load(...)` (the same tree with the trained weights, or a UserError in one line). Its
parameters are an argument of the step, never closed over. Inputs are signals in [-1, 1]; each network
scales and resizes them itself.
"""

from latents.pretrained.assign import assign
from latents.pretrained.efficientnet import EfficientNetLite0
from latents.pretrained.lpips import LPIPS, unit
from latents.pretrained.readers import read_npz, read_pth, read_safetensors, read_weights

__all__ = [
  "LPIPS",
  "EfficientNetLite0",
  "assign",
  "read_npz",
  "read_pth",
  "read_safetensors",
  "read_weights",
  "unit",
]
