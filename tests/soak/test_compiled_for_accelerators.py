"""B/16 compiles for four TPU chips and an H100 that are not there, fits them, and costs the recorded cycles.

Without the compilers of requirements-plan.txt in the folder `compilers` of the environment, the tests skip.
"""

import json
import pathlib

import pytest

from configs import pretrain_b16
from hap_jax import config as config_lib
from hap_jax.plan import choose, compilers, machines, planner
from hap_jax.plan import compile as compiling
from hap_jax.train.outline import NOTHING_KNOWN

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES = ROOT / "benchmarks" / "results" / "planned_step.jsonl"
V5E = machines.tpu("v5e:2x2")
TOLERANCE = 0.05  # of the cycles: a change of the step that costs more must record its own line

pytestmark = pytest.mark.soak


def needs_compiler(platform):
  return pytest.mark.skipif(
    compilers.find(platform) is None, reason=f"not installed: {compilers.install_command()}"
  )


def pretrain(batch):
  config = pretrain_b16.get_config()
  config.update_from_flattened_dict({"model.dtype": "bfloat16", "batch_size": batch})
  return config_lib.finalize(config)


def recorded(machine, effort):
  """Returns the line of B/16 with its default settings and 64 pictures on each device of a machine."""
  wanted = {"target": machine.name, "effort": effort, "size": "B", "remat": "dots", "accumulate": 1}
  lines = map(json.loads, LINES.read_text().splitlines())
  found = [line for line in lines if wanted.items() <= line.items() and line["batch"] == 64 * machine.count]
  return found[-1]


@pytest.fixture(scope="module")
def for_tpu():
  """The results of a compilation for planning and of a full one."""
  return {
    effort: compiling.analyse(pretrain(64 * V5E.count), NOTHING_KNOWN, V5E, effort)["compiled"]
    for effort in ("planning", "full")
  }


@needs_compiler("tpu")
def test_the_step_fits_four_tpu_chips_and_costs_the_recorded_cycles(for_tpu):
  full = for_tpu["full"]
  assert full["needed"] <= V5E.memory
  cycles = sum(full["cycles"].values())
  assert cycles == pytest.approx(recorded(V5E, "full")["cycles_total"], rel=TOLERANCE)
  assert full["cycles"]["encoder MLP"] > 0.02 * cycles


@needs_compiler("tpu")
def test_a_planning_figure_is_not_below_the_memory_of_a_full_compilation(for_tpu):
  planning, full = (for_tpu[effort]["needed"] for effort in ("planning", "full"))
  assert full <= planning <= 1.4 * full


@needs_compiler("tpu")
def test_the_gradients_are_the_only_large_traffic_of_a_data_parallel_step(for_tpu):
  collectives = for_tpu["full"]["collectives"]
  gradients = [one for one in collectives if one["operation"] in ("all-reduce", "reduce-scatter")]
  parameters = 111_655_680
  assert 2 * parameters <= sum(one["bytes"] for one in gradients) < 4.2 * parameters
  others = sum(one["bytes"] for one in collectives if one not in gradients)
  assert others < 0.02 * sum(one["bytes"] for one in gradients)


@needs_compiler("tpu")
def test_a_plan_recommends_settings_that_were_compiled_and_fit():
  config = pretrain(1024)

  def measure(config, effort):
    return compiling.analyse(config, NOTHING_KNOWN, V5E, effort)

  plan = planner.make_plan(config, V5E, measure, compiles=True)
  assert not plan["step"]["fits"]
  assert plan["recommended"]["fits"]
  assert plan["recommended"]["settings"]["accumulate"] > 1
  assert "--config.batch_size=1024" in plan["recommended"]["words"]
  assert plan["largest"]["needed"] > 0.9 * V5E.memory
  assert plan["largest"]["settings"]["batch_size"] == 4 * plan["largest"]["rows"]
  assert choose.settings_of(config)["batch_size"] == 1024


@needs_compiler("cuda")
def test_the_step_fits_an_h100():
  machine = machines.h100(1)
  found = compiling.analyse(pretrain(64), NOTHING_KNOWN, machine, "full")["compiled"]
  assert found["needed"] <= machine.memory
  line = recorded(machine, "full")
  assert found["needed"] == pytest.approx(line["needed"], rel=TOLERANCE)
