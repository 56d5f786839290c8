"""Human-centric pre-training with human structure priors (HAP, arXiv 2310.20695) in JAX/Flax."""

__all__ = ["__version__", "load"]

__version__ = "0.2.0"  # the only place of the version; pyproject.toml reads it from here


def __getattr__(name):
  """Imports `load` at its first use.

  The worker processes of the loader import this package. They must not import jax, because that
  takes seconds and much memory.
  """
  if name == "load":
    from hap_jax.inference.encoder import load

    return load
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
