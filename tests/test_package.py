"""The built wheel and sdist, used without the source folder beside them.

The wheel is built and installed for real, into a separate environment that finds the
libraries of the running one through a path file. A framework's absence is played by an import
hook that refuses its modules, since installing torch anew for each case would take minutes;
what an environment without the framework raises at the same import is the same error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (REPOSITORY / "pyproject.toml").is_file() or find_spec("setuptools") is None,
        reason="needs the repository and setuptools to build from",
    ),
]

LANGCHAIN = ("langchain_core", "langchain", "langchain_classic", "langchain_community")
LLAMA_INDEX = ("llama_index",)


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command with no way back to the source folder, and gives what it said."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is in the repository."""
    source = tmp_path_factory.mktemp("source")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "rerank_plugins", source / "rerank_plugins", ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    run(
        sys.executable,
        *("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--quiet", "--wheel-dir", "dist"),
        cwd=source,
    )
    (built,) = (source / "dist").glob("rerank_plugins-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and the libraries of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    interpreter = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(
        sys.executable,
        *("-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", "--quiet"),
        wheel,
        cwd=home,
    )
    variables = {"base": str(home), "platbase": str(home)}
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    own = Path(sysconfig.get_path("purelib", scheme, variables))
    # Lines of a path file that is found through another are not read, so an editable install
    # of the source folder stays out of sight.
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a copy of what git tracks or would add."""
    if find_spec("build") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs build, and the repository with its history")
    source = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", "dist", cwd=source)
    (built,) = (source / "dist").glob("rerank_plugins-*.tar.gz")
    return built


def tracked() -> list[str]:
    """Files of the repository, those that are new and not ignored among them."""
    listed = run(
        *("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"), cwd=REPOSITORY
    ).stdout.split("\0")
    return [name for name in listed if name and (REPOSITORY / name).is_file()]


def without(*missing: str) -> str:
    """Code that makes libraries look as if they were not installed."""
    return (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )


RERANK = (
    "from rerank_plugins import Reranker\n"
    "from rerank_plugins.testing import OverlapScorer\n"
    "print(Reranker(OverlapScorer()).rerank('museum', ['a bus', 'a museum']).keys)\n"
)


def refusal(module: str) -> str:
    """Code that says how importing a module is refused."""
    return (
        "from rerank_plugins.errors import MissingDependencyError\n"
        "try:\n"
        f"    import {module}\n"
        "except MissingDependencyError as error:\n"
        "    print(isinstance(error, ImportError), error)\n"
    )


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    """Weights, samples, py.typed and licence go along; tests do not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        file.relative_to(REPOSITORY).as_posix()
        for file in (REPOSITORY / "rerank_plugins").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_stays_below_80_megabytes(wheel: Path) -> None:
    """With all three bundled models in it."""
    assert wheel.stat().st_size < 80e6


def test_the_sdist_holds_every_file_of_the_repository(sdist: Path) -> None:
    """Whoever packages it for a distribution finds tests, docs, examples and notebooks."""
    with tarfile.open(sdist) as archive:
        files = {Path(one.name) for one in archive.getmembers() if one.isfile()}
    packed = {Path(*name.parts[1:]).as_posix() for name in files}
    assert set(tracked()) - packed == set()
    made = {"PKG-INFO", "setup.cfg"}
    extra = packed - set(tracked()) - made
    assert all(name.startswith("rerank_plugins.egg-info/") for name in extra), extra


def test_tests_run_from_the_unpacked_sdist(sdist: Path, tmp_path: Path) -> None:
    """Some of each kind of folder pass: conftests and helpers are there."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    passed = run(
        *(sys.executable, "-m", "pytest", "-p", "no:xdist"),
        *("tests/test_candidates.py", "tests/first_stage/test_bm25_engines.py"),
        "tests/evaluation/test_evaluation_data.py",
        cwd=unpacked,
    ).stdout
    assert re.search(r"\d+ passed", passed)
    assert "skipped" not in passed


def test_the_package_index_would_take_wheel_and_sdist(wheel: Path, sdist: Path) -> None:
    """Metadata and long description are valid, without a warning."""
    if find_spec("twine") is None:
        pytest.skip("twine is not installed")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=wheel.parent)


def test_the_installed_package_is_not_the_source_folder(python: Path, tmp_path: Path) -> None:
    """What the other tests here import is the wheel; its version is the distribution's."""
    code = (
        "import rerank_plugins, importlib.metadata as m;"
        "print(rerank_plugins.__file__); print(rerank_plugins.__version__);"
        "print(m.version('rerank-plugins'))"
    )
    place, version, distribution = run(python, "-c", code, cwd=tmp_path).stdout.split()
    assert Path(place).is_relative_to(python.parents[1])
    assert version == distribution


def test_the_core_s_tests_pass_on_the_installed_wheel(python: Path, tmp_path: Path) -> None:
    """Without the source folder: records, order, reranker, rules of the house, the texts."""
    shutil.copytree(
        REPOSITORY / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    tests = ("candidates", "ordering", "errors", "catalog", "reranker", "samples")
    result = run(
        *(python, "-m", "pytest", "-v"),
        *(f"tests/test_{name}.py" for name in tests),
        cwd=tmp_path,
    )
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout


def test_the_command_is_installed(python: Path, tmp_path: Path) -> None:
    """``rerank-plugins models`` prints the catalog."""
    result = run(python.with_name("rerank-plugins"), "models", cwd=tmp_path)
    assert "BAAI/bge-reranker-large" in result.stdout


def test_a_bare_install_reranks_and_names_what_each_adapter_needs(
    python: Path, tmp_path: Path
) -> None:
    """No framework: the core works, and each adapter's error has the line to type."""
    code = (
        without(*LANGCHAIN, *LLAMA_INDEX)
        + RERANK
        + refusal("rerank_plugins.langchain")
        + refusal("rerank_plugins.llama_index")
    )
    ranked, langchain, llama_index = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert ranked == "[1, 0]"
    assert langchain.startswith("True ")
    assert "pip install 'rerank-plugins[langchain]'" in langchain
    assert llama_index.startswith("True ")
    assert "pip install 'rerank-plugins[llama-index]'" in llama_index


@pytest.mark.parametrize(
    ("absent", "present", "extra"),
    [
        (LLAMA_INDEX, "langchain", "llama-index"),
        (LANGCHAIN, "llama_index", "langchain"),
    ],
    ids=["only LangChain", "only LlamaIndex"],
)
def test_with_one_framework_its_adapter_imports_and_the_other_is_refused(
    python: Path, tmp_path: Path, absent: tuple[str, ...], present: str, extra: str
) -> None:
    """Neither adapter needs the other's framework."""
    other = extra.replace("-", "_")
    code = (
        without(*absent)
        + f"import rerank_plugins.{present} as adapter\n"
        + "print(len(adapter.__all__) > 3)\n"
        + refusal(f"rerank_plugins.{other}")
    )
    imported, refused = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert imported == "True"
    assert f"pip install 'rerank-plugins[{extra}]'" in refused
