"""Launchers start a run on this machine, under SLURM, through XManager or on a TPU VM, see docs/launch.md."""
