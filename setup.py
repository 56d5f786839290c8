"""Lists the packages of the wheel. All other facts are in pyproject.toml."""

from setuptools import find_namespace_packages, setup

# `packages.find` of pyproject.toml cannot add the folder `configs`, which is not inside of the package here.
setup(packages=[*find_namespace_packages(include=["hap_jax*"]), "hap_jax.configs"])
