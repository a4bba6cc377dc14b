"""What no quantiser can be is said in one line: where it is called with arrays, and where a run declares it."""

import jax
import jax.numpy as jnp
import pytest

from latents import main
from latents.bottlenecks import *  # noqa: F403  (the cases are source text)
from latents.errors import UserError

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY}
FIELDS = [
  ("VQ(vocab=0)", "vocab of VQ is at least 1, not 0"),
  ("EMAVQ(vocab=-3)", "vocab of EMAVQ is at least 1, not -3"),
  ("VQ(dim=0)", "dim of VQ is at least 1, not 0"),
  ("VQ(beta=-0.1)", "beta of VQ is at least 0, not -0.1"),
  ("VQ(beta=float('nan'))", "beta of VQ is at least 0, not nan"),
  ("EMAVQ(decay=1.0)", "decay of EMAVQ is in [0, 1), not 1.0"),
  ("EMAVQ(decay=-0.5)", "decay of EMAVQ is in [0, 1), not -0.5"),
  ("EMAVQ(restart=-1.0)", "restart of EMAVQ is at least 0, not -1.0"),
  ("EMAVQ(kmeans=-1)", "kmeans of EMAVQ is at least 0, not -1"),
  ("EMAVQ(eps=-1.0)", "eps of EMAVQ is at least 0, not -1.0"),
  ("ResidualVQ(VQ(dim=-1))", "dim of VQ is at least 1, not -1"),
  ("ResidualVQ(EMAVQ(decay=2.0))", "decay of EMAVQ is in [0, 1), not 2.0"),
  ("ResidualVQ(VQ(), width=0)", "width of ResidualVQ is at least 1, not 0"),
  ("VQReg(VQ(vocab=0))", "vocab of VQ is at least 1, not 0"),
  ("NestedDropout(VQ(vocab=0))", "vocab of VQ is at least 1, not 0"),
  ("Gumbel(vocab=0)", "vocab of Gumbel is at least 1, not 0"),
  ("Gumbel(vocab=4, dim=0)", "dim of Gumbel is at least 1, not 0"),
  ("Gumbel(vocab=4, hot=float('nan'))", "a temperature is above 0, not nan"),
  ("Gumbel(vocab=4, hot=-1.0)", "a temperature is above 0, not -1.0"),
  ("LFQ(bits=4, temperature=0.0)", "the temperature of LFQ is above 0, not 0.0"),
  ("BSQ(bits=4, temperature=-1.0)", "the temperature of BSQ is above 0, not -1.0"),
  ("LFQ(bits=0)", "0 bits are not to be had in 1 equal groups"),
  ("BSQ(bits=62, groups=2, joint=31)", "31 bits are more than an int32 index holds"),
  ("FSQ(levels=(1, 5))", "every channel needs at least 3 levels, not (1, 5)"),
  ("FSQ(levels=())", "every channel needs at least 3 levels, not ()"),
  ("FSQ(levels=(0,), symmetric=True)", "every channel needs at least 2 levels, not (0,)"),
  ("FSQ(levels=(2**16, 2**15))", "more than an int32 index holds"),
  ("ResidualFSQ(levels=(1, 5))", "every channel needs at least 2 levels, not (1, 5)"),
]
DECLARED = [
  *(FIELDS[i] for i in (5, 20, 24)),
  ("EMAVQ(vocab=129, dim=4, kmeans=2)", "a codebook of 129 codes cannot start from a batch of 128 vectors"),
]


@pytest.mark.parametrize(("source", "words"), FIELDS, ids=lambda text: text)
def test_in_arrays(source, words):
  with pytest.raises(UserError) as error:
    eval(source).init(RNGS, jnp.ones((1, 2, 3)), train=True)
  assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("source", "words"), DECLARED, ids=lambda text: text)
def test_in_a_declaration(source, words, tmp_path, capsys):
  """A batch of the micro experiment is 8 pictures of 4 x 4 vectors."""
  (tmp_path / "bad.py").write_text(
    "from latents.bottlenecks import *\n"
    "from tests import micro\n"
    "import dataclasses\n"
    "def experiment(scale='tiny'):\n"
    "  one = micro.experiment(codes=True, gan=False).stage1\n"
    f"  model = one.model.clone(bottleneck={source})\n"
    "  return micro.experiment(gan=False, stage1=dataclasses.replace(one, model=model), stage2=None)\n"
  )
  code = main.main(["run", str(tmp_path / "bad.py"), "--runs", str(tmp_path / "runs")])
  lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("latents: warning:")]
  assert code == 2 and len(lines) == 1 and words in lines[0], lines
  assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
  ("source", "low", "vocab"),
  [("LFQ(bits=4, groups=2)", 0, 4), ("ResidualFSQ((4, 3), 2)", -1, 12), ("NestedDropout(FSQ((4, 3)))", 0, 12)],
)
def test_codes_out_of_range(source, low, vocab):
  """Those whose own files have no such test."""
  module = eval(source)
  variables = module.init(RNGS, jnp.ones((1, 2, 3)), train=True)
  codes = jnp.zeros_like(jax.eval_shape(lambda: module.apply(variables, jnp.ones((1, 2, 3)), train=False)).codes)
  for code in (low - 1, vocab):
    with pytest.raises(UserError) as error:
      module.apply(variables, codes.at[..., -1].set(code), method="embed")
    assert str(error.value) == f"codes are {low} to {vocab - 1}, got {code}"
