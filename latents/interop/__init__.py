"""Weights of others, in and out: a layout is one table of names and turns, read in both directions.

    mapping   Table: names of theirs <-> paths of ours, and how an array is turned
    conv ...  the tables, and the sizes of a model by the shapes of its arrays
    layouts   LAYOUTS, RELEASES: what is known; guess, read, take, give
    hub       files of the Hugging Face hub
    release   the weights of a `Released` in a declaration

Contract of a layout: `read` gives a model (an autoencoder, or the backbone of a prior) and all its parameters, or one
line (UserError) in the names of the file; `give` gives the file's arrays back to the bit.
"""

from latents.interop.conv import units
from latents.interop.latents import read_latents
from latents.interop.layouts import (
  LAYOUTS,
  RELEASES,
  channels,
  check_name,
  give,
  guess,
  is_backbone,
  outline,
  parameters,
  read,
  take,
)
from latents.interop.release import read_release

__all__ = [
  "LAYOUTS", "RELEASES", "channels", "check_name", "give", "guess", "is_backbone", "outline", "parameters",
  "read", "read_latents", "read_release", "take", "units",
]  # fmt: skip
