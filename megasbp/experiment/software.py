"""What the results were made with, beside results.json: equal results of two versions stay equal."""

import platform
from importlib import metadata
from pathlib import Path

from megasbp.storage import publish_json

SOFTWARE_NAME = "software.json"
_PACKAGES = ("megasbp", "torch", "triton", "numpy", "scipy", "tokenizers")


def publish_software(folder: Path) -> None:
    """Writes software.json: name -> version, of the process that put the results together."""
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    publish_json(Path(folder) / SOFTWARE_NAME, versions)
