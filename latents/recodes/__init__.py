"""Recodes: codes of a frozen stage 1 as fewer, merged tokens, which a prior models in their place.

Contract (`base.Recode`), a frozen dataclass of host code between the frozen encode and the prior, and back before the
decoder: `tokens(vocab)`, how many merged tokens a codebook of `vocab` codes gives; `length`, the most of them that an
example may take; `fit(codes [N,*s], vocab) -> Table` on the training codes, which is stored with the stage;
`merge(table, codes)`, lossless; `expand(table, tokens, grid)` of any tokens whatever, also those that a prior made up.
What a prior sees are rows of `length` tokens, END = 0 from the end on (`Fitted`, `latent`): the first END counts in the
likelihood, what comes after it does not, and a row that is full needs none. Beside them stand the places of the tokens
on the grid, which a prior cannot tell from their numbers; `walk` finds them while a sample is drawn.
"""

from latents.recodes.base import END, Fitted, Recode, Walk, latent
from latents.recodes.image_bpe import ImageBPE
from latents.recodes.sentence_piece import SentencePiece

__all__ = ["END", "Fitted", "ImageBPE", "Recode", "SentencePiece", "Walk", "latent"]
