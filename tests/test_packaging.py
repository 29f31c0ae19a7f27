"""What a stranger installs: the two archives, what is in them, and the README's test in an environment of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

COMPANION = Path(__file__).parents[1] / "companion"
MODULES = {path.relative_to(COMPANION / "src").as_posix() for path in (COMPANION / "src/attnmask").rglob("*.py")}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    place = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", COMPANION, "--outdir", place)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def environment(archives, tmp_path_factory):
    """An empty environment with the wheel in it; what the wheel needs is lent by this one, our own source is not."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    variables = {"base": str(place), "platbase": str(place)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=variables))
    python = Path(sysconfig.get_path("scripts", scheme="venv", vars=variables)) / Path(sys.executable).name
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", archives[1])
    assert done.returncode == 0, done.stdout + done.stderr
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python, site


def test_the_archives_are_fit_for_the_index(archives):
    done = run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(archives):
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == MODULES | {"attnmask/py.typed", "attnmask/_audit/README.md", "attnmask/_invariance/README.md"}
        rest = {name.split("/", 1)[1] for name in set(wheel.namelist()) - names}
    assert rest == {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE"}


def test_the_source_archive_holds_what_a_wheel_is_made_of(archives):
    with tarfile.open(archives[0]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames()}
    package = {
        f"src/{name}"
        for name in MODULES | {"attnmask/py.typed", "attnmask/_audit/README.md", "attnmask/_invariance/README.md"}
    }
    assert names - {".gitignore"} == package | {"README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml"}


def test_the_installed_package_is_the_one_from_the_wheel(environment, tmp_path):
    python, site = environment
    code = "import attnmask, importlib.metadata as m; print(attnmask.__file__, m.version('attnmask'))"
    done = run(python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path, version = done.stdout.split()
    assert Path(path).resolve().is_relative_to(site.resolve())
    assert version == "0.1.0"


@pytest.mark.parametrize("obeys", [True, False])
def test_a_strangers_test_passes_and_fails_as_the_readme_says(environment, tmp_path, obeys):
    readme = (COMPANION / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n# (test_\w+\.py)\n(.*?)```", readme, re.DOTALL)
    message = re.search(r"```text\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    text = example[2] if obeys else example[2].replace("mask_it=True", "mask_it=False")
    (tmp_path / example[1]).write_text(text, encoding="utf-8")
    done = run(environment[0], "-m", "pytest", "-q", "-p", "no:cacheprovider", example[1], cwd=tmp_path)
    assert done.returncode == (0 if obeys else 1), done.stdout + done.stderr
    shown = [line.removeprefix("E").strip() for line in done.stdout.splitlines() if line.startswith("E")]
    expected = [line.strip() for line in message]
    assert [line.removeprefix("AssertionError: ") for line in shown][: len(expected)] == (expected if not obeys else [])
