"""Which files hold the three texts of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from opennmt_sd.data import SHAKESPEARE
from opennmt_sd.lm.text import CorpusError

SPLITS = ("train", "valid", "test")
PTB_NAME = "ptb.{}.txt"


def files_of(
    path: str | Path | None = None,
    *,
    train: str | Path | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
) -> dict[str, Path]:
    """Return the file of each split: those that are named, or a folder's, or the sample's.

    Args:
        path: a folder with ``ptb.{train,valid,test}.txt`` or ``{train,valid,test}.txt``. Where
            neither it nor a file is given, it is the sample that ships.
        train, valid, test: files, in place of a folder.

    Raises:
        CorpusError: the folder is none.
    """
    named = {"train": train, "valid": valid, "test": test}
    files = {split: Path(file) for split, file in named.items() if file is not None}
    if files:
        return files
    folder = folder_of(SHAKESPEARE if path is None else path)
    of_ptb = in_folder(folder, PTB_NAME)
    return of_ptb if any(file.is_file() for file in of_ptb.values()) else in_folder(folder)


def folder_of(path: str | Path) -> Path:
    """Return a folder. Raises: CorpusError: there is none, or it is a file."""
    folder = Path(path)
    if not folder.exists():
        raise CorpusError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file: name the folder that holds the three texts")
    return folder


def in_folder(folder: Path, name: str = "{}.txt") -> dict[str, Path]:
    """Return the file of each split in a folder, whether it is there or not."""
    return {split: folder / name.format(split) for split in SPLITS}


def is_ptb(files: Mapping[str, Path]) -> bool:
    """Tell whether files are called as the Penn Treebank's."""
    return any(file.name == PTB_NAME.format(split) for split, file in files.items())


def check_there(files: Mapping[str, Path], *, test: bool) -> None:
    """Refuse what lacks a text.

    Args:
        test: whether a test text is needed.

    Raises:
        CorpusError: files are missing.
    """
    needed = SPLITS if test else SPLITS[:2]
    missing = [str(files.get(split, split)) for split in needed
               if split not in files or not files[split].exists()]  # fmt: skip
    if missing:
        raise CorpusError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there: a corpus "
            "is three text files. Name a folder with train.txt, valid.txt and test.txt, or "
            "with PTB's ptb.train.txt, ptb.valid.txt and ptb.test.txt, or all three files; "
            "trainer.test=false does without test"
        )
