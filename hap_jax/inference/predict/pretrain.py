"""Rank the pictures of a gallery by their likeness to a query, with pooled tokens of the encoder."""

from hap_jax.inference import gallery

add_arguments, run = gallery.add_arguments, gallery.run
