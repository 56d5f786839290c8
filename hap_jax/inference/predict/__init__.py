"""What `hap predict CHECKPOINT` does: one file per task of hap_jax/tasks, named after it.

Each file has
  add_arguments(parser)  adds the arguments besides CHECKPOINT and --out
  run(args)              predicts and writes the folder `args.out`, which does not exist yet
and the first line of its docstring says what it does. For a task without a file here, the encoder ranks a
gallery (`inference/gallery.py`).
"""
