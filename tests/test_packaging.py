"""Three folders at the root, one installed package: the lists, the links and the wheel agree."""

import fnmatch
import importlib
import pkgutil
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import probmmae

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
DATA = sorted(
    path
    for path in (ROOT / "probmmae" / "data").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)


def folder_of(package: str) -> Path:
    """Where the repository keeps `package`."""
    return ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))


def test_declared_packages_are_the_packages():
    found = [
        module.name
        for module in pkgutil.walk_packages(probmmae.__path__, "probmmae.")
        if module.ispkg
    ]
    assert sorted(SETUPTOOLS["packages"]) == sorted(["probmmae", *found])


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_package_is_the_folder_of_the_repository(package):
    source = importlib.import_module(package).__file__
    assert Path(source).resolve().parent == folder_of(package).resolve()


@pytest.mark.parametrize("name", ["inference", "calibration"])
def test_link_leads_to_the_folder_at_the_root(name):
    link = ROOT / "probmmae" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert (ROOT / name).is_dir()
    assert not (ROOT / name).is_symlink()
    assert not [path for path in (ROOT / name).iterdir() if (path / "__init__.py").exists()]


def test_every_data_file_is_declared():
    patterns = SETUPTOOLS["package-data"]["probmmae"]
    names = [path.relative_to(ROOT / "probmmae").as_posix() for path in DATA]
    assert names
    assert not [n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in patterns)]


def test_the_version_is_stated_once():
    """The citation is the one file that cannot look it up."""
    assert f"\nversion: {probmmae.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert "version" in PROJECT["project"]["dynamic"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing stale in the repository gets in."""
    source = tmp_path_factory.mktemp("source")
    for name in ["pyproject.toml", "LICENSE", "README.md"]:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    for name in ["probmmae", "inference", "calibration"]:
        shutil.copytree(
            ROOT / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.tmp"),
        )
    done = subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import *; build_wheel('dist')"],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_repository_and_nothing_else(wheel):
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package in SETUPTOOLS["packages"]
        for path in folder_of(package).glob("*.py")
    }
    recipes = (ROOT / "probmmae" / "recipes").glob("*.toml")
    carried = [*DATA, *recipes, ROOT / "probmmae" / "py.typed"]
    expected |= {path.relative_to(ROOT).as_posix() for path in carried}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (top_level,) = [n for n in archive.namelist() if n.endswith("top_level.txt")]
        assert archive.read(top_level).decode().split() == ["probmmae"]
        (entry,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        assert "probmmae = probmmae.cli:app" in archive.read(entry).decode()
    assert names == expected
    assert "probmmae/data/templates.npz" in names


@pytest.mark.slow
def test_wheel_carries_readme_and_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        described = archive.read(metadata).decode()
        (licence,) = [n for n in archive.namelist() if n.endswith("/licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert (ROOT / "README.md").read_text().strip() in described


@pytest.mark.slow
def test_wheel_works_elsewhere(wheel, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib, pathlib, pkgutil, probmmae\n"
        "names = [m.name for m in pkgutil.walk_packages(probmmae.__path__, 'probmmae.')]\n"
        "for name in ['probmmae', *(n for n in names if not n.endswith('__main__'))]:\n"
        "    file = pathlib.Path(importlib.import_module(name).__file__)\n"
        "    assert file.is_relative_to(sys.argv[1]), file\n"
        "from probmmae.templates import load_templates\n"
        "load_templates()\n"
        "if next(pathlib.Path(probmmae.__file__).parent.glob('data/*.safetensors'), None):\n"
        "    probmmae.load()\n"
        "print(len(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(target)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    sources = [p for p in SETUPTOOLS["packages"] for _ in folder_of(p).glob("*.py")]
    assert int(done.stdout) == len(sources) - 1
