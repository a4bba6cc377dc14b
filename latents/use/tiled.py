"""`Model.tiled(side)`: encode, decode and reconstruct large pictures in the memory of one tile."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from latents.autoencoders import Autoencoder
from latents.errors import UserError
from latents.machine import hosts
from latents.nn.streams import streams
from latents.train import sharding
from latents.train.build_step import InMesh
from latents.types import Cond, Encoded, Latent
from latents.use import given, measures, tiles
from latents.use.given import finite, whole
from latents.use.tiles import Part, Reach

if TYPE_CHECKING:
  from latents.use.model import Model
  from latents.use.sample import Sampler


class Tiled:
  """A model that sees pictures [B,H,W,C] in tiles of at most side x side pixels, all of one shape, one for each device
  at a time.

  Where the encoder (or decoder) is local, the result is that of the whole picture, but for rounding; else tiles are
  blended: see `tiles`. The bottleneck sees the features of the whole picture, unless it makes codes cell by cell.
  error: {"encoder", "decoder"}: an estimate of what the last call is off from the untiled one, as a part of the
  standard deviation (of the features, of the picture), from how far tiles differ where they overlap; 0.0 where it is
  equal. `measured` compares with the untiled model itself.
  UserError for a side that the model's factor does not divide, and for what is no picture or has no grid.
  """

  def __init__(self, model: "Model", side: int):
    self.model, self.error = model, {"encoder": 0.0, "decoder": 0.0}
    autoencoder: Any = model.experiment.stage1.model
    if model.kind.name != "image":
      raise UserError(f"tiles are cut of pictures, and this run models {model.kind.name}")
    if not isinstance(autoencoder, Autoencoder):
      raise UserError("an autoencoder of another one's latents is not tiled")

    def part(method: Callable) -> InMesh:
      def call(arrays: Any, x: Any) -> Any:
        return autoencoder.apply(arrays["variables"], x, method=method, rngs=streams(jax.random.key(0)))

      return InMesh(model.mesh, jax.jit(call))

    self._encode = part(lambda m, x: m.encoder(x, train=False))
    self._store = part(lambda m, h: m.bottleneck.store(h))
    self._settle = part(lambda m, latent: m.bottleneck.settle(latent).z)
    self._sample = part(lambda m, latent: m.decoder.sample(latent))
    frozen = model.frozen
    self._recall = InMesh(
      model.mesh, jax.jit(lambda a, stored: frozen.recall(a, stored, key=jax.random.key(0), train=False))
    )
    self._scale = InMesh(model.mesh, jax.jit(frozen.restore_scale))
    self.side, self.factor = whole(side, "the tile"), self._factor()
    step = max(self.factor)
    if self.side < 1 or any(self.side % f for f in self.factor):
      near = sorted({max(self.side // step, 1) * step, (max(self.side, 0) // step + 1) * step})
      told = " or ".join(map(str, near))
      raise UserError(f"a tile of {self.side} pixels is no multiple of the model's factor {step}: take {told}")
    self._reach: dict[Any, Reach | None] = {}

  def _factor(self) -> tuple[int, ...]:
    """Pixels per position of the latent, by axis. UserError where they lie on no grid."""
    shape = self.model.shape
    h = self._encode.shapes(self.model.arrays, jax.ShapeDtypeStruct((1, *shape), np.float32))
    if isinstance(h, Encoded):
      raise UserError(f"the encoder measures {', '.join(h.side)} of the whole picture: it is not tiled")
    grid = h.shape[1:-1]
    if len(grid) != len(shape) - 1 or any(n % g for n, g in zip(shape[:-1], grid, strict=True)):
      raise UserError(f"this model's latents lie on no grid over the picture ({h.shape[1:]}): it is not tiled")
    return tuple(n // g for n, g in zip(shape[:-1], grid, strict=True))

  def encode(self, x: Any) -> Latent:
    """As `Model.encode`."""
    self.error["encoder"] = 0.0
    x = given.signals(x, self.model.kind, self.model.shape)
    if all(n <= self.side for n in x.shape[1:-1]):
      return self.model.encode(x)
    return self._host(self._recall, self.store(x)).replace(terms={}, logs={})

  def store(self, x: np.ndarray) -> Any:
    """x [B,H,W,C] float in [-1,1] -> what a latent cache keeps of it [B,*s,..]."""
    if any(n % f for n, f in zip(x.shape[1:-1], self.factor, strict=True)):
      size = f"{x.shape[2]}x{x.shape[1]}"
      raise UserError(f"a picture of {size} does not divide by the model's factor {max(self.factor)}")
    h = self._over("encoder", lambda x, _: self._host(self._encode, x), x, self.factor, (1, 1))
    finite(h, "the features", self.model.frozen.overflow("encoder"))
    made = self._store.shapes(self.model.arrays, jax.ShapeDtypeStruct((1, *h.shape[1:]), np.float32))
    if not np.issubdtype(made.dtype, np.integer) or made.shape[1:3] != h.shape[1:3]:
      return self._host(self._store, h)

    def codes(h: np.ndarray) -> np.ndarray:  # the distances of all cells to all codes would be more than a tile
      return self._host(self._store, h).reshape(*h.shape[:-1], -1)

    tile = self._tile(h.shape[1:3])
    parts = [tiles.joined(Part("", codes, tile, (1, 1), (1, 1)), one[None], Reach((0, 0), (0, 0)))[0] for one in h]
    return np.concatenate(parts).reshape(len(h), *made.shape[1:])

  def decode(self, latent: Any, *, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """As `Model.decode`. UserError for a generative decoder where a picture is larger than the tile."""
    self.error["decoder"] = 0.0
    model: Any = self.model
    latent = given.latents(latent, model.like, measures.layout(model.experiment, model.arrays).vocab)
    z = self._host(self._settle, self._host(self._scale, latent.replace(given=None)))
    if all(n * f <= self.side for n, f in zip(z.shape[1:-1], self.factor, strict=True)):
      return model.decode(latent, steps=steps, seed=seed)
    decoder = model.experiment.stage1.model.decoder
    if any(steps is not None for _, steps in decoder.variants):
      raise UserError(f"{type(decoder).__name__} draws the whole picture from noise: it is not tiled")
    if latent.mask is not None or latent.side:
      raise UserError("latents with a mask or a side are those of whole pictures: they are not tiled")

    def call(z: np.ndarray, told: Cond | None) -> np.ndarray:
      return self._host(self._sample, Latent(z=z, given=told))

    x = self._over("decoder", call, z, (1, 1), self.factor, latent.given)
    return model.kind.clip(finite(x, "what is decoded", model.frozen.overflow("decoder")))

  def reconstruct(self, x: Any, *, labels: Any = None, steps: int | None = None, seed: int = 0) -> np.ndarray:
    """As `Model.reconstruct`."""
    latent = self.encode(x).replace(given=self.model.told(labels, len(x)))
    return self.decode(latent, steps=steps, seed=seed)

  def signals(self, sampler: "Sampler", labels: np.ndarray, seed: int, guidance: float | None) -> np.ndarray:
    """As `Sampler.signals`, of which it takes the latents."""
    made, error = [], 0.0
    for latent, rows in sampler.latents(labels, seed, guidance):
      drawn = hosts.gather(latent.replace(terms={}, logs={}))
      made.append(self.decode(jax.tree.map(lambda a, rows=rows: a[:rows], drawn)))
      error = max(error, self.error["decoder"])
    self.error = {"encoder": 0.0, "decoder": error}
    return np.concatenate(made)

  def measured(self, x: Any) -> dict[str, float]:
    """Pictures that the untiled model can take [B,H,W,C] -> what is off from it, RMS, as a part of the standard
    deviation: "encoder" of z, "decoder" of the picture decoded from the same z."""
    whole = self.model.encode(x)
    pairs = {"encoder": (self.encode(x).z, whole.z), "decoder": (self.decode(whole), self.model.decode(whole))}
    return {name: float(np.sqrt(np.mean((a - b) ** 2)) / b.std()) for name, (a, b) in pairs.items()}

  def note(self) -> str:
    """What the last calls are off from the untiled ones, for people; "" where they are equal."""
    off = " and ".join(f"the {name}'s by {100 * error:.3g} %" for name, error in self.error.items() if error)
    return f"not local, so tiles are blended: off the untiled results, {off} of their spread (estimated)" if off else ""

  def _tile(self, cells: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(self.side // f, n) for f, n in zip(self.factor, cells, strict=True))

  def _over(
    self, name: str, call: Callable[[np.ndarray, Cond | None], np.ndarray], x: np.ndarray,
    source: tuple[int, ...], made: tuple[int, ...], told: Cond | None = None,
  ) -> np.ndarray:  # fmt: skip
    """x [B,*(s source),C] -> [B,*(s made),E], as many examples at a time as there are devices to split them."""
    cells = tuple(n // s for n, s in zip(x.shape[1:-1], source, strict=True))
    tile, group, done = self._tile(cells), sharding.parts(self.model.mesh), []
    cut = tuple(n > t for n, t in zip(cells, tile, strict=True))
    for first in range(0, len(x), group):
      rows = slice(first, first + group)
      known = jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows], told)
      part = Part(name, lambda t, known=known: call(t, known), tile, source, made)
      if (key := (name, tile, cut)) not in self._reach:
        self._reach[key] = tiles.found(part, cut, x.shape[-1])
      y, error = tiles.joined(part, x[rows], self._reach[key])
      self.error[name] = max(self.error[name], error)
      done.append(y)
    return np.concatenate(done)

  def _host(self, function: InMesh, tree: Any) -> Any:
    """Numpy rows -> numpy rows of what a function makes of them."""
    rows = len(jax.tree.leaves(tree)[0])
    placed = jax.tree.map(lambda a: sharding.spread(a, self.model.mesh), tree)
    return jax.tree.map(lambda a: a[:rows], hosts.gather(function(self.model.arrays, placed)))
