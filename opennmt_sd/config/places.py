"""Where a run's data lie: a folder, three files, or the sample that ships.

A data group names by ``???`` what it needs: ``path`` (``data=ptb``), or ``path`` and the files,
where one of both ways is enough (``data=text``, ``data=conll``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from opennmt_sd.config.checks import Checks

FILES = ("train", "valid", "test")
PLACES = ("data.path", *(f"data.{name}" for name in FILES))

THREE = (
    "a folder with train.txt, valid.txt and test.txt; or name three files: data.train=... "
    "data.valid=... data.test=..."
)
# What a data group reads, where nothing is given.
WANTED = {
    "ptb": (
        "a folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt (`python "
        "scripts/prepare_ptb.py --help` says how to get them). For another text say "
        "data=shakespeare, which ships, or data=text with files of your own"
    ),
    "conll2003": (
        "a folder with eng.train, eng.testa and eng.testb (`python scripts/prepare_conll.py "
        "--help` says how to get them). For other data say data=wnut17, which ship, or data=conll "
        "with files of your own"
    ),
    "text": THREE,
    "conll": THREE,
}


def settled(data: DictConfig) -> DictConfig:
    """Return the same; where a folder or a file is given, places that are ``???`` become null."""
    data = data.copy()
    names = ("path", *FILES)
    missing = [name for name in names if OmegaConf.is_missing(data, name)]
    if any(data[name] is not None for name in names if name not in missing):
        for name in missing:
            data[name] = None
    return data


def check_places(
    checks: Checks, optional: Sequence[str] = (), remedies: Mapping[str, str] | None = None
) -> None:
    """Refuse data that are not there.

    Args:
        optional: names of the files that may be left out.
        remedies: what else serves where a file is missing, by its name.
    """
    remedies = remedies or {}
    missing = checks.take_missing(PLACES)
    if "data.path" in missing:  # and no file is given
        group = str(HydraConfig.get().runtime.choices.get("data"))
        wanted = f", {WANTED[group]}" if group in WANTED else ""
        checks.faults.append(f"data.path: missing; give it a value: data.path=...{wanted}")
        return
    path = checks.value("data.path")
    given = any(checks.value(f"data.{name}") is not None for name in FILES)
    if path is not None and given:
        checks.fault("data.path", "contradicts data.train, data.valid, data.test: give one of both")
    elif path is not None and not (path and Path(path).is_dir()):
        is_file = bool(path) and Path(path).is_file()
        checks.fault("data.path", "is a file: name the folder that holds the data, or the files"
                     if is_file else "there is no such folder")  # fmt: skip
    for name in FILES:
        file, key = checks.value(f"data.{name}"), f"data.{name}"
        if file is None:
            if given and name not in optional:
                remedy = f", or {remedies[name]}" if name in remedies else ""
                checks.fault(key, f"missing: three files, or a folder with data.path{remedy}")
        elif Path(file).is_dir():
            checks.fault(key, "is a folder: name a file, or the folder of all with data.path")
        elif not Path(file).exists():
            checks.fault(key, "there is no such file")
        elif not Path(file).is_file():
            checks.fault(key, "is no ordinary file, and it is read more than once")


def check_training_places(checks: Checks) -> None:
    """Refuse data that are not there, of a training: without trainer.test it needs no test data."""
    optional = () if checks.value("trainer.test") else ("test",)
    check_places(checks, optional, {"test": "trainer.test=false, which does without it"})


def given_data() -> list[str]:
    """Return the keys below ``data`` that the command line gives."""
    keys = {word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task}
    if "data" in keys:  # a group says where, all of it
        keys |= set(PLACES)
    return [key.removeprefix("data.") for key in sorted(keys) if key.startswith("data.")]


def overridden(data: DictConfig, before: DictConfig) -> DictConfig:
    """Return a checkpoint's data with what the command line gives in their place, unchecked.

    Args:
        data: of this run; its paths are absolute.
        before: of the checkpoint's training.
    """
    merged, given = before.copy(), given_data()
    for key in given:
        if not OmegaConf.is_missing(data, key):
            OmegaConf.update(merged, key, OmegaConf.select(data, key), force_add=True)
    # A folder takes the place of three files, and they that of a folder.
    replaced = FILES if "path" in given else ("path",) if set(FILES) & set(given) else ()
    for name in replaced:
        if name not in given:
            merged[name] = None
    return merged


def split_given(data: DictConfig, before: DictConfig, split: str) -> DictConfig:
    """Return a checkpoint's data for one split, but for what the command line gives in their place.

    Files of the other splits are null, if they are not given now: nothing reads them.

    Raises:
        ConfigError: the places that result do not hold the split.
    """
    checks = Checks(OmegaConf.create({"data": overridden(data, before)}))
    found, given = checks.cfg.data, given_data()
    lacks = all(checks.value(f"data.{name}") is None for name in ("path", split))
    if lacks and any(checks.value(f"data.{name}") is not None for name in FILES):
        checks.fault(f"data.{split}", "missing: name the file, or its folder with data.path")
    for name in FILES:
        if name not in (split, *given):
            found[name] = None
    check_places(checks, FILES)
    checks.finish()
    return found
