"""Loads the plugins into the stock commands of OpenNMT-py and Eole.

The install puts a copy of this file beside the package, and `opennmt_sd_autoload.pth` (from Python
3.15 the `.start` file of the same name) runs its `install` at the start of every Python in the
environment. The copy is run from its own path, so that nothing else on `sys.path` that is called
`opennmt_sd` is touched. It puts one finder in front of `sys.meta_path`, which wakes up for these
two alone, and registers a plugin once the module has run by which it gets in.
`OPENNMT_SD_AUTOLOAD=0` turns it off.
"""

# Runs at every start of Python: imports nothing that is not loaded already.
import os
import sys

TYPE_CHECKING = False  # type checkers take this name for True
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SWITCH = "OPENNMT_SD_AUTOLOAD"


def install() -> None:
    """Arm the autoload, once, unless `OPENNMT_SD_AUTOLOAD=0`. Never raises."""
    if os.environ.get(SWITCH) != "0" and not is_armed():
        sys.meta_path.insert(0, _Finder())


def is_armed() -> bool:
    """Return whether the autoload stands in this process, from whichever copy of this file."""
    return any(getattr(type(finder), "loads_opennmt_sd", False) for finder in sys.meta_path)


def hush() -> None:
    """Silence what OpenNMT-py's modules do that a newer torch will not let them: some 40 lines."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"onmt\.")


class _Finder:
    """Finds the modules in `AFTER` as they would be found without us, with a loader that registers.

    It keeps no state: looking for a spec without importing changes nothing, a reload registers
    again, and threads are held apart by Python's own import locks.
    """

    loads_opennmt_sd = True

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if fullname == "onmt":
            hush()
        if fullname not in AFTER:
            return None
        # Only the finders behind this one: two finders that asked all others would never end.
        finders = sys.meta_path[sys.meta_path.index(self) + 1 :]
        for finder in finders:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, AFTER[fullname])  # type: ignore[arg-type, assignment]
                return spec
        return None


class _Loader:
    """The real loader in all but one thing: after `exec_module` it does something more."""

    def __init__(self, loader: "Loader", then: "Callable[[ModuleType], None]") -> None:
        self._loader = loader
        self._then = then

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
            self._then(module)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the import goes on
            _warn(fault, module.__name__)


def _register_onmt(module: "ModuleType") -> None:  # noqa: ARG001 - as the others
    from opennmt_sd.onmt import register

    register()


def _register_eole(module: "ModuleType") -> None:  # noqa: ARG001 - as the others
    from opennmt_sd.eole import register

    register()


def _load_safely(module: "ModuleType") -> None:
    from opennmt_sd.onmt.loading import load_safely_as_command

    load_safely_as_command(module)


# module: what is done after it has run
AFTER = {
    "onmt.model_builder": _register_onmt,
    # These two load checkpoints by themselves, and are imported after it.
    "onmt.bin.average_models": _load_safely,
    "onmt.bin.release_model": _load_safely,
    "eole.train_single": _register_eole,
}


def _warn(fault: Exception, name: str) -> None:
    other = getattr(sys.modules.get("opennmt_sd"), "__file__", None)
    shadowed = other and not other.endswith("__init__.py")
    toolkit, missing = "OpenNMT-py", "sd_rnn and sd_brnn"
    if name.startswith("eole."):
        toolkit, missing = "Eole", "the sd_* options"
    message = (
        f"opennmt_sd could not load its plugin into {toolkit} "
        f"({type(fault).__name__}: {fault}). {toolkit} goes on without it: "
        f"{missing} are not available. "
        + (f"{other} hides the package: rename that file. " if shadowed else "")
        + f"{SWITCH}=0 turns the loading off."
    )
    import warnings

    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # warnings are errors here (python -W error); still no fault of theirs
        print(message, file=sys.stderr)
