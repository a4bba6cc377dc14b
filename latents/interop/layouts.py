"""The layouts that weights come in and go out by, and the known units of releases.

A new layout is a `Table` and a line in LAYOUTS: its reader, its writer, its errors and its parity test read that table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.errors import UserError, nearest
from latents.interop import conv, dalle, dc, dit, gpt, unet, vq
from latents.interop.mapping import Arrays, Table, few
from latents.priors import Prior
from latents.types import Latent

Config = Mapping[str, Any]
WRAPPERS = ("state_dict/", "first_stage_model.", "ema/", "module.")  # what a checkpoint puts round an autoencoder
OTHERS = ("batch_stats/", "codebook/")  # collections that are no parameters
# "encoder/conv_in/kernel": parameters by path; "batch_stats/decoder/..": other variables, with their collection before
Ours = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
  """A way in which others name and turn the arrays of a model: an autoencoder, or the backbone of a prior.

  table: both directions. model(shapes by our paths, what the release says of itself, a path -> its shape or an error)
  -> the model. check: UserError for a model that it does not hold. config: what is written beside the weights; None =
  nothing. file: what the weights are called. mark: a path of ours that a file of it has and one of another lacks.
  asked: it is read only where it is asked for, since its names are another's too. state: variables of ours that no
  file of it has.
  Of a backbone: latent(backbone, shapes by our paths) -> [*s,D] of a latent that it takes; prior(backbone, what the
  release says) -> the prior that it was trained as. Its `config` gets (backbone, {}, [*s,D]).
  compare: UserError for arrays without a row that are not what is computed in their place. inside: what a checkpoint
  puts round its arrays.
  """

  table: Table
  model: Callable[..., Any]
  check: Callable[[Any], Any]
  file: str
  config: Callable[..., dict[str, Any]] | None = None
  mark: str = ""
  asked: bool = False
  state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  latent: Callable[[Any, Mapping[str, tuple[int, ...]]], tuple[int, ...]] | None = None
  prior: Callable[[Any, Config], Prior] | None = None
  compare: Callable[[Arrays, str], None] | None = None
  inside: tuple[str, ...] = WRAPPERS


def _of_family(kind: str, side: int) -> Layout:
  of = dit.Family(side, kind)
  return Layout(
    of.table, of.model, of.check, "model.safetensors", asked=True, latent=of.latent, prior=of.prior, compare=dit.compare
  )


def _of_tokens(kind: str, table: Table, model: Callable[..., Transformer], inside: tuple[str, ...]) -> Layout:
  return Layout(
    table, model, partial(gpt.check, kind=kind), "model.safetensors", gpt.config_of, asked=True, latent=gpt.latent,
    prior=gpt.prior_of, inside=inside,
  )  # fmt: skip


_DIFFUSERS = "diffusion_pytorch_model.safetensors"
LAYOUTS = {
  "diffusers-kl": Layout(conv.DIFFUSERS, conv.model_of, conv.check_model, _DIFFUSERS, conv.config_of),
  "ldm-kl": Layout(conv.LDM, conv.model_of, conv.check_ldm, "ae.safetensors"),
  "diffusers-dc": Layout(dc.DIFFUSERS, dc.model_of, dc.check_model, _DIFFUSERS, dc.config_of),
  "diffusers-vq": Layout(vq.DIFFUSERS, vq.model_of, vq.check_model, _DIFFUSERS, vq.config_of, vq.CODEBOOK),
  "diffusers-vq-reg": Layout(
    vq.DIFFUSERS_REG,
    partial(vq.model_of, reg=True),
    partial(vq.check_model, reg=True),
    _DIFFUSERS,
    partial(vq.config_of, reg=True),
    asked=True,
  ),
  "taming": Layout(vq.TAMING, vq.model_of, vq.check_ldm, "ae.safetensors", mark=vq.CODEBOOK),
  "taming-gumbel": Layout(
    vq.GUMBEL, vq.gumbel_of, vq.check_gumbel, "ae.safetensors", None, vq.CODEBOOK, False, vq.PASSES
  ),
  "ldm-vq": Layout(
    vq.LDM, partial(vq.model_of, reg=True), partial(vq.check_ldm, reg=True), "ae.safetensors", asked=True
  ),
  "diffusers-unet": Layout(
    unet.CONDITION, unet.model_of, unet.check_model, _DIFFUSERS, unet.config_of, latent=unet.latent, prior=unet.prior_of
  ),
  "diffusers-unet2d": Layout(
    unet.PLAIN,
    partial(unet.model_of, plain=True),
    partial(unet.check_model, plain=True),
    _DIFFUSERS,
    partial(unet.config_of, plain=True),
    latent=unet.latent,
    prior=unet.prior_of,
  ),
  "dalle": Layout(dalle.DALLE, dalle.model_of, dalle.check_model, "dalle.safetensors", state=vq.PASSES),
  "llamagen": _of_tokens("llamagen", gpt.LLAMAGEN, gpt.llamagen_of, ("model/", "module/", "state_dict/", "module.")),
  "taming-gpt": _of_tokens("taming-gpt", gpt.TAMING, gpt.taming_of, ("state_dict/", "transformer.", "module.")),
  "dit": _of_family("dit", 2),
  "dit-4": _of_family("dit", 4),
  "dit-8": _of_family("dit", 8),
  "sit": _of_family("sit", 2),
  "lightning-dit": _of_family("lightning-dit", 1),
  "lightning-dit-2": _of_family("lightning-dit", 2),
}


@dataclasses.dataclass(frozen=True)
class Release:
  """What is known of a released autoencoder: channels of its latents, and z normalised = scale (z - shift). layout: its
  own where the arrays' names are of several."""

  channels: int
  scale: float
  shift: float = 0.0
  layout: str | None = None


RELEASES = {
  "sd": Release(4, 0.18215),  # Stable Diffusion 1 and 2, arXiv:2112.10752
  "sdxl": Release(4, 0.13025),  # 2307.01952
  "sd3": Release(16, 1.5305, 0.0609),  # 2403.03206
  "flux": Release(16, 0.3611, 0.1159),  # FLUX.1
  # 2112.10752: its diffusion models see the vectors of VQ-reg as they are
  "ldm-vq-f4": Release(3, 1.0, layout="ldm-vq"),
  "ldm-vq-f8": Release(4, 1.0, layout="ldm-vq"),
  "ldm-vq-f16": Release(8, 1.0, layout="ldm-vq"),
}

FIRST = ("encoder/conv_in/kernel", "encoder/conv_in/conv/kernel")  # the kernel of the first layer


def unwrapped(arrays: Arrays, inside: tuple[str, ...] = WRAPPERS) -> dict[str, np.ndarray]:
  """The arrays of the model alone, where a checkpoint holds them in something beside other things."""
  for start in inside:
    found = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    arrays = found or arrays
  return dict(arrays)


def guess(arrays: Arrays, what: str) -> str:
  """The one layout that has a place for every array. UserError where none has, or several have."""
  names = unwrapped(arrays)
  found = {name: layout.table.find(names) for name, layout in LAYOUTS.items() if not layout.asked}
  strange = {name: left for name, (has, left) in found.items() if not LAYOUTS[name].mark or LAYOUTS[name].mark in has}
  fits = [name for name, left in strange.items() if not left]
  if len(fits) == 1 and names:
    return fits[0]
  close = min(strange, key=lambda name: len(strange[name]))
  left = strange[close]
  why = LAYOUTS[close].table.why(left, few("that it does not know", left)) if left else "as of others"
  raise UserError(f"{what} is of no layout for certain (nearest is {close}: {why}): say --layout, {', '.join(LAYOUTS)}")


def check_name(name: str) -> None:
  """UserError for a layout that there is not."""
  if name not in LAYOUTS:
    raise UserError(f"there is no layout '{name}'{nearest(name, LAYOUTS)}: one of {', '.join(LAYOUTS)}")


def is_backbone(name: str) -> bool:
  """Whether what a layout holds is the backbone of a prior."""
  return name in LAYOUTS and LAYOUTS[name].prior is not None


def read(name: str, arrays: Arrays, config: Config, what: str) -> tuple[Any, Ours]:
  """Arrays of a layout -> the model that they are of, its sizes read from them, and its parameters, all of them.

  UserError, one line, for arrays that are missing, left over, of a wrong shape or not finite, in the file's names.
  """
  table, state, found = LAYOUTS[name].table, LAYOUTS[name].state, take(name, arrays, what)
  shapes = {path: array.shape for path, array in found.items() if path not in state}

  def need(path: str) -> tuple[int, ...]:
    if path not in shapes:
      raise UserError(f"{what} is no {name}: it lacks {table.names(path, shapes)[0]}")
    return shapes[path]

  model = LAYOUTS[name].model(shapes, config, need)
  latent = LAYOUTS[name].latent
  wanted = parameters(model, channels(found)) if latent is None else of_backbone(model, latent(model, shapes))
  wanted = {path: shape for path, shape in wanted.items() if path not in state}
  _compare(table, shapes, wanted, what)
  return model, found


def channels(ours: Arrays) -> int:
  """How many channels the signals have that these parameters encode."""
  return next(ours[name].shape[-2] for name in FIRST if name in ours)


def take(name: str, arrays: Arrays, what: str) -> Ours:
  """Arrays of a layout -> our parameters by path, float32; as far as the table knows them, of whatever model."""
  check_name(name)
  arrays = unwrapped(arrays, LAYOUTS[name].inside)
  table = LAYOUTS[name].table
  if (compare := LAYOUTS[name].compare) is not None:
    compare(arrays, what)
  found, strange = table.find(arrays)
  if strange:
    lacking = [key for key in _expected(table, found) if key not in arrays]
    raise UserError(f"{what} is no {name}: {table.why(strange, few('extra', strange, lacking))}")
  return table.take(arrays, what) | {path: np.asarray(value) for path, value in LAYOUTS[name].state.items()}


def give(name: str, ours: Arrays, dtype: Any = np.float32) -> dict[str, np.ndarray]:
  """Our parameters by path -> the arrays of a layout. UserError for a number that is too large for `dtype`."""
  out = {}
  table, state = LAYOUTS[name].table, LAYOUTS[name].state
  for key, array in table.give({path: array for path, array in ours.items() if path not in state}).items():
    with np.errstate(over="ignore"):
      out[key] = array.astype(dtype)
    if not np.isfinite(out[key].astype(np.float32)).all():
      high = np.abs(array).max()
      raise UserError(
        f"{key} has numbers up to {high:.4g}, which {np.dtype(dtype).name} cannot hold: leave --dtype out"
      )
  return out


def parameters(model: Autoencoder, channels: int) -> dict[str, tuple[int, ...]]:
  """The shapes of a model's variables by path (see `Ours`), for signals of so many channels."""
  return _shapes(_passed(model, channels)[1])


def of_backbone(backbone: Any, latent: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
  """As `parameters`, of a prior's backbone. latent: [*s,D] of a latent that it takes, or (L,) of its tokens."""
  if isinstance(backbone, Transformer):
    tokens = jax.ShapeDtypeStruct((1, *latent), np.int32)
    return _shapes(jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, None), tokens))
  x, t = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, *latent), (1,)))
  return _shapes(jax.eval_shape(lambda x, t: backbone.init(jax.random.key(0), x, t, None), x, t))


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  found = {"/".join(part.key for part in path): tuple(leaf.shape) for path, leaf in leaves}
  return {path.removeprefix("params/"): shape for path, shape in found.items()}


def outline(model: Autoencoder, channels: int) -> Latent:
  """What the model's encoder makes of signals of so many channels, as shapes: its latent and the names of its terms."""
  return _passed(model, channels)[0][0]


def _passed(model: Autoencoder, channels: int) -> Any:
  """((latent, decoded), variables) of one pass, as shapes."""
  side = 4 * model.encoder.stride
  x = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
  return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), x)


def whole(ours: Arrays) -> dict[str, np.ndarray]:
  """`Ours` -> the same by the whole paths of variables, "params/encoder/..."."""
  return {path if path.startswith(OTHERS) else f"params/{path}": array for path, array in ours.items()}


def _compare(table: Table, shapes: Mapping[str, tuple], wanted: Mapping[str, tuple], what: str) -> None:
  """UserError that names what is missing and what is left over, or else what is misshapen."""
  every = {**wanted, **shapes}
  missing, extra = ([p for p in a if p not in b] for a, b in ((wanted, shapes), (shapes, wanted)))
  absent, strange = ([table.names(path, every)[0] for path in paths] for paths in (missing, extra))
  told = [few("missing", absent, strange)] if absent else []
  told += [few("extra", strange)] if strange else []
  if not told and (wrong := [path for path in wanted if shapes[path] != wanted[path]]):
    names = [
      f"{table.names(p, wanted)[0]} {table.shape(p, shapes[p])} instead of {table.shape(p, wanted[p])}" for p in wrong
    ]
    told.append(few("misshapen", names))
  if told:
    raise UserError(f"{what} does not fit: {', '.join(told)}")


def _expected(table: Table, found: Mapping[str, Any]) -> list[str]:
  """What they would call every variable of which a neighbour is there, for the nearest name of a strange one."""
  known = {*found}
  for path in found:
    stem = path.rpartition("/")[0]
    known |= {f"{stem}/{leaf}" for leaf in ("kernel", "bias", "scale")}
  out = []
  for path in known:
    try:
      out += table.names(path, found)
    except UserError:
      continue
  return out
