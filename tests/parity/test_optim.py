"""Schedule, weight-decay groups and AdamW against the official implementation."""

import jax
import numpy as np
import pytest

from hap_jax.convert import families, names
from hap_jax.tasks.pretrain import param_rules
from hap_jax.train import optim


@pytest.fixture(scope="module")
def schedules(golden):
  file = golden("optim_schedule")
  prefixes = sorted({key.split("/")[0] for key in file if key.startswith("sched")})
  assert prefixes
  return [{k.split("/")[1]: v for k, v in file.items() if k.startswith(f"{p}/")} for p in prefixes]


def test_learning_rate_agrees_with_the_official_code_at_every_step(schedules):
  for s in schedules:
    # The official rule: the base rate is for 256 images.
    peak = float(s["base_lr"]) * int(s["total_batch"]) / 256
    np.testing.assert_allclose(peak, s["peak_lr"], rtol=1e-6)
    progress = s["global_step"] / int(s["steps_per_epoch"])
    lr = optim.warmup_cosine(progress, peak=peak, warmup=float(s["warmup_epochs"]), total=float(s["epochs"]))
    np.testing.assert_allclose(lr, s["lr"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(0.5 * lr, s["lr_with_lr_scale_half"], rtol=1e-6, atol=1e-9)


def test_weight_decay_groups_agree_with_the_official_code(golden):
  file = golden("optim_schedule")
  family = families.load("hap")
  # The name table only needs the names, so the arrays are empty.
  state = dict.fromkeys(file["groups/param_name"].tolist(), np.zeros(()))
  rows = names.table(
    family,
    depth=names.count_blocks(family, "encoder", state),
    decoder_depth=names.count_blocks(family, "decoder", state),
  )
  ours = {row.reference: row.ours for row in rows}  # our blocks are stacked, so all blocks have the same name
  for name, group in zip(file["groups/param_name"].tolist(), file["groups/weight_decay_group"], strict=True):
    rule = optim.match_rules({ours[name]: 0}, param_rules(weight_decay=0.05))[ours[name]]
    # Official groups: 0 without decay, 1 with decay, 2 not trained.
    assert (rule.trainable, rule.weight_decay) == ((group != 2), 0.05 if group == 1 else 0.0), name


def test_three_steps_of_adamw_agree_with_the_official_code(golden, pick, ours):
  file = golden("optim_adamw")
  params = ours(pick(file, "init/"))
  beta1, beta2 = (float(b) for b in file["betas"])
  spec = optim.OptimizerSpec("adamw", beta1=beta1, beta2=beta2, eps=float(file["eps"]))
  matched = optim.match_rules(params, param_rules(weight_decay=float(file["weight_decay"])))
  direction = optim.make_direction(spec, matched)
  opt_state = direction.init(params)
  for step in (1, 2, 3):
    update, opt_state = direction.update(ours(pick(file, f"grad{step}/")), opt_state, params)
    params = optim.apply_update(params, update, float(file["lr"][step - 1]), matched)
    if step in (1, 3):
      jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0),
        params,
        ours(pick(file, f"after{step}/")),
      )
