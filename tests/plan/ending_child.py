"""Stands for `hap_jax.plan.child` with a compiler that ends the process."""

import sys

print("I0000 00:00:00.000000 1 file.cc:1] a line of a log", file=sys.stderr)
print("the last words of a compiler", file=sys.stderr)
sys.exit(3)
