"""Loads the plugin into stock OpenNMT-py commands.

`opennmt_sd_autoload.pth` (from Python 3.15 the `.start` file of the same name) calls `install` at
the start of every Python in the environment. It puts one finder in front of `sys.meta_path`, which
wakes up for a single module, `onmt.model_builder`, and registers the plugin once that has run.
`OPENNMT_SD_AUTOLOAD=0` turns it off.
"""

# Runs at every start of Python: imports nothing that is not loaded already (see `__init__`).
import os
import sys

TYPE_CHECKING = False  # type checkers take this name for True
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SWITCH = "OPENNMT_SD_AUTOLOAD"
TRIGGER = "onmt.model_builder"


def install() -> None:
    """Arm the autoload, once, unless `OPENNMT_SD_AUTOLOAD=0`. Never raises."""
    if os.environ.get(SWITCH) != "0" and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds `onmt.model_builder` as it would be found without us, with a loader that registers.

    It keeps no state: looking for a spec without importing changes nothing, a reload registers
    again, and threads are held apart by Python's own import locks.
    """

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if fullname != TRIGGER:
            return None
        # Only the finders behind this one: two finders that asked all others would never end.
        finders = sys.meta_path[sys.meta_path.index(self) + 1 :]
        for finder in finders:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[arg-type, assignment]
                return spec
        return None


class _Loader:
    """The real loader in all but one thing: after `exec_module` it registers the plugin."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        # The module shall look as if we had never been there.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        try:
            from opennmt_sd.onmt import register

            register()
        except Exception as fault:  # noqa: BLE001 - whatever it is, `import onmt` goes on
            _warn(fault)


def _warn(fault: Exception) -> None:
    message = (
        "opennmt_sd could not load its plugin into OpenNMT-py "
        f"({type(fault).__name__}: {fault}). OpenNMT-py goes on without it: "
        f"sd_rnn and sd_brnn are not available. {SWITCH}=0 turns the loading off."
    )
    import warnings

    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # warnings are errors here (python -W error); still no fault of onmt's
        print(message, file=sys.stderr)
