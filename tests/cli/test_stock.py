"""Running a stock command: what is printed, logged, shown, and how it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from opennmt_sd.cli import stock


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a Python text as the command `onmt_x`."""

    def install(text: str) -> None:
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        (bin_ / "onmt_x").write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        (bin_ / "onmt_x").chmod(0o755)
        monkeypatch.setattr(stock, "find", lambda name: bin_ / name)

    return install


def test_it_prints_logs_and_shows(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command("import sys; print('größer', *sys.argv[1:]); print('err', file=sys.stderr)")
    shown: list[str] = []
    for _ in range(2):
        log = tmp_path / "x.log"
        stock.run("onmt_x", "-src", tmp_path / "a b", log=log, show=shown.append)
    assert capsys.readouterr().out == "$ bin/onmt_x -src 'a b'\n" * 2
    line = f"größer -src {tmp_path}/a b"
    assert shown == [line, "err"] * 2
    assert log.read_text(encoding="utf-8") == f"$ bin/onmt_x -src 'a b'\n{line}\nerr\n" * 2


def test_a_failure_shows_code_last_lines_and_log(command, tmp_path: Path) -> None:
    command("for n in range(100): print('line', n)\nraise SystemExit(7)")
    log = tmp_path / "x.log"
    with pytest.raises(stock.CommandError) as failed:
        stock.run("onmt_x", log=log, show=lambda line: None)
    assert failed.value.code == 7
    last = "".join(f"\n    line {n}" for n in range(85, 100))
    assert str(failed.value) == (
        f"onmt_x failed with exit code 7. Its last lines:{last}\nAll of its output: {log}"
    )
    assert len(log.read_text(encoding="utf-8").splitlines()) == 101


def test_a_killed_command(command, tmp_path: Path) -> None:
    command("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(stock.CommandError, match=r"was ended by signal 9 \(out of memory\?\)") as e:
        stock.run("onmt_x", log=tmp_path / "x.log", show=lambda line: None)
    assert e.value.code == 137


def test_an_interrupt_leaves_no_command_behind(command, tmp_path: Path) -> None:
    command("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stock.run("onmt_x", log=tmp_path / "x.log", show=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_missing_command_is_refused() -> None:
    with pytest.raises(stock.CommandError, match=r"onmt_nothing is not in .*same environment") as e:
        stock.find("onmt_nothing")
    assert e.value.code == 127


def test_many_cores_are_not_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, expected in ((2, {}), (64, {"OMP_NUM_THREADS": "4"})):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert stock._thread_limit() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    assert stock._thread_limit() == {}


REPORT = (
    "[2026-01-02 03:04:05,678 INFO] Step {step}/  750; acc: 42.2; ppl:  28.3; xent: 3.3;"
    " lr: 0.00200; sents:    1600; bsz:  494/ 574/64; 1891/2198 tok/s;     {seconds} sec;"
)


def test_progress_in_a_plain_log(capsys: pytest.CaptureFixture[str]) -> None:
    progress = stock.Progress(start=150)
    for line in (
        "[2026-01-02 03:04:05,678 INFO] opennmt_sd: dropout 0.3; engine portable",
        "[2026-01-02 03:04:05,678 INFO] NMTModel(",
        "/x/opennmt_sd/ops/__init__.py:79: RuntimeWarning: opennmt_sd runs slowly",
        REPORT.format(step=300, seconds=90),
        "[2026-01-02 03:04:05,678 INFO] Validation perplexity: 6.5",
        REPORT.format(step=750, seconds=360),
    ):
        progress(line)
    progress.close()
    assert capsys.readouterr().out == (
        "  opennmt_sd: dropout 0.3; engine portable\n"
        "  opennmt_sd runs slowly\n"
        "   300/750  perplexity   28.3  accuracy 42.2 %  4:30 left\n"
        "  Validation perplexity: 6.5\n"
        "   750/750  perplexity   28.3  accuracy 42.2 %  6:00\n"
    )


def test_progress_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = stock.Progress()
    progress(REPORT.format(step=375, seconds=60))
    progress("[2026-01-02 03:04:05,678 INFO] Validation perplexity: 6.5")
    progress(REPORT.format(step=750, seconds=120))
    progress.close()
    progress.close()
    bar, end = "\r\x1b[K  [", "  perplexity   28.3  accuracy 42.2 %"
    assert capsys.readouterr().out == (
        f"{bar}##########..........]  375/750{end}  1:00 left\n"
        "  Validation perplexity: 6.5\n"
        f"{bar}####################]  750/750{end}  2:00\n"
    )
