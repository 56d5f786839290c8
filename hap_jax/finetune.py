"""The fine-tuning recipe: one task module, an encoder to start from, through the one training loop."""

from hap_jax import recipe


def run(config, workdir, say=print):
  """Fine-tunes as configured, or goes on where the workdir stands.

  Args:
    config: finalized; its `task` names a file of hap_jax/tasks. workdir: folder of the run.
    say: prints a line.
  Returns:
    {metric: float} of the last evaluation.
  """
  scores = recipe.run(
    config,
    workdir,
    from_scratch="starting from scratch: no pre-trained encoder is given (config.init_from=CHECKPOINT)",
    say=say,
  )
  say("last step: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
  return scores
