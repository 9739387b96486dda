"""Rules that no linter checks: sizes, no pickle, no paths of one machine, documents that tell the truth."""

import ast
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pydantic import BaseModel

from megasbp.cli import main
from megasbp.experiment.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
# Resolved, because megasbp/kernels is a link to kernels/.
CODE = sorted(
    {path.resolve() for top in ("megasbp", "kernels", "tools") for path in (ROOT / top).rglob("*.py")}
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Modules that read or write pickles; torch.load and torch.save do too.
PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pickling(source: str) -> list[str]:
    """What a module does that reads or writes pickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLING]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module.split(".")[0] in PICKLING else []
            found += [
                f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in PICKLING_CALLS
            ]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in PICKLING_CALLS:
            found.append(ast.unparse(node))
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "import torch\ntorch.load('x')",
        "from torch import save",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
    ],
)
def test_the_search_for_pickle_finds_it(source):
    assert pickling(source)


def test_nothing_reads_or_writes_pickles():
    offenders = {str(path.relative_to(ROOT)): found for path in CODE if (found := pickling(path.read_text()))}
    assert offenders == {}


def test_no_source_file_is_longer_than_500_lines():
    sources = [path for path in tracked_files() if path.suffix in {".py", ".cpp", ".h"}]
    long = {
        str(path.relative_to(ROOT)): n for path in sources if (n := len(path.read_text().splitlines())) > 500
    }
    assert long == {}


def test_no_tracked_file_names_a_path_of_one_machine():
    # The start of an absolute path in a user's or a workplace's folder; URLs and relative paths have none.
    pattern = re.compile(r"(?<![\w./:~-])/(home|root|Users|work|opt|tmp|mnt)/[\w.]")
    texts = {".py", ".cpp", ".h", ".md", ".toml", ".txt", ".cff", ""}
    offenders = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.suffix in texts and path.name != "LICENSE"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert offenders == []


def test_no_two_modules_of_the_tests_have_one_name():
    """Imported by bare names: pytest refuses the second `test_x.py`, a helper would be the wrong one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_every_package_says_what_it_is():
    packages = [path for path in CODE if path.name == "__init__.py"]
    silent = [
        str(path.relative_to(ROOT)) for path in packages if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert len(packages) > 10 and silent == []


def test_every_folder_of_the_package_is_a_package():
    folders = {path.parent for path in CODE if path.parent.is_relative_to(ROOT / "megasbp")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_documented_verbs_exist():
    pattern = re.compile(r"(?:`|^ *|-m )megasbp ([a-z]+)", re.MULTILINE)
    verbs = {verb for page in PAGES for verb in pattern.findall(page.read_text(encoding="utf-8"))}

    statuses = {}
    for verb in verbs:
        with pytest.raises(SystemExit) as exit:
            main([verb, "--help"])
        statuses[verb] = exit.value.code

    assert verbs >= {"run", "stage", "plan", "train", "report", "clean", "doctor"}
    assert [verb for verb, status in statuses.items() if status != 0] == []


def test_documented_settings_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    settings = set(re.findall(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)+)=", text)) - {"section.key"}
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        for section, values in tomllib.loads(block).items():
            settings |= {f"{section}.{key}" for key in values} if isinstance(values, dict) else {section}

    assert len(settings) > 3
    assert sorted(setting for setting in settings if not is_setting(setting)) == []


def is_setting(name: str) -> bool:
    """Whether a recipe has this setting, e.g. "training.micro_batch"."""
    model = Recipe
    for part in name.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields):
            return False
        model = model.model_fields[part].annotation
    return True
