"""The README's worked example works, its commands exist, and its table has a row for every experiment."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from latents import main
from latents.types import Latent

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_worked_quantiser():
  scope = {"__name__": "latents.bottlenecks.sign_of_the_readme"}
  exec(next(b for b in BLOCKS if "class Sign" in b), scope)
  part = scope["Sign"](dim=5)
  h = jax.random.normal(jax.random.key(0), (2, 4, 4, 16))
  variables = part.init(jax.random.key(1), h, train=True)
  latent = part.apply(variables, h, train=True)
  assert isinstance(latent, Latent) and part.vocab == 32
  assert set(np.unique(latent.z)) == {-1.0, 1.0}
  np.testing.assert_array_equal(part.apply(variables, latent.codes, method="embed"), latent.z)
  grads = jax.grad(lambda h: jnp.sum(part.apply(variables, h, train=True).z * jnp.arange(5.0)))(h)
  assert float(jnp.abs(grads).sum()) > 0


def test_commands_of_the_readme_are_understood():
  """Each `latents ...` line parses: its command and, where argparse knows them, its flags."""
  lines = re.findall(r"^    (latents .+?)(?:  .*)?$", TEXT, re.MULTILINE)
  assert len(lines) >= 10
  for line in lines:
    arguments, rest = main.parser().parse_known_args(line.split()[1:])
    assert not rest or arguments.call in (main._run, main._plan), line


def test_the_set_up_is_two_commands():
  blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
  assert len(blocks) == 2 and all(block.count("\n") == 1 for block in blocks)
  assert "latents run experiments/images/digits.py" in blocks[0] and "pytest" in blocks[1]


def test_the_table_has_every_experiment():
  files = [path for path in (ROOT / "experiments").glob("*/*.py") if path.name != "__init__.py"]
  assert len(files) >= 9
  for path in files:
    link = f"[`{path.stem}`](experiments/{path.parent.name}/{path.name})"
    assert link in TEXT, f"README's table lacks {path.stem}"
