"""What `hap plan` computes: memory, traffic and speed of a training step on a machine that is not there."""
