"""DALL-E's discrete VAE in the names of its release: both ways, what does not fit, in and out by command."""

import numpy as np
import pytest

import latents
from latents import interop, main
from latents.autoencoders import Autoencoder
from latents.bottlenecks import Gumbel
from latents.decoders import ConvDecoder, DVAEDecoder, LogitLaplaceDecoder
from latents.encoders import DVAEEncoder
from latents.errors import UserError
from latents.pretrained.readers import read_weights
from latents.types import Latent
from tests import releases


def dvae(ch: int = 8, mult=(1, 2, 3), blocks: int = 2, vocab: int = 20, dim: int = 5) -> Autoencoder:
  size: dict = {"ch": ch, "mult": mult, "blocks": blocks}
  return Autoencoder(
    DVAEEncoder(out=vocab, **size),
    Gumbel(vocab=vocab, dim=dim, cooling=0, project=False),
    LogitLaplaceDecoder(DVAEDecoder(**size)),
  )


def arrays(**sizes) -> dict[str, np.ndarray]:
  return interop.give("dalle", releases.weights(dvae(**sizes)))


@pytest.mark.parametrize("sizes", [{}, {"ch": 4, "mult": (1, 1), "blocks": 1, "vocab": 7, "dim": 3}])
def test_a_round_trip_is_equal_to_the_bit(sizes):
  theirs = arrays(**sizes)
  assert interop.guess(theirs, "x") == "dalle"
  assert {"encoder/blocks.input.w", "decoder/blocks.input.b", "encoder/blocks.group_1.block_1.res_path.conv_4.w"} <= {
    *theirs
  }
  model, ours = interop.read("dalle", theirs, {}, "x")
  assert model == dvae(**sizes)
  rows = theirs["decoder/blocks.input.w"]
  np.testing.assert_array_equal(ours["bottleneck/codebook"], rows[:, :, 0, 0].T)  # the first layer is the codebook
  back = interop.give("dalle", {**ours, "codebook/bottleneck/passes": np.int32(3)})  # a counter, which it does not hold
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)


def test_what_does_not_fit_is_one_line():
  theirs = arrays()

  def refused(match: str, held: dict) -> None:
    with pytest.raises(UserError, match=match) as told:
      interop.read("dalle", held, {}, "x")
    assert "\n" not in str(told.value)

  other = arrays(vocab=21)
  halves = {n: (theirs if n.startswith("encoder") else other)[n] for n in theirs}
  refused(r"the encoder has 20 codes and groups .*, the decoder 21", halves)
  other = arrays(mult=(1, 2, 2))
  refused(r"groups .*24.*, the decoder 20 and .*16", {**other, **{n: a for n, a in theirs.items() if n[0] == "e"}})
  last = "decoder/blocks.output.conv.b"
  refused(f"1 missing .{last}", {n: a for n, a in theirs.items() if n != last})
  refused("1 extra .encoder/blocks.input.v", {**theirs, "encoder/blocks.input.v": np.zeros(3, np.float32)})


def test_models_that_it_does_not_hold():
  held = interop.LAYOUTS["dalle"].check
  assert held(dvae()) is None
  for model, match in (
    (dvae().clone(decoder=ConvDecoder()), "the run has ConvDecoder"),
    (dvae().clone(bottleneck=Gumbel(vocab=20, dim=5)), "logits straight from the encoder"),
    (dvae().clone(encoder=DVAEEncoder(ch=8, mult=(1, 2, 3), blocks=1)), "halves of one size"),
  ):
    with pytest.raises(UserError, match=match):
      held(model)


def test_a_pickled_module_says_what_to_do(tmp_path):
  file = tmp_path / "encoder.pkl"
  file.write_bytes(b"\x80\x02cdall_e.encoder\nEncoder\n.")
  with pytest.raises(UserError, match=r"asks for dall_e.encoder.Encoder, .*state_dict\(\) for side in .*'dalle.pt'"):
    read_weights(str(file))


def test_in_and_out_by_command(tmp_path):
  """A discrete autoencoder has no units to name."""
  theirs = arrays()
  file = releases.write(tmp_path / "dalle.safetensors", theirs)
  call = lambda *words: main.main([str(word) for word in words])
  assert call("import", file, "--name", "dalle", "--size", 16, "--runs", tmp_path / "runs") == 0
  made = latents.load(tmp_path / "runs" / "dalle")
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 8, 3)).astype(np.float32)
  latent = made.encode(x)
  assert latent.codes.shape == (2, 4, 2) and latent.codes.max() < 20
  y = made.decode(Latent(codes=latent.codes))
  assert y.shape == x.shape and np.abs(y).max() <= 1
  assert call("export", tmp_path / "runs" / "dalle", "--layout", "dalle", "--out", tmp_path / "out") == 0
  assert call("import", tmp_path / "out", "--name", "again", "--size", 16, "--runs", tmp_path / "runs") == 0
  back = read_weights(str(tmp_path / "out" / "dalle.safetensors"))
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)
