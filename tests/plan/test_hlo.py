"""Cycles and collective operations of a program count loops, and belong to parts of the step."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hap_jax import sharding
from hap_jax.plan import hlo

# The form of libtpu 0.0.42, with fewer instructions. Frame 2 is in the package. Frames 3 and 4 are not, and
# were called by frame 2 and frame 1.
PROGRAM = """HloModule jit_step, is_scheduled=true

FileNames
1 "/usr/lib/python/main.py"
2 "/home/me/hap_jax/hap_jax/train/optim.py"

FunctionNames
1 "<module>"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=1}
2 {file_name_id=2 function_name_id=1 line=1 end_line=1 column=1 end_column=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=1 parent_frame_id=3}
4 {file_location_id=1 parent_frame_id=2}

%inside (p: f32[8,16]) -> f32[8,16] {
  ROOT %p = f32[8,16]{1,0:T(8,128)} parameter(0), backend_config={"window_config":{"estimated_cycles":"999"}}
}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %s = f32[] add(%x, %y)
}

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %mlp = f32[8,16]{1,0:T(8,128)S(1)} fusion(%a), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/jvp(Net)/encoder/while/body/closed_call/Block/mlp/fc1/dot_general" stack_frame_id=4}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %attn = f32[8,16]{1,0} fusion(%mlp), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/transpose(jvp(Net))/encoder/while/body/closed_call/checkpoint/Block/attn/dot_general"}, backend_config={"window_config":{"estimated_cycles":"20"}}
  %qkv = f32[8,16]{1,0} fusion(%attn), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/jvp(Net)/encoder/while/body/closed_call/Block/attn/qkv/dot_general"}, backend_config={"window_config":{"estimated_cycles":"7"}}
  %moved = f32[8,16]{0,1} copy(%qkv), metadata={op_name="jit(step)/jvp(Net)/encoder/add"}, backend_config={"window_config":{"estimated_cycles":"3"}}
  %all-reduce.1 = (bf16[16]{0}, bf16[8,16]{1,0}) all-reduce(%moved, %qkv), channel_id=1, to_apply=%add
}

%condition (p: (s32[], f32[8,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[] compare(%p, %limit), direction=LT
}

ENTRY %main (p: f32[8,16]) -> f32[8,16] {
  %while.1 = (s32[], f32[8,16]{1,0}) while(%t), condition=%condition, body=%body
  %all-gather-start.1 = (f32[2,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%p), channel_id=2, dimensions={0}
  %all-gather-done.1 = f32[8,16]{1,0} all-gather-done(%all-gather-start.1)
  %norm = f32[8,16]{1,0} fusion(%w), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/reduce_sum" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"5000"}}
  ROOT %other = f32[8,16]{1,0} fusion(%w), kind=kLoop, calls=%inside, metadata={op_name="jit(step)/mul" stack_frame_id=4}, backend_config={"window_config":{"estimated_cycles":"11"}}
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs_and_a_fusion_once():
  cycles = hlo.cycles_by_part(hlo.instructions(PROGRAM))
  assert sum(cycles.values()) == 12 * (100 + 20 + 7 + 3) + 5000 + 11


def test_cycles_belong_to_the_part_of_the_module_or_of_the_file():
  assert hlo.cycles_by_part(hlo.instructions(PROGRAM)) == {
    "optimizer": 5000,  # its innermost frame in the package is train/optim.py
    "encoder MLP": 1200,
    "encoder attention": 240,
    "encoder qkv and projections": 84,
    "copies and transposes": 36,
    "rest": 11,
  }


def test_collectives_are_counted_with_their_bytes():
  assert hlo.collectives(hlo.instructions(PROGRAM)) == [
    {"operation": "all-reduce", "dtype": "bf16", "count": 12, "bytes": 12 * 2 * (16 + 8 * 16)},
    {"operation": "all-gather", "dtype": "f32", "count": 1, "bytes": 4 * 8 * 16},
  ]


@pytest.mark.parametrize(
  ("result", "size"),
  [("f32[8,512]{1,0:T(8,128)}", 16384), ("(pred[3], bf16[2,2]{1,0})", 11), ("u32[]", 4), ("s4[8]", 4)],
)
def test_the_bytes_of_a_type(result, size):
  assert hlo.num_bytes(result) == size


def test_a_program_of_this_jax_gives_its_collectives():
  """The sum of the rows of eight devices is one reduction in each of the three runs of a loop."""
  mesh = sharding.make_mesh(devices=jax.devices()[:8])
  rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

  def function(weights, x):
    return jax.lax.scan(lambda x, w: (x @ w, (x @ w).sum(0)), x, weights)[1]

  jitted = jax.jit(function, in_shardings=(whole, rows), out_shardings=whole)
  compiled = jitted.lower(jnp.ones((3, 16, 16)), jnp.ones((64, 16))).compile()
  (found,) = hlo.collectives(hlo.instructions(compiled.as_text()))
  assert (found["operation"], found["dtype"]) == ("all-reduce", "f32")
  assert found["bytes"] == 3 * 16 * 4  # of three runs, or of one after the loop
