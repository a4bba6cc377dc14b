"""Weights of others: a layout names whose files are read, and gives the variables of one of our models.

Contract of a reader: path -> {"params/encoder/...": array}, as an artefact's weights. UserError, one line, for a file
that is none of its layout.
"""

from latents.interop.latents import read_latents
from latents.interop.release import read_release

__all__ = ["read_latents", "read_release"]
