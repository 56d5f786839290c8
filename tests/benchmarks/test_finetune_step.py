"""The benchmarks of a fine-tuning step and of the mask sampler each print one line."""

import json

import pytest

from benchmarks import finetune_step, mask_sampler, workload


@pytest.mark.soak
def test_step_is_timed_against_its_encoder():
  words = ["--batch=8", "--set=data.synthetic.num_train=64", "--set=data.synthetic.hold_in_memory=False"]
  words += ["--set=model.scan=True"]  # compiles faster
  args = finetune_step.parse_args([f"--config={workload.CONFIGS / 'finetune_reid_demo.py'}", *words])
  line = finetune_step.time_both(finetune_step.make_config(args), warmup=2, repeats=1, steps=1)
  assert (line["task"], line["batch"], line["rounds"]) == ("reid", 8, 1)
  assert line["ratio"] > 0


def test_default_is_the_published_network_with_the_persons_of_msmt17():
  config = finetune_step.make_config(finetune_step.parse_args(["--set=model.locality=True"]))
  task = workload.make_task(config)
  assert task.description.network == {"locality": True, "num_classes": 1041}
  assert workload.settings(config)["batch"] == 32


def test_mask_sampler_is_timed(capsys):
  mask_sampler.main(["--batch=4", "--grid=8x4", "--patch=8", "--no-blocks", "--no-parts", "--repeats=2"])
  (line,) = map(json.loads, capsys.readouterr().out.splitlines())
  assert line["batch"] == 4
  assert line["recipe"]["grid"] == [8, 4]
  assert line["images_per_s"] > 0
