"""The text of a plan has its figures with units, and words that can be pasted."""

from hap_jax.plan import machines, planner, report
from tests.plan.test_choose import Formula, pretrain


class WithShapes(Formula):
  """A formula that also has the needs that follow from shapes."""

  def __call__(self, config, effort):
    reply = super().__call__(config, effort)
    reply |= {"parameters": 1000, "trained": 900, "checkpoint_bytes": 2**30, "lines": ["images", "patches"]}
    if "compiled" in reply:
      found = {"operation": "all-reduce", "dtype": "bf16", "count": 21, "bytes": 3 * 2**20}
      reply["compiled"]["collectives"] = [found]
    return reply


def text_of(machine, **options):
  config = pretrain(batch_size=2048)
  return "\n".join(report.lines(planner.make_plan(config, machine, WithShapes(machine), **options)))


def test_a_compiled_plan_has_verdict_words_largest_batch_and_traffic():
  text = text_of(machines.tpu("v5e:2x2"), compiles=True)
  assert "whole step    52.50 GiB (planning figure) with 512 pictures at a time: does not fit" in text
  assert (
    "recommended     --config.batch_size=2048 --config.accumulate=4 --config.model.remat=dots "
    "--config.mesh.fsdp=1"
  ) in text
  assert "largest batch   576 pictures, 144 on each device" in text
  assert "      3.00 MiB  21 x all-reduce bf16" in text
  assert "cycles" not in text


def test_cycles_are_labelled_as_an_estimate():
  text = text_of(machines.tpu("v5e:2x2"), compiles=True, is_full=True)
  assert "cycles of a step, estimated by the compiler: 1.0 million" in text
  assert "the compiler's estimate, not a measurement" in text
  assert "state the number of training records with --records=N" in text


def test_a_plan_without_a_compiler_has_the_memory_that_is_left():
  text = text_of(machines.other(1, 10.0), compiles=False)
  assert "left          5.28 GiB for activations and the program" in text
  assert "FLOPs           100.0 G for each picture" in text
