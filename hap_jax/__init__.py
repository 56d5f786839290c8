"""Human-centric pre-training with human structure priors (HAP, arXiv 2310.20695) in JAX/Flax."""

__all__ = ["load"]


def __getattr__(name):
  """Finds `load` when it is asked for: the loader's workers import this package, and stay without jax."""
  if name == "load":
    from hap_jax.inference.encoder import load

    return load
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
