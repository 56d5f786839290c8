"""The commands of `hap` with small parts of poses: `python -m tests.soak.small_parts_main ROWS VERB ...`."""

import sys

if __name__ == "__main__":
  from hap_jax.cli import __main__ as cli
  from hap_jax.inference import extract_poses, whole_pictures

  extract_poses.PART_SIZE = whole_pictures.PART_SIZE = whole_pictures.PART_FRAMES = int(sys.argv.pop(1))
  cli.run_program()
