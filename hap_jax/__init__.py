"""Human-centric pre-training with human structure priors (HAP, arXiv 2310.20695) in JAX/Flax."""
