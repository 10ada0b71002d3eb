"""The rescue script as a module: it shares no code with streamd and is no module of it."""

import importlib.util
import sys
from types import ModuleType

from streamd import rescue


def load() -> ModuleType:
    """Import the script that is stored in every vault."""
    name = "streamd_rescue_script"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, rescue.script_path())
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
