"""The 2D pose task accepts only values that work together."""

import pytest

from configs import finetune_pose2d_aic_b16, finetune_pose2d_coco_b16
from hap_jax import config as config_lib
from hap_jax.tasks import base


@pytest.mark.parametrize(
  ("file", "key", "value", "message"),
  [
    (finetune_pose2d_aic_b16, "data.fit_aspect", False, r'config\.data\.fit_aspect=False: .*codec="msra"'),
    (finetune_pose2d_coco_b16, "lr_drops", (200.0, 170.0), r"config\.lr_drops=.*in ascending order"),
    (finetune_pose2d_coco_b16, "lr_drops", (300.0,), r"below total_epochs=210\.0"),
    (finetune_pose2d_coco_b16, "model.patch_padding", 8, r"model\.patch_padding=8.*half of model\.patch=16"),
    (finetune_pose2d_coco_b16, "model.head", "round", r"config\.model\.head='round': expected classic or"),
    (finetune_pose2d_coco_b16, "data.codec", "dark", r"config\.data\.codec='dark': expected udp or msra"),
  ],
)
def test_values_that_do_not_work_are_errors(file, key, value, message):
  config = file.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    config_lib.finalize(config)


def test_warmup_and_drops_keep_their_share_of_a_shorter_run():
  config = config_lib.finalize(finetune_pose2d_coco_b16.get_config())
  schedule = base.step_schedule_of(config, 1_000, 21.0)  # a tenth of the epochs
  rates = {step: float(schedule(step, step * 21 / 1_000)) for step in (0, 99, 100, 809, 810, 952, 953)}
  assert rates[100] == rates[809] == pytest.approx(2e-4)  # the warm-up has 100 steps, a tenth of the run
  assert rates[0] < rates[99] < rates[100]
  assert rates[810] == rates[952] == pytest.approx(2e-5)
  assert rates[953] == pytest.approx(2e-6)
