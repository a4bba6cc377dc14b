"""The declaration of an experiment, its checks, its JSON and its addresses.

    stages   Experiment, Stage1, Stage2, Start, Released, Mesh, Evaluation: frozen trees of parts
    check    numbers that no run can have, and those with which nothing would be learned
    stored   JSON, untrusted on its way back
    address  what makes two stages the same
    moved    names that outlive files

Addresses survive the growth of the code by three rules: a new field is `types.later`, and neutral values of it stand
in no address; a class that moves keeps its first name (`moved.MOVED`); a part whose rule changes under the same fields
raises its `edition`. A field that only says how often to log or how to sample is `types.aside`, one that says where
data lie is `data.source.place()`.
"""

from latents.declare.address import addresses, digest, former_addresses, maker
from latents.declare.check import check, draws, every_address, every_stage, trainable
from latents.declare.elsewhere import with_data_at
from latents.declare.stages import (
  Evaluation,
  Experiment,
  Mesh,
  Released,
  Stage1,
  Stage2,
  Start,
  bases,
  prolonged,
)
from latents.declare.stored import admit, differences, dumps, from_json, loads, own_parts, to_json

__all__ = [
  "Evaluation", "Experiment", "Mesh", "Released", "Stage1", "Stage2", "Start", "addresses", "admit", "bases", "check",
  "differences", "digest", "draws", "dumps", "every_address", "every_stage", "former_addresses", "from_json",
  "loads", "maker", "own_parts", "prolonged", "to_json", "trainable", "with_data_at",
]  # fmt: skip
