# The C++ extension is not typed; its Python wrappers are.
from typing import Any

def __getattr__(name: str) -> Any: ...
