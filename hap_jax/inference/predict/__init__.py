"""The work of `hap predict CHECKPOINT`: one file per task of hap_jax/tasks, with the name of the task.

Each file has two functions:
  add_arguments(parser)  adds the arguments besides CHECKPOINT and --out
  run(args)              predicts and writes the folder `args.out`, which does not exist yet
The first line of the file's docstring is its help text. If a task has no file here, the command ranks a
gallery with the encoder (`inference/gallery.py`).
"""
