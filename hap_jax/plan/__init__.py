"""Computes memory, traffic and speed of a training step on a machine that is not there, for `hap plan`."""
