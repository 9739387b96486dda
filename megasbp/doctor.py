"""`megasbp doctor`: what this installation has, what it lacks, and the mend for each problem."""

import importlib
import shutil
import sys
import sysconfig
import tomllib
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

import megasbp
from megasbp.shards.machine import usable_cores

_PACKAGE = Path(megasbp.__file__).resolve().parent
_BUILD = f"in {_PACKAGE.parent} run: python setup.py build_ext --inplace (or: pip install -e .)"
_LEAST_FREE_BYTES = 2 * 10**9
# bf16 matrix products need Ampere.
_LEAST_CAPABILITY = (8, 0)


class _Findings:
    """Prints facts as they are found and counts the problems."""

    def __init__(self) -> None:
        self.problems = 0

    def fact(self, name: str, value: str) -> None:
        print(f"  {name:<24} {value}")

    def problem(self, name: str, value: str, mend: str) -> None:
        self.problems += 1
        print(f"! {name:<24} {value}; {mend}")


def doctor() -> int:
    """Prints versions, the C++ extension, the kernels, GPUs, attention, CPU threads and free disk.

    Returns:
        0 when a recipe can run here, 1 when there is a problem; each problem's line starts with "!" and ends
        with its mend. What is merely absent (no GPU, an optional extra) is no problem.
    """
    findings = _Findings()
    print(f"megasbp {megasbp.__version__} at {_PACKAGE}")
    _check_python(findings)
    _check_packages(findings)
    _check_extension(findings)
    _check_kernels(findings)
    findings.fact("synthesis", f"own engine; vllm {_version('vllm')}")
    torch = _load_torch(findings)
    if torch is not None:
        _check_gpus(findings, torch)
        if findings.problems == 0:
            _name_attention(findings, torch)
        _check_threads(findings, torch)
    _check_disk(findings, Path.cwd())
    print("no problem found" if findings.problems == 0 else f"problems: {findings.problems}")
    return 1 if findings.problems else 0


def _check_python(findings: _Findings) -> None:
    version = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info[:2] in {(3, 11), (3, 12)}:
        findings.fact("python", version)
    else:
        findings.problem("python", version, "use 3.11 or 3.12")


def _requirements() -> list[Requirement]:
    """Of the installed package, or of the clone that is run without being installed."""
    try:
        return [Requirement(text) for text in metadata.requires("megasbp") or []]
    except metadata.PackageNotFoundError:
        pass
    file = _PACKAGE.parent / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}
    requirements = [Requirement(text) for text in project.get("dependencies", [])]
    for extra, texts in project.get("optional-dependencies", {}).items():
        for text in texts:
            package, _, marker = text.partition(";")
            other = f"({marker.strip()}) and " if marker else ""
            requirements.append(Requirement(f'{package}; {other}extra == "{extra}"'))
    return requirements


def _check_packages(findings: _Findings) -> None:
    absent: dict[str, list[str]] = {}
    for requirement in _requirements():
        extra = _extra(requirement)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if extra is None:
                findings.problem(requirement.name, "missing", f"pip install '{_bare(requirement)}'")
            else:
                absent.setdefault(extra, []).append(requirement.name)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            findings.fact(requirement.name, version)
        else:
            findings.problem(requirement.name, version, f"pip install '{_bare(requirement)}'")
    for extra, names in absent.items():
        findings.fact(f"extra [{extra}]", f"without {', '.join(names)}")


def _extra(requirement: Requirement) -> str | None:
    """The extra that a requirement belongs to: its marker reads `extra == "NAME"`."""
    return str(requirement.marker).split('"')[-2] if requirement.marker else None


def _bare(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _check_extension(findings: _Findings) -> None:
    # Kernels first: theirs needs nothing of ours, and torch's OpenMP library must be there before it.
    for module in ("torch", "megasbp.kernels._cpu"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            findings.problem("C++ kernels of a CPU", f"{module} does not load ({error})", _BUILD)
            break
    name = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    try:
        extension = importlib.import_module("megasbp._C")
    except ImportError as error:
        others = sorted(path.name for path in _PACKAGE.glob("_C.*") if path.name != name)
        state = f"does not load ({error})" if (_PACKAGE / name).is_file() else f"no {name}"
        state += f", only {', '.join(others)} of another Python" if others else ""
        findings.problem("C++ extension", state, _BUILD)
        return
    compiler = getattr(extension, "compiler", None)
    if compiler is None:
        findings.problem("C++ extension", f"{extension.__file__} is of an older version", _BUILD)
    else:
        # __VERSION__ of GCC is a bare number; clang's names itself.
        named = f"GCC {compiler}" if compiler[:1].isdigit() else compiler
        findings.fact("C++ extension", f"{extension.__file__}, compiled by {named}")


def _check_kernels(findings: _Findings) -> None:
    names, on_gpus = (
        sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "launch"))
        for folder in (_PACKAGE / "kernels", _PACKAGE / "kernels" / "gpu")
    )
    if not names:
        mend = "the clone's symlink megasbp/kernels is broken: git checkout megasbp/kernels"
        findings.problem("kernels", "none", mend)
        return
    findings.fact("kernels", f"PyTorch on every device: {', '.join(names)}")
    findings.fact("triton", f"{_version('triton')}; on a GPU it computes: {', '.join(on_gpus)}")


def _version(package: str) -> str:
    """Of a package whose module has the same name; "not installed" without it."""
    return metadata.version(package) if util.find_spec(package) else "not installed"


def _load_torch(findings: _Findings) -> ModuleType | None:
    """torch, imported here because its absence is one of the things to report."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        findings.problem("torch", f"does not import ({error})", "pip install --force-reinstall torch")
        return None


def _check_gpus(findings: _Findings, torch: ModuleType) -> None:
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists() and torch.version.cuda is None:
            mend = "install a CUDA build (pip install torch, without the CPU index)"
            findings.problem("GPU", f"torch {torch.__version__} is a CPU build", mend)
        elif Path("/dev/nvidia0").exists():
            mend = "compare the driver's CUDA version in nvidia-smi, and CUDA_VISIBLE_DEVICES"
            findings.problem("GPU", f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees none", mend)
        else:
            findings.fact("GPU", "none; everything runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        text = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, sm_{capability[0]}{capability[1]}"
        )
        if capability < _LEAST_CAPABILITY:
            findings.problem(f"GPU {index}", text, "no bf16 there: set training.precision=fp32")
        else:
            findings.fact(f"GPU {index}", text)


def _name_attention(findings: _Findings, torch: ModuleType) -> None:
    """What computes attention of usual heads in training, by `training.attention = "auto"`."""
    choose = importlib.import_module("megasbp.kernels.attention_backend").choose
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q = torch.empty(0, 1, 1, 128, dtype=torch.bfloat16, device=device)
    backend, reason = choose("auto", q, q, q, segmented=True)
    findings.fact("attention", f"{backend} ({reason})")


def _check_threads(findings: _Findings, torch: ModuleType) -> None:
    cores, threads = usable_cores(), torch.get_num_threads()
    text = f"{cores} cores, torch uses {threads} threads"
    if threads > cores:
        findings.problem("CPU", text, f"set OMP_NUM_THREADS={cores}")
    else:
        findings.fact("CPU", text)


def _check_disk(findings: _Findings, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free at {folder}"
    if free < _LEAST_FREE_BYTES:
        findings.problem("disk", text, "free some, or set runs to a folder on another disk in the recipe")
    else:
        findings.fact("disk", text)
