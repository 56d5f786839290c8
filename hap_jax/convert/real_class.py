"""The proof's third leg where PyTorch is installed: the class of the other project that a conversion is for.

PyTorch is never required; only the `torch_class` of families imports it.
"""

import importlib
import importlib.util


def outputs(path, family, setting, batch):
  """Loads what was written with the class it is for, and runs it.

  Args:
    path: file or folder.
    family: the Family that it was written as; None: a checkpoint of this project.
    setting: a `verify.Setting`.
    batch: a `verify.Batch`.
  Returns:
    ({name: array} as `verify.run_foreign`, None if it did not run; name of the class, or why it did not run).
  Raises:
    ValueError: if the class does not take the file as it is.
  """
  if family is None or family.torch_class is None:
    return None, "no class of this target is installable"
  package = family.torch_class.package
  lacking = [name for name in ("torch", package) if importlib.util.find_spec(name) is None]
  if lacking:
    return None, f"{' and '.join(lacking)} not installed"
  try:
    importlib.import_module(package)
  except (ImportError, RuntimeError) as error:  # a torchvision of another build than torch
    return None, _reason(package, error)
  try:
    return family.torch_class.run(path, setting, batch)
  except ImportError as error:  # a package may import a class only when it is asked for
    return None, _reason(package, error)
  except RuntimeError as error:  # so PyTorch says that names or shapes are others
    raise ValueError(f"{package} does not take what was written: {' '.join(str(error).split())}") from error


def _reason(package, error):
  return f"{package} does not import: {' '.join(str(error).split())[:200]}"
