"""Transformers over codes in the names of their own repositories, and the priors that they were trained as.

LlamaGen's class-conditional ones (FoundationVision/LlamaGen, arXiv:2406.06525) and the GPT of taming-transformers
(CompVis/taming-transformers, arXiv:2012.09841), as it stands in a checkpoint of Net2NetTransformer or alone.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from latents.backbones import Transformer
from latents.errors import UserError
from latents.interop.mapping import LINEAR, NORM, SAME, Table, Turn
from latents.nn.mlp import swiglu_hidden
from latents.priors import AutoregressivePrior

Shapes = Mapping[str, tuple[int, ...]]
Need = Callable[[str], tuple[int, ...]]
LENGTH = 256  # tokens, where a config.json does not say: 256 px at f16
HEADS = {3200: 32}  # LlamaGen's 3B; all others have 64 numbers a head
CLASSES = {"llama": "LlamaGen", "gpt": "GPT"}  # a config.json is read by its _class_name
MULTIPLES = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # what SwiGLU's hidden units may be rounded up to; LlamaGen's first

_SCALE = {"scale": ("weight", SAME)}
_TABLE = {"embedding": ("weight", SAME)}
_POSITIONS = Turn(lambda a: a.reshape(a.shape[-2:]), lambda a: a[None])

LLAMAGEN = Table.of({
  "label": ("cls_embedding.embedding_table", _TABLE),
  "embed": ("tok_embeddings", _TABLE),
  "blocks_{i}": ("layers.{i}", {
    "norm1": ("attention_norm", _SCALE), "norm2": ("ffn_norm", _SCALE),
    "qkv": ("attention.wqkv", LINEAR), "proj": ("attention.wo", LINEAR),
    "mlp": ("feed_forward", {"gate": ("w1", LINEAR), "up": ("w3", LINEAR), "down": ("w2", LINEAR)}),
  }),
  "norm": ("norm", _SCALE),
  "head": ("output", LINEAR),
}, ignored=("freqs_cis", "causal_mask"))  # fmt: skip

TAMING = Table.of(
  {
    "embed": ("tok_emb", _TABLE),
    "positions": ("pos_emb", _POSITIONS),
    "blocks_{i}": ("blocks.{i}", {
      "norm1": ("ln1", NORM), "norm2": ("ln2", NORM),
      "qkv": (("attn.query", "attn.key", "attn.value"), LINEAR), "proj": ("attn.proj", LINEAR),
      "mlp": ("mlp", {"up": ("0", LINEAR), "down": ("2", LINEAR)}),
    }),
    "norm": ("ln_f", NORM),
    "head": ("head", LINEAR),
  },
  idle=(".attn.mask",),
)  # fmt: skip


def _depth(shapes: Shapes) -> int:
  return 1 + max((int(m[1]) for path in shapes if (m := re.match(r"blocks_(\d+)/", path))), default=0)


def _heads(config: Mapping[str, Any], width: int, otherwise: int | None, kind: str) -> int:
  heads = config.get("n_head", otherwise)
  if heads is None:
    more = ', "classes": LABELS' if kind == "gpt" else ""
    raise UserError(
      f"nothing says how many heads share a width of {width}: a config.json beside the file must say "
      f'{{"_class_name": "{CLASSES[kind]}", "n_head": HEADS{more}}}'
    )
  if type(heads) is not int or heads < 1 or width % heads:
    raise UserError(f"n_head in config.json is {heads!r}, but it must be a number of heads that divides {width}")
  return heads


def few_of(x: Any) -> str:
  """A value as it is typed, the start of one that is long."""
  told = repr(x) if not isinstance(x, int) or abs(x) < 10**20 else "a number of many digits"
  return told if len(told) < 40 else told[:36] + "..."


def llamagen_of(shapes: Shapes, config: Mapping[str, Any], need: Need) -> Transformer:
  """The network whose arrays have these shapes. config: "block_size", the tokens of a square grid (256), and "n_head",
  which no array shows."""
  vocab, width = need("embed/embedding")
  length = config.get("block_size", LENGTH)
  side = math.isqrt(length) if type(length) is int and 0 < length < 2**31 else 0
  if not side or side**2 != length:
    raise UserError(f"block_size in config.json is {few_of(length)}, but LlamaGen's tokens are a square grid")
  hidden = need("blocks_0/mlp/gate/kernel")[-1]
  multiple = next((m for m in MULTIPLES if swiglu_hidden(width, m) == hidden), None)
  if multiple is None:
    raise UserError(f"a width of {width} with {hidden} hidden units is no LlamaGen: 2/3 of 4 widths, rounded up")
  return Transformer(
    vocab, width, _depth(shapes), _heads(config, width, HEADS.get(width, width // 64), "llama"), length,
    classes=need("label/embedding")[0] - 1, position="rotary", grid=(side, side), blind=True, multiple=multiple,
  )  # fmt: skip


def taming_of(shapes: Shapes, config: Mapping[str, Any], need: Need) -> Transformer:
  """The network whose arrays have these shapes. config: "n_head", which must be there; "classes", the labels of a
  class-conditional one, which are tokens to it (none: unconditional, its first token is 0)."""
  vocab, width = need("embed/embedding")
  classes = config.get("classes", 0)
  if type(classes) is not int or not 0 <= classes <= vocab:
    raise UserError(f"classes in config.json is {few_of(classes)}, but labels are tokens, of which there are {vocab}")
  heads, length = _heads(config, width, None, "gpt"), need("positions")[0]
  return Transformer(vocab, width, _depth(shapes), heads, length, classes=classes, kind="gpt", label_tokens=True)


def check(backbone: Any, kind: str) -> None:
  """UserError for a backbone that the repository's code is not."""
  if type(backbone) is not Transformer:
    raise UserError(f"{kind} holds a Transformer, and the run has {type(backbone).__name__}")
  llamagen = kind == "llamagen"
  wanted = {
    "groups": 1, "layout": (), "places": 0, "text": None, "kind": "llama" if llamagen else "gpt",
    "position": "rotary" if llamagen else "learned", "blind": llamagen, "label_tokens": not llamagen,
  }  # fmt: skip
  for name, value in wanted.items():
    if (found := getattr(backbone, name)) != value:
      raise UserError(f"{kind} has {name} = {value!r}, and the run's backbone {found!r}")
  if llamagen and not backbone.classes:
    raise UserError("llamagen has labels, and the run's backbone reads none")
  if llamagen and (len(backbone.grid) != 2 or backbone.grid[0] != backbone.grid[1]):
    raise UserError(f"llamagen's tokens are a square grid, and the run's are {backbone.grid}")


def latent(backbone: Transformer, shapes: Shapes) -> tuple[int, ...]:
  """The codes that it takes."""
  del shapes
  return (backbone.length,)


def prior_of(backbone: Transformer, config: Mapping[str, Any]) -> AutoregressivePrior:
  """As its authors sample: LlamaGen with guidance 2, taming's GPT with the 100 likeliest tokens (and no null label)."""
  del config
  if backbone.kind == "llama":
    return AutoregressivePrior(backbone=backbone, guidance=2.0)
  return AutoregressivePrior(backbone=backbone, label_drop=0.0, top_k=100)


def config_of(model: Transformer, units: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
  """What no array shows."""
  del units, shape
  told = {"block_size": model.length} if model.kind == "llama" else {"classes": model.classes}
  return {"_class_name": CLASSES[model.kind], "n_head": model.heads, **told}
