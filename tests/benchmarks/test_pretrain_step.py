"""The benchmark of the pre-training step: levers, recompilations, and variants that cannot run."""

import json

import pytest

from benchmarks import pretrain_step, workload


def test_every_lever_changes_only_the_setting_of_its_name(small_config):
  for lever in pretrain_step.LEVERS:
    before = workload.settings(small_config)
    after = workload.settings(pretrain_step.switched(small_config, lever))
    differing = {key for key in before if before[key] != after[key]}
    names = {"blockwise": "align_block", "one_view": "views", "sampler": None}
    names |= dict.fromkeys(("remat_none", "remat_elementwise", "remat_full"), "remat")
    assert differing == {names.get(lever, lever)} - {None}


def test_error_names_an_unknown_key():
  args = pretrain_step.parse_args(["--set=model.wide=3"])
  with pytest.raises(ValueError, match=r"--set: .*wide"):
    pretrain_step.make_config(args)


@pytest.mark.soak
def test_forward_pass_compiles_once_and_the_base_is_timed_although_a_variant_fails(plain_config):
  """The failing variant uses cuDNN's attention, which compiles only on a GPU."""
  base, failed = pretrain_step.measure_all(
    plain_config, "forward", levers=["attention"], warmup=2, repeats=2, steps=1
  )
  assert base["recompiles_after_step_2"] == 0
  assert base["rounds"] == 2
  assert base["compile_seconds"] > 0
  assert base["memory_bytes"]["temporaries"] > 0
  assert json.loads(json.dumps(base))["images_per_s"] > 0
  assert failed["variant"] == "attention"
  assert "cuDNN" in failed["error"]


def test_only_the_masks_of_a_batch_are_timed(plain_config):
  (line,) = pretrain_step.measure_all(plain_config, "sampler", warmup=2, repeats=1, steps=1)
  assert (line["what"], line["gflop_per_image"]) == ("sampler", 0)
  assert line["images_per_s"] > 0
