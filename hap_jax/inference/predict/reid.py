"""Rank the pictures of a gallery by their similarity to a query, with the trained embedding."""

from hap_jax.inference import gallery

add_arguments, run = gallery.add_arguments, gallery.run
