"""What users hand over: signals, latents and numbers of any type, checked; all that does not fit is one `UserError`."""

import math
import operator
import warnings
from typing import Any

import jax
import numpy as np

from latents.errors import UserError, first_line
from latents.media import Kind
from latents.types import Latent, to_signal

OPEN = -1  # in a prompt: a code that is to be drawn
SLACK = 1e-3  # beyond [-1,1]: what rounding may leave


def signals(x: Any, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
  """An array [B,*S,C] -> what an encoder takes: whole numbers of text, else float32, in [-1,1] where the kind is; uint8
  of pictures and clips is mapped there. shape: the model's own [*S,C]; other sizes *S are not refused here."""
  wanted = f"[B,{','.join(map(str, shape))}]"
  x = array(x, f"encode takes an array {wanted}")
  if x.ndim != len(shape) + 1 or not x.size or (len(shape) > 1 and x.shape[-1] != shape[-1]):
    hint = ": of one example give x[None]" if x.ndim == len(shape) else ""
    raise UserError(f"encode takes an array {wanted}, not one of shape {x.shape}{hint}")
  if kind.dtype == "int32":
    if x.dtype.kind not in "iu" or x.min() < 0:
      raise UserError(f"encode takes whole numbers from 0 on, not {x.dtype} from {x.min()} on")
    return x.astype(np.int32)
  if x.dtype == np.uint8 and kind.dtype == "uint8":
    return np.asarray(to_signal(x))
  if not floats(x):
    raise UserError(f"encode takes float in [-1,1]{' or uint8' * (kind.dtype == 'uint8')}, not {x.dtype}")
  x = finite(x.astype(np.float32), "the signals")
  outside = np.abs(x - kind.clip(x)) > SLACK
  if outside.any():
    raise UserError(f"encode takes float in [-1,1]; {outside.mean():.2%} of these lie outside, up to {_far(x):g}")
  if kind.dtype == "uint8" and x.min() >= 0 and x.max() > 0 and not _eight_bit(x):
    warnings.warn("the signals lie in [0,1]: where black is 0, 2 * x - 1 is meant", stacklevel=3)
  return x


def latents(latent: Any, own: Latent, vocab: tuple[int, ...]) -> Latent:
  """A Latent, or an array of z [B,*s,D] or of codes -> the Latent. own: shapes of one of the model's; vocab: the number
  of codes of each group or grid."""
  if not isinstance(latent, Latent):
    values = array(latent, "decode takes a Latent, or an array of z or of codes")
    if values.dtype.kind not in "iu" and not floats(values):
      raise UserError(
        f"decode takes a Latent, or an array of z (float) or of codes (whole numbers), not {values.dtype}"
      )
    codes = values.dtype.kind in "iu"
    latent = Latent(codes=values.astype(np.int32)) if codes else Latent(z=values.astype(np.float32))
  latent = jax.tree.map(np.asarray, latent.replace(terms={}, logs={}))
  if latent.z is None and latent.codes is None:
    raise UserError("decode takes a Latent with z or codes; this one has neither")
  for name in ("z", "codes"):
    mine, shape = getattr(latent, name), getattr(getattr(own, name), "shape", None)
    if mine is None:
      continue
    if shape is None:
      raise UserError(f"these latents have {name}, but those of this model have none")
    if np.ndim(mine) != len(shape) + 1 or not len(mine) or (name == "z" and mine.shape[-1] != shape[-1]):
      raise UserError(f"decode takes {name} [B,{','.join(map(str, shape))}], not an array of shape {np.shape(mine)}")
  if latent.z is not None:
    finite(latent.z, "the latents")
  if latent.codes is not None:
    low, high, most = int(np.min(latent.codes)), int(np.max(latent.codes)), max(vocab, default=0)
    if low < 0 or high >= most:
      raise UserError(f"codes are whole numbers from 0 to {most - 1}, these lie from {low} to {high}")
  return latent


def prompt(codes: Any, number: int, shape: tuple[int, ...], vocab: int | np.ndarray, together: int = 1) -> np.ndarray:
  """codes: whole numbers [P,n], the first n codes of P examples in the order of the latent, or [P,r,..], the first rows
  or all; OPEN where they are to be drawn -> int32 [number,*shape], OPEN behind; prompts repeat in turn. UserError.

  vocab: how many codes there are, of all tokens or of each [N]. together: so many are given or drawn at once.
  """
  codes, size = array(codes, "a prompt is an array of codes"), math.prod(shape)
  if codes.dtype.kind not in "iu":
    raise UserError(f"a prompt is of codes, which are whole numbers, not {codes.dtype}")
  whole = codes.ndim == len(shape) + 1 and codes.shape[2:] == shape[1:]
  if not len(codes) or not (whole or codes.ndim == 2) or (codes.shape == shape and len(shape) > 1):
    wanted = f"[P,n] or [P,{','.join(map(str, shape))}]"
    hint = f": codes[None] is one example, codes[:, None] {len(codes)} first rows" if codes.shape == shape else ""
    raise UserError(f"a prompt is codes {wanted}, not an array of shape {codes.shape}{hint}")
  codes = codes.reshape(len(codes), -1)
  if codes.shape[1] > size:
    raise UserError(f"a prompt of {codes.shape[1]} codes is longer than the {size} of a sample")
  most = np.broadcast_to(vocab, size)[: codes.shape[1]]
  if (wrong := (codes >= most) | (codes < (0 if codes.dtype.kind == "u" else OPEN))).any():
    at = np.unravel_index(np.argmax(wrong), wrong.shape)
    raise UserError(
      f"a prompt has code {codes[at]} at place {at[1]}, where there are 0 to {most[at[1]] - 1} (or {OPEN}: to be drawn)"
    )
  codes = codes.astype(np.int64)
  codes = np.pad(codes, ((0, 0), (0, size - codes.shape[1])), constant_values=OPEN)
  parts = (codes >= 0).reshape(len(codes), -1, together)
  if (parts.any(-1) != parts.all(-1)).any():
    raise UserError(f"codes are drawn {together} at once: of a prompt all {together} of a place are given, or none")
  return codes[np.arange(number) % len(codes)].reshape(number, *shape).astype(np.int32)


def array(x: Any, wanted: str) -> np.ndarray:
  """Anything that numpy takes. UserError for the rest."""
  try:
    return np.asarray(x)
  except Exception as error:  # noqa: BLE001  (ragged lists, tensors on devices or with gradients: each its own)
    raise UserError(f"{wanted}: {first_line(error)}") from None


def floats(x: np.ndarray) -> bool:
  """Whether the numbers are floating, bfloat16 too."""
  return x.dtype.kind == "f" or x.dtype.name == "bfloat16"


def finite(x: np.ndarray, what: str, why: str = "") -> np.ndarray:
  """The array. UserError where it has numbers that are none; why: what may be the cause."""
  x = np.asarray(x)
  if np.issubdtype(x.dtype, np.floating) and not (sound := np.isfinite(x).reshape(len(x), -1).all(1)).all():
    raise UserError(f"{np.sum(~sound)} of {len(x)} of {what} are not finite (nan or infinite){why}")
  return x


def whole(x: Any, what: str) -> int:
  """A whole number of any type. UserError for others."""
  try:
    if isinstance(x, bool | np.bool_):
      raise TypeError
    return operator.index(x)
  except TypeError:
    raise UserError(f"{what} is {x!r}: it must be a whole number") from None


def real(x: Any, what: str) -> float:
  """A number of any type. UserError for others."""
  try:
    if isinstance(x, str | bool):
      raise TypeError
    return float(x)
  except (TypeError, ValueError, OverflowError):
    raise UserError(f"{what} is {x!r}: it must be a number") from None


def _far(x: np.ndarray) -> float:
  return float(x.reshape(-1)[np.argmax(np.abs(x))])


def _eight_bit(x: np.ndarray) -> bool:
  """Whether these are uint8 mapped to [-1,1]: odd numbers of 255ths; in [0,1] there are even ones too."""
  return bool(np.all(np.abs((255 * x) % 2 - 1) < 1e-3))
