"""The third part of the proof of a conversion: the other project's PyTorch class runs the written file.

PyTorch is not required. Without PyTorch, this part of the proof is left out. Only the `torch_class` of a
family imports PyTorch.
"""

import importlib
import importlib.util


def outputs(path, family, setting, batch):
  """Loads the written file with the other project's class and runs it.

  Args:
    path: file or folder.
    family: the Family of the written file. None: it is a checkpoint of this project.
    setting: a `verify.Setting`.
    batch: a `verify.Batch`.
  Returns:
    (outputs, text). The outputs are {name: array} as in `verify.run_foreign`. They are None if the class did
    not run. The text is the name of the class, or the reason why it did not run.
  Raises:
    ValueError: if the class does not load the file unchanged.
  """
  if family is None or family.torch_class is None:
    return None, "no installable package has a class for this target"
  package = family.torch_class.package
  missing = [name for name in ("torch", package) if importlib.util.find_spec(name) is None]
  if missing:
    return None, f"{' and '.join(missing)} not installed"
  try:
    importlib.import_module(package)
  except (ImportError, RuntimeError) as error:  # for example, torchvision was built for another torch
    return None, _reason(package, error)
  try:
    return family.torch_class.run(path, setting, batch)
  except ImportError as error:  # some packages import a class only when it is used
    return None, _reason(package, error)
  except RuntimeError as error:  # PyTorch's error for different names or shapes
    raise ValueError(f"{package} does not load the written file: {' '.join(str(error).split())}") from error


def _reason(package, error):
  return f"{package} cannot be imported: {' '.join(str(error).split())[:200]}"
