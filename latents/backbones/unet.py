"""U-Net for diffusion: ADM (Dhariwal & Nichol 2021, arXiv:2105.05233), LDM and Stable Diffusion (Rombach et al. 2022,
arXiv:2112.10752, appendix E)."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.condition import embed_labels, texts
from latents.nn.conv import AttentionBlock, Conv, Downsample, ResBlock, Upsample
from latents.nn.norm import GroupNorm
from latents.nn.sharding import constrain
from latents.nn.spatial import SpatialTransformer
from latents.nn.time import FROM_0, Clock, embed_times
from latents.types import Array, Cond, later

Context = tuple[Array, Array] | tuple[None, None]  # tokens [B,L,E] and their mask [B,L], which spatial levels attend to


class UNet(nn.Module):
  """x [B,*S,C], t [B] in [0,1] (or [B,n]: n times), cond or None -> [B,*S,out] float32; exactly 0 at the start.

  Level i works at S / 2^i with ch * mult[i] channels and `blocks` residual blocks (one more on the way up).
  attention: levels that attend over all positions after each block; the middle always does. heads: of attention, of all
  levels or by level; head: channels of each, 0 = as many as `heads` make.
  film: time scales and shifts (ADM) instead of being added (LDM). classes: number of labels; label `classes` is
  null and cond None means it; 0 = unconditional. out: None = C. What else the net should see is concatenated to
  x by the caller.
  depth: blocks of the spatial transformer that attends (LDM), of all levels or by level; 0 = plain attention. linear:
  see `SpatialTransformer`. It also attends to the texts of a condition, text = (L, E), which `condition.texts` gives,
  or to the class as one token of `context` numbers, which are learned; context 0 = the class is added to the time.
  resample: between levels are convolutions, halving with a zero at the end of each axis or at both ends (LDM), or
  residual blocks (ADM). groups: of all norms; 0 = 32, with at least 4 channels in each. stem: channels of the first
  layer, a quarter of the time's; 0 = ch. bare: the middle's plain attention has no norm (diffusers' with `film`).
  clock (a, b): a t + b is what is embedded of t. Raises UserError where S does not divide by 2^(levels-1).
  """

  ch: int
  mult: tuple[int, ...] = (1, 2, 4)
  blocks: int = 2
  attention: tuple[int, ...] = ()
  heads: int | tuple[int, ...] = 1
  film: bool = True
  classes: int = 0
  out: int | None = None
  dropout: float = 0.0
  dtype: str = "float32"
  head: int = later(0)
  depth: int | tuple[int, ...] = later(0)
  linear: bool = later(False)
  text: tuple[int, ...] = later(())
  context: int = later(0)
  resample: Literal["end", "both", "block"] = later("end")
  groups: int = later(0)
  stem: int = later(0)
  bare: bool = later(False)
  clock: Clock = later((1000.0, 0.0))

  def _norm(self) -> dict[str, Any]:
    return {"groups": self.groups, "least": 1, "dtype": self.dtype} if self.groups else {"dtype": self.dtype}

  def _block(self, level: int, name: str, resize: Literal["none", "double", "halve"] = "none") -> ResBlock:
    width, norm = self.ch * self.mult[level], self._norm()
    return ResBlock(width, 1e-5, self.film, zero=True, dropout=self.dropout, resize=resize, **norm, name=name)

  def _attend(self, level: int, name: str, h: Array, context: Context) -> Array:
    channels, depth = self.ch * self.mult[level], _of(self.depth, level)
    if self.head and channels % self.head:
      raise UserError(f"{channels} channels do not divide into heads of {self.head}")
    heads = channels // self.head if self.head else _of(self.heads, level)
    if not depth:
      bare = self.bare and name == "middle_attention"
      return AttentionBlock(heads, 1e-5, zero=True, bare=bare, **self._norm(), name=name)(h)
    return SpatialTransformer(heads, depth, self.linear, **self._norm(), name=name)(h, *context)

  def _half(self, level: int, h: Array, c: Array, train: bool) -> Array:
    name = f"down_{level}_half"
    if self.resample == "block":
      return self._block(level, name, "halve")(h, c, train=train)
    return Downsample(dtype=self.dtype, both=self.resample == "both", name=name)(h)

  def _double(self, level: int, h: Array, c: Array, train: bool) -> Array:
    name = f"up_{level}_double"
    if self.resample == "block":
      return self._block(level, name, "double")(h, c, train=train)
    return Upsample(dtype=self.dtype, name=name)(h)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*(("label",) if self.classes else ()), *(("text", "text_mask") if self.text else ()))

  def _conditions(self, t: Array, cond: Cond | None) -> tuple[Array, Context]:
    """What is added in every block [B,4 stem], and what spatial transformers attend to."""
    if (self.text or self.context) and not any(_of(self.depth, i) for i in range(len(self.mult))):
      raise UserError("a U-Net attends to texts, or to a class, with spatial transformers: its depth is 0")
    if self.context and (self.text or not self.classes):
      raise UserError("a U-Net attends to texts or to a class (context), and to no other thing beside it")
    stem = self.stem or self.ch
    c, context = embed_times(t, 4 * stem, self.dtype, stem, self.clock), (None, None)
    if self.classes:
      told = embed_labels(cond, self.classes, t.shape[0], self.context or 4 * stem, self.dtype)
      if self.context:
        context = told[:, None], jnp.ones((t.shape[0], 1), bool)
      else:
        c = c + told
    if self.text:
      context = texts(cond, self.text, t.shape[0])
    return constrain(c), context

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    last = len(self.mult) - 1
    if any(n % 2**last for n in x.shape[1:-1]):
      raise UserError(f"a U-Net of {last + 1} levels needs axes that {2**last} divides, not {x.shape[1:-1]}")
    c, context = self._conditions(t, cond)
    h = constrain(Conv(self.stem or self.ch, dtype=self.dtype, name="conv_in")(x))
    skips = [h]
    for level in range(last + 1):
      for i in range(self.blocks):
        h = constrain(self._block(level, f"down_{level}_{i}")(h, c, train=train))
        h = self._attend(level, f"down_{level}_{i}_attention", h, context) if level in self.attention else h
        skips.append(h)
      if level < last:
        h = self._half(level, h, c, train)
        skips.append(h)
    h = constrain(self._block(last, "middle_0")(h, c, train=train))
    h = self._attend(last, "middle_attention", h, context)
    h = constrain(self._block(last, "middle_1")(h, c, train=train))
    for level in reversed(range(last + 1)):
      for i in range(self.blocks + 1):
        h = jnp.concatenate([h, skips.pop()], -1)
        h = constrain(self._block(level, f"up_{level}_{i}")(h, c, train=train))
        h = self._attend(level, f"up_{level}_{i}_attention", h, context) if level in self.attention else h
      if level:
        h = self._double(level, h, c, train)
    h = nn.silu(GroupNorm(eps=1e-5, **self._norm(), name="norm_out")(h))
    return Conv(self.out or x.shape[-1], zero=True, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)


def _of(value: int | tuple[int, ...], level: int) -> int:
  return value if isinstance(value, int) else value[level]


def ldm4(**fields) -> UNet:
  """LDM-4 of ImageNet, over latents of 64 x 64 x 3 (the authors' cin256-v2): attends to the class."""
  return _released(
    **{"ch": 192, "mult": (1, 2, 3, 5), "attention": (1, 2, 3), "classes": 1000, "context": 512, **fields}
  )


def ldm8(**fields) -> UNet:
  """LDM-8 of ImageNet, over latents of 32 x 32 x 4 (the authors' cin256): attends to the class, heads of 32."""
  at = {"ch": 256, "mult": (1, 2, 4), "attention": (0, 1, 2), "head": 32, "classes": 1000, "context": 512}
  return _released(**{**at, **fields})


def sd1(**fields) -> UNet:
  """Stable Diffusion 1, over latents of 64 x 64 x 4: 859,520,964 parameters; attends to texts of 77 tokens of 768."""
  at = {"ch": 320, "mult": (1, 2, 4, 4), "attention": (0, 1, 2), "heads": 8, "text": (77, 768)}
  return _released(**{**at, **fields})


def _released(**fields: Any) -> UNet:
  return UNet(**{"film": False, "depth": 1, "resample": "both", "clock": FROM_0, **fields})


def adm256(**fields) -> UNet:
  """ADM on ImageNet at 256 x 256 x 3 (table 11; 554M), with a learned variance; it has a null label, ADM has none."""
  at = {"ch": 256, "mult": (1, 1, 2, 2, 4, 4), "attention": (3, 4, 5), "head": 64, "resample": "block"}
  return UNet(**{**at, "classes": 1000, "out": 6, "clock": FROM_0, **fields})
