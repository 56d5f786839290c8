"""Starts a run somewhere: here, under SLURM, through XManager, on a TPU VM. See docs/launch.md."""
