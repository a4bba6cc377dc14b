"""Every experiment file, found on the disk: both scales, JSON and back, overrides.

What has changed since it passed (tests/passes.py) is traced at full size and takes two real steps of each stage.
"""

import dataclasses
import json
import warnings

import pytest

from latents.command import overrides
from latents.declare import addresses, dumps, from_json, loads, to_json
from latents.errors import UserError
from tests import micro, passes
from tests.declared import FILES, FOLDER, GOLDEN, SCALES, build, elsewhere, golden, make_data

# Numbers of the papers and of the catalogue: (autoencoder, prior) parameters at paper scale; None = no claim.
# DiT-XL/2 with 8 outputs has 675,129,632 with its 294,912 fixed positions; with 4 outputs it has 18,448 fewer.
XL = 675_129_632 - 294_912 - 1152 * 16 - 16
# 16 channels in place of 4: 12 x 4 more numbers in and out of a patch, and as many biases
FLUX_XL = XL + 48 * 1152 + 48 * 1152 + 48
# a second time has an embedding of its own: 256 -> 1152 -> 1152
TWO_TIMES_XL = XL + 257 * 1152 + 1153 * 1152
PAPER = {
  "ldm_kl": (83_653_863, XL),
  "sdxl_vae": (83_653_863, XL),
  "flux_vae": (83_819_683, FLUX_XL),
  "consistency": (83_653_863, XL),
  "progressive_distillation": (83_653_863, XL),
  "mean_flow": (83_653_863, TWO_TIMES_XL),
  "shortcut": (83_653_863, TWO_TIMES_XL),
  "diffwave": (2_619_971, 0),
  "wavegrad": (15_920_993, 0),
  "edm": (0, 295_900_035),
}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
  """What experiments with a `data` knob read."""
  return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("scale", SCALES)
def test_json_round_trip_keeps_everything(path, scale, data):
  made = build(path, scale, data)
  again = loads(dumps(made), "memory")
  assert again == made
  assert addresses(again) == addresses(made)
  assert dumps(again) == dumps(made)
  hash(again.stage1.model)  # modules hold tuples, never lists: they can be static arguments


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("scale", SCALES)
def test_every_scalar_is_a_flag(path, scale, data):
  made = build(path, scale, data)
  flags = list(overrides.scalars(made))
  assert {"seed", "stage1.steps", "stage1.batch"} <= set(flags)
  changed = overrides.override(made, ["--stage1.steps", "7", "--seed", "3"])
  assert (changed.stage1.steps, changed.seed) == (7, 3)
  if made.stage2 is not None:
    guided = overrides.override(made, ["--stage2.prior.guidance", "1.25", "--stage2.steps", "5"])
    assert (guided.stage2.prior.guidance, guided.stage2.steps) == (1.25, 5)
    assert guided.stage2.start == made.stage2.start and changed.stage2 == made.stage2
  assert changed.stage1.model == made.stage1.model
  with pytest.raises(UserError, match=r"unknown flag --stage1\.step .*stage1\.steps"):
    overrides.override(made, ["--stage1.step", "7"])
  with pytest.raises(UserError, match="invalid literal"):
    overrides.override(made, ["--stage1.steps", "seven"])


def test_names_that_users_type(data):
  made = overrides.build(
    FOLDER / "images" / "digits.py",
    ["--stage1.model.encoder.ch", "24", "--scale", "tiny", "--stage1.losses.kl.weight=0.5"],
  )
  assert made.stage1.model.encoder.ch == 24
  assert made.stage1.losses["kl"].weight == 0.5
  assert overrides.build(FOLDER / "images" / "digits.py", ["--kl", "0.25"]).stage1.losses["kl"].weight == 0.25


OLDER = passes.older()
NOW = passes.now(OLDER)  # what this test run passes itself; `python -m tests.passes` passes all, and writes it down


@pytest.mark.parametrize("path", NOW, ids=lambda p: p.stem)
def test_paper_scale_has_the_papers_shapes(path, data):
  """Both stages' steps are traced at full size, without memory: shapes, names of terms, parameter counts."""
  counts = passes.paper_traces(path, data)
  assert counts == PAPER.get(path.stem, counts)
  assert list(counts) == passes.stored().get(path.stem, {}).get("parameters", list(counts))  # `python -m tests.passes`


@pytest.mark.parametrize("path", NOW, ids=lambda p: p.stem)
def test_tiny_scale_takes_two_real_steps_of_each_stage(path, data):
  passes.tiny_steps(path, data)


def test_parameters_of_all_papers_are_those_of_the_passes():
  """Those that never passed are passed here, in full."""
  known, new = passes.stored(), {p.stem for p in NOW}
  assert {p.stem for p in FILES} <= new | known.keys() and PAPER.keys() <= {p.stem for p in FILES}
  found = {name: tuple(known[name]["parameters"]) for name in PAPER if name in known}
  assert found == {name: PAPER[name] for name in found}


def test_what_is_older_than_the_code_is_said():
  """Not a failure: a change of the core makes all of them older, and a sample of them runs here."""
  if left := [p.stem for p in OLDER if p not in NOW]:
    warnings.warn(
      f"older than the code, and not passed here: {', '.join(left)}; `python -m tests.passes`", stacklevel=1
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_text_and_addresses_are_the_golden_ones(path, data):
  """A change here disowns runs: it needs an `edition`, a `later` field or a commit that names the changed value, and
  `python -m tests.declared`."""
  known = json.loads((GOLDEN / f"{path.stem}.json").read_text())
  for scale in SCALES:
    made = elsewhere(build(path, scale, data), data)
    assert dumps(made) == json.dumps(known[scale]["experiment"], indent=1) + "\n"
    assert golden(made) == known[scale]


def test_goldens_of_micro():
  known = json.loads((GOLDEN / "micro.json").read_text())
  assert {"tiny": golden(micro.experiment()), "codes": golden(micro.experiment(codes=True))} == known


def test_files_are_found_and_have_one_name_each():
  assert len(FILES) >= 9 and len({p.stem for p in FILES}) == len(FILES)
  assert {p.stem for p in FILES} | {"micro"} == {p.stem for p in GOLDEN.glob("*.json")}


def test_names_of_experiments_are_those_of_their_files(data):
  for path in FILES:
    for scale in SCALES:
      assert build(path, scale, data).name == path.stem


# -- the reader of stored experiments: untrusted input


def stored(**changes):
  return {**to_json(micro.experiment()), **changes}


@pytest.mark.parametrize(
  "name",
  [
    "os:system",
    "subprocess:Popen",
    "latents.command.overrides:importlib",
    "latents.data.digits:np",
    "latents..x:y",
    "builtins:dict",
  ],
)
def test_stored_classes_outside_latents_are_refused(name):
  with pytest.raises(UserError, match=r"names .*(refused|lacks)"):
    from_json(stored(stage1={"!": name}))


@pytest.mark.parametrize(
  "name", ["latents.declare.stored:loads", "latents.train.loop:train", "latents.errors:UserError"]
)
def test_stored_functions_and_other_classes_are_refused(name):
  with pytest.raises(UserError, match="refused"):
    from_json({"!": name})


def test_stored_unknown_fields_are_refused():
  broken = stored()
  broken["stage1"]["stepz"] = 3
  with pytest.raises(UserError, match="'stepz'"):
    from_json(broken)
  broken = stored()
  broken["stage1"]["model"]["encoder"]["parent"] = 1
  with pytest.raises(UserError, match="'parent'"):
    from_json(broken)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"!": 3}', "[" * 5000, '{"a": 1}'])
def test_broken_experiment_files_are_one_line(text):
  with pytest.raises(UserError, match=r"^x\.json|names"):
    loads(text, "x.json")


def test_a_module_in_two_places_is_refused():
  made = micro.experiment()
  encoder = made.stage1.model.encoder
  twice = made.stage1.model.clone(decoder=encoder)
  with pytest.raises(ValueError, match="two places"):
    to_json(dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, model=twice)))


def test_what_json_cannot_hold_is_refused():
  made = micro.experiment()
  bad = made.stage1.model.encoder.clone(mult=[1, 2])
  with pytest.raises(TypeError, match="list"):
    to_json(
      dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, model=made.stage1.model.clone(encoder=bad)))
    )


def test_address_ignores_places_and_rhythms_but_not_models():
  made = micro.experiment()
  base = addresses(made)
  rhythm = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, log_every=3, save_every=9, workers=2))
  assert addresses(rhythm) == base
  prior = dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, steps=9))
  assert addresses(prior)[0] == base[0] and addresses(prior)[1] != base[1]
  model = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, steps=9))
  assert addresses(model)[0] != base[0] and addresses(model)[1] != base[1]
  guided = dataclasses.replace(
    made, stage2=dataclasses.replace(made.stage2, prior=made.stage2.prior.clone(guidance=3.0))
  )
  assert addresses(guided) == base  # how to sample is not part of what was trained


def test_json_is_small(data):
  assert len(json.dumps(to_json(build(FOLDER / "images" / "digits.py", "tiny", data)))) < 5000
