"""`import probmmae` is light, has a frozen list of names, and changes nothing for others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import probmmae

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "Aperture",
    "BandImage",
    "Galaxy",
    "Photometry",
    "Posterior",
    "Spectrum",
    "__version__",
    "load",
    "read",
    "simulate",
]

#: Loaded when used, not before: each costs more than it takes to import torch, or half of it.
HEAVY = {"jax", "numpyro", "matplotlib", "arviz", "specutils", "qp", "galsim", "sklearn"}


def fresh(code: str) -> dict:
    """Run `code` in a new interpreter at the root; what it leaves in `result`, through JSON."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(result))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_public_names_are_frozen():
    assert probmmae.__all__ == PUBLIC
    assert len(PUBLIC) <= 10
    assert set(PUBLIC) <= set(dir(probmmae))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_public_name_is_our_own(name):
    public = getattr(probmmae, name)
    assert callable(public)
    assert public.__module__.startswith("probmmae.")
    assert public.__name__ == name
    assert public.__doc__


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"Expected one of Aperture, .*; got 'galxy'"):
        _ = probmmae.galxy


def test_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from probmmae import *", names)
    assert set(PUBLIC) <= set(names)


def test_import_costs_little_beside_torch():
    """The extra time of `import probmmae` after torch, as a share of torch's own."""
    result = fresh(
        "import time\n"
        "start = time.perf_counter(); import torch\n"
        "middle = time.perf_counter(); import probmmae\n"
        "end = time.perf_counter()\n"
        "result = {'torch': middle - start, 'probmmae': end - middle}"
    )
    assert result["probmmae"] < 0.2 * result["torch"]


def test_import_alone_loads_no_heavy_package():
    result = fresh("import probmmae; result = sorted({m.split('.')[0] for m in sys.modules})")
    assert not (HEAVY | {"torch", "pyro", "astropy"}) & set(result)


def test_every_public_name_together_loads_no_heavy_package():
    result = fresh(
        "import probmmae\n"
        "for name in probmmae.__all__: getattr(probmmae, name)\n"
        "result = sorted({m.split('.')[0] for m in sys.modules})"
    )
    assert not HEAVY & set(result)


@pytest.mark.slow
def test_importing_every_module_changes_nothing_for_others():
    result = fresh(
        "import os, pkgutil, warnings, importlib, numpy, torch, pyro\n"
        "from torch.distributions import Distribution\n"
        "def state(): return [Distribution._validate_args, str(torch.get_default_dtype()),\n"
        "    torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed(),\n"
        "    str(numpy.geterr())]\n"
        "before = state(); environment = dict(os.environ)\n"
        "import probmmae\n"
        "names = [m.name for m in pkgutil.walk_packages(probmmae.__path__, 'probmmae.')\n"
        "    if not m.name.endswith('__main__')]\n"
        "warnings.simplefilter('ignore')\n"
        "for name in names: importlib.import_module(name)\n"
        "ours = [k for k in os.environ if environment.get(k) != os.environ[k]\n"
        "    and k.startswith(('PROBMMAE', 'TORCH', 'PYTORCH', 'OMP', 'JAX', 'MPL', 'CUDA'))]\n"
        "result = {'before': before, 'after': state(), 'environment': ours, 'names': names}"
    )
    assert len(result["names"]) > 3
    assert result["after"] == result["before"]
    assert result["environment"] == []
