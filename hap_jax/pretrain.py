"""The pre-training recipe: person data, the HAP model and its masks, through the one training loop."""

import pathlib

from hap_jax import recipe

# The largest held-out loss, as a share of the position mean's, of a run that learned to fill in people.
# Seeds of the demo stay below it; the same run on shuffled pixels stays above 0.94.
LEARNED_RATIO = 0.85


def run(config, workdir, say=print):
  """Pre-trains as configured, or goes on where the workdir stands.

  Args:
    config: finalized. workdir: folder of the run. say: prints a line.
  Returns:
    {metric: float} of the last evaluation, {} if nothing is held out.
  """
  scores = recipe.run(
    config,
    workdir,
    from_scratch="starting from scratch; the official run starts from ImageNet MAE weights "
    "(config.init_from=FILE.pth)",
    say=say,
  )
  panels = sorted((pathlib.Path(workdir) / "panels").glob("reconstruction_*.png"))
  if panels:
    say(f"pictures: {panels[-1]}")
  if "val_ratio" in scores:
    ratio = scores["val_ratio"]
    verdict = (
      "it learned to fill in people" if ratio <= LEARNED_RATIO else "it has not learned to fill in people"
    )
    say(
      f"verdict: held-out masked-patch loss {scores['val_loss_rec']:.4f}, position mean "
      f"{scores['val_loss_position_mean']:.4f}, ratio {ratio:.3f} (goal: at most {LEARNED_RATIO}): {verdict}"
    )
  return scores
