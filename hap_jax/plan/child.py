"""The process that traces and compiles for `hap plan`. `compile.analyse` starts it.

It reads a request from a file of JSON, sets the environment, imports jax and writes its reply to another
file. The compilers print on stdout and stderr, so the reply cannot go there.
"""

import json
import os
import pathlib
import sys


def main(request_path, reply_path):
  """Answers one request.

  Args:
    request_path: file of JSON with "environment", "flags" (for XLA), "paths" (folders of packages),
      "recorded", "sizes", "machine" and "effort", see `step_program.analyse`.
    reply_path: file for the result of `step_program.analyse`, or {"error": message}.
  """
  request = json.loads(pathlib.Path(request_path).read_text())
  # All of this must come before the import of jax.
  os.environ.update(request["environment"])
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {request['flags']}".strip()
  sys.path[:0] = request["paths"]
  from hap_jax.plan import step_program
  from hap_jax.plan.machines import Machine

  try:
    reply = step_program.analyse(
      request["recorded"], request["sizes"], Machine(**request["machine"]), request["effort"]
    )
  except ValueError as error:
    reply = {"error": str(error)}
  pathlib.Path(reply_path).write_text(json.dumps(reply))


if __name__ == "__main__":
  main(*sys.argv[1:])
