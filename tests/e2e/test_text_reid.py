"""Text ReID from drawn people and tiny files to scores and checkpoints."""
