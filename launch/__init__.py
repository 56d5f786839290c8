"""Launchers start a run on this machine, under SLURM, through XManager or on a TPU VM. See docs/launch.md."""
