"""The length of a run in steps and epochs."""

from hap_jax import config as config_lib


def compute(train, *, total_epochs, warmup_epochs=0.0, total_steps=0):
  """Returns the length of a run as (steps, epochs, epochs of warm-up).

  If the run continues another run, all these numbers include the steps and epochs of the other run.

  Args:
    train: the training loader.
    total_epochs: number of passes over the records.
    warmup_epochs: number of warm-up epochs; total_epochs includes them. If total_steps is given, the warm-up
      keeps the same share of the run. 0: the task has no warm-up, or counts it in steps.
    total_steps: length of the run in steps, used in place of total_epochs. 0: total_epochs sets the length.
  Raises:
    ValueError: if the run has no step, or if it ends before the step at which it continues another run.
  """
  # A run that continues another run does not begin at step 0 and epoch 0.
  begin = train.first_step(0)
  begin_epochs = train.progress(begin)
  epochs_left = max(total_epochs - begin_epochs, 0.0)
  whole_epochs = int(epochs_left)
  further = round((epochs_left - whole_epochs) * train.nominal_steps)
  # An epoch may have fewer steps than nominal_steps. `min` ends the run before the next epoch begins.
  of_epochs = min(train.first_step(whole_epochs) + further, train.first_step(whole_epochs + 1))
  steps = total_steps or of_epochs
  _check_length(steps, total_steps, total_epochs, begin, begin_epochs)
  epochs = train.progress(steps)
  return steps, epochs, epochs * warmup_epochs / total_epochs


def _check_length(steps, total_steps, total_epochs, begin, begin_epochs):
  if not begin:
    config_lib.require(steps > 0, "total_epochs", total_epochs, "enough for a step")
    return
  why = "it counts from the beginning of the run that config.continue_from names"
  config_lib.require(
    not total_steps or total_steps > begin, "total_steps", total_steps, f"above {begin}, because {why}"
  )
  config_lib.require(
    steps > begin, "total_epochs", total_epochs, f"at least a step above {begin_epochs:.6g}, because {why}"
  )
