"""The search finds the largest batch and the settings that fit, on a machine whose memory is a formula."""

import pytest

from configs import finetune_reid_market1501_b16, pretrain_b16
from hap_jax import config as config_lib
from hap_jax.plan import choose, machines, planner

STATE = 1.3 * machines.GIB  # of a device, without fsdp
GRADIENTS = 0.4 * machines.GIB


class Formula:
  """Stands for the compiler: memory of a device = state + rows times a number that depends on remat.

  Attributes:
    efforts: the efforts of all calls.
  """

  def __init__(self, machine, per_row=0.1, bend=0.0, shrinks_at_full=1.0):
    self.machine, self.per_row, self.bend = machine, per_row, bend
    self.shrinks_at_full, self.efforts = shrinks_at_full, []

  def __call__(self, config, effort):
    self.efforts.append(effort)
    fsdp = config.mesh.fsdp
    mesh = {"data": self.machine.count // fsdp, "fsdp": fsdp, "tensor": 1}
    parts = {"parameters": STATE / 3, "moments": STATE * 2 / 3, "average": 0, "gradients": GRADIENTS}
    reply = {"mesh": mesh, "device_bytes": {name: size / fsdp for name, size in parts.items()}}
    reply |= {"lines": [], "sizes": {}, "flops": 1e11}
    if effort != "none":
      rows = config.batch_size / self.machine.count / config.accumulate
      activations = rows * {"dots": 1.0, "full": 0.3, "none": 2.0}[config.model.remat] * self.per_row
      activations += self.bend * rows**2
      if effort == "full":
        activations *= self.shrinks_at_full
      needed = STATE / fsdp + GRADIENTS * (config.accumulate > 1) + activations * machines.GIB
      reply["compiled"] = {"needed": needed, "cycles": {"encoder MLP": 1_000_000} if effort == "full" else {}}
    return reply


def pretrain(**overrides):
  config = pretrain_b16.get_config()
  config.update_from_flattened_dict({"model.dtype": "bfloat16", **overrides})
  return config_lib.finalize(config)


V5E = machines.tpu("v5e:2x2")


def test_the_largest_batch_fits_and_eight_more_rows_do_not():
  """15.75 GiB hold 1.3 GiB and 144 rows of 0.1 GiB. It takes two programs and one to check."""
  measure = Formula(V5E)
  largest = choose.Search(V5E, measure).largest(pretrain(batch_size=1024))
  assert (largest.rows, largest.config.batch_size) == (144, 4 * 144)
  assert len(measure.efforts) == 3


def test_a_number_of_rows_that_does_not_fit_after_all_is_lowered():
  """The memory grows faster than a line, so the line through two small batches promises too many rows."""
  measure = Formula(V5E, bend=0.0002)
  search = choose.Search(V5E, measure)
  largest = search.largest(pretrain(batch_size=256))
  assert search.fits(largest)
  more = search.compile(choose.with_rows(largest.config, largest, int(1.1 * largest.rows)))
  assert not search.fits(more)


def test_full_compilations_that_need_less_memory_give_a_larger_batch():
  measure = Formula(V5E, shrinks_at_full=0.75)
  search = choose.Search(V5E, measure)
  largest = search.largest(pretrain(batch_size=1024), "full")
  assert (search.fits(largest), largest.effort) == (True, "full")
  assert largest.rows > 1.2 * 144
  more = search.compile(choose.with_rows(largest.config, largest, int(1.1 * largest.rows)), "full")
  assert not search.fits(more)


def test_a_configuration_that_fits_is_recommended_as_it_is():
  search = choose.Search(V5E, Formula(V5E))
  config = pretrain(batch_size=512)
  assert choose.recommend(search, config).config == config


def test_a_large_batch_goes_through_the_model_in_parts():
  """2,048 pictures are 512 on each device. With the sum of the gradients, 128 of them fit at a time."""
  trial = choose.recommend(choose.Search(V5E, Formula(V5E)), pretrain(batch_size=2048))
  assert choose.words_of(trial.config) == [
    "--config.batch_size=2048",
    "--config.accumulate=4",
    "--config.model.remat=dots",
    "--config.mesh.fsdp=1",
  ]


def test_a_task_that_needs_the_whole_batch_recomputes_more_instead():
  config = finetune_reid_market1501_b16.get_config()
  config.update_from_flattened_dict({"model.dtype": "bfloat16", "batch_size": 1024})
  trial = choose.recommend(choose.Search(V5E, Formula(V5E)), config_lib.finalize(config))
  assert (trial.config.accumulate, trial.config.model.remat, trial.config.batch_size) == (1, "full", 1024)


def test_parameters_that_do_not_fit_are_divided():
  """The state takes more than a device, also with a single row. Half of it fits."""
  machine = machines.other(8, 2.0, share=0.7)
  trial = choose.recommend(choose.Search(machine, Formula(machine, per_row=0.01)), pretrain(batch_size=512))
  assert trial.config.mesh.fsdp == 4
  assert trial.needed <= machine.memory


def test_a_batch_that_fits_nowhere_names_the_missing_memory_and_the_nearest_batch():
  config = finetune_reid_market1501_b16.get_config()
  config.update_from_flattened_dict({"model.dtype": "bfloat16", "batch_size": 8192})
  search = choose.Search(V5E, Formula(V5E))
  message = r"needs 62\.7\d GiB on each device .*remat=full.*, 4\d\.\d\d GiB more than its 15\.75 GiB\. "
  message += r"The nearest that fits: --config\.batch_size=1\d\d\d --config\.accumulate=1 .*remat=full"
  with pytest.raises(ValueError, match=message):
    choose.recommend(search, config_lib.finalize(config))


def test_a_model_that_fits_with_no_batch_names_the_missing_memory():
  machine = machines.other(1, 1.0)
  with pytest.raises(ValueError, match=r"GiB more than its 0\.70 GiB\. No batch fits: use devices with more"):
    choose.recommend(choose.Search(machine, Formula(machine)), pretrain(batch_size=64))


def test_without_a_compiler_arrays_that_do_not_fit_are_an_error_with_the_smallest_fsdp():
  machine = machines.other(8, 2.0, share=0.7)
  message = r"need 1\.70 GiB on each device, 0\.40 GiB more than the 1\.30 GiB .*--config\.mesh\.fsdp=4"
  with pytest.raises(ValueError, match=message):
    planner.make_plan(pretrain(batch_size=512), machine, Formula(machine), compiles=False)


def test_cycles_become_pictures_per_second_and_hours():
  """A step of 512 pictures takes 1,000,000 cycles of a chip with 1.5 GHz."""
  config = pretrain(batch_size=512, total_steps=9000)
  plan = planner.make_plan(config, V5E, Formula(V5E), compiles=True, is_full=True)
  assert plan["pictures_per_second"] == pytest.approx(512 * 1500)
  assert plan["peak_share"] == pytest.approx(512 * 1500 * 1e11 / 4 / 197e12)
  assert plan["hours"] == pytest.approx(9000 * 512 / (512 * 1500) / 3600)


def test_hours_count_epochs_if_the_number_of_records_is_known():
  config = pretrain()
  assert planner.hours(config, {"records": 18_000}, 2000) == pytest.approx(1.0)
  assert planner.hours(config, {}, 2000) is None
