"""scripts/results.py: the runs of a plan, their rows and their tables"""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import yaml

LoadScript = Callable[[str], ModuleType]
ENDS = (signal.SIGTERM, signal.SIGINT)
PLAN = """
command: >-
  echo {seed} {setting} >> ran; mkdir {folder}/model;
  echo "score 99, threads $OMP_NUM_THREADS"; echo "score $(({seed} * {seed} {setting}))"
update: 7
seeds: [1, 2, 4]
settings: {plain: + 0, ours: + 10}
scores: {valid: 'score (\\d+)'}
threads: 3
"""


@pytest.fixture
def results(load_script: LoadScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)
    return load_script("results")


def rows() -> list[dict[str, str]]:
    with Path("plan.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ran() -> list[str]:
    return Path("ran").read_text().split("\n")[:-1]


def test_a_row_a_run(results: ModuleType) -> None:
    assert results.main(["plan.yaml", "--run"]) == 0
    assert ran() == ["1 + 0", "1 + 10", "2 + 0", "2 + 10", "4 + 0", "4 + 10"]  # pairs first
    assert [(row["setting"], row["seed"], row["valid"]) for row in rows()] == [
        ("plain", "1", "1"), ("ours", "1", "11"), ("plain", "2", "4"), ("ours", "2", "14"),
        ("plain", "4", "16"), ("ours", "4", "26"),
    ]  # fmt: skip
    row = rows()[0]
    assert list(row) == [
        "setting", "seed", "commit", "device", "threads", "update", "valid", "processor_seconds",
        "seconds", "command",
    ]  # fmt: skip
    assert [row[name] for name in ("device", "threads", "update", "seconds")] == [
        "cpu", "3", "7", "0",
    ]  # fmt: skip
    assert row["command"].startswith("echo 1 + 0 >> ran; mkdir FOLDER/model;")
    log = Path("runs/plan/plain.1.log").read_text()
    assert log == "score 99, threads 3\nscore 1\n"


def test_the_commit_of_a_run(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of earlier runs are no change of what runs; none of it is a file beside them."""
    root = tmp_path / "checkout"
    monkeypatch.setattr(results.opennmt_sd, "__file__", str(root / "package" / "__init__.py"))
    for folder in ("package", "results"):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").write_text("")
    (root / "results" / "plan.csv").write_text("")
    assert results._commit() == "", "outside git"
    for words in ("init -q", "add .", "-c user.name=A -c user.email=a@b.c commit -qm one"):
        subprocess.run(["git", "-C", str(root), *words.split()], check=True)
    commit = results._commit()
    assert len(commit) == 10
    (root / "results" / "plan.csv").write_text("a row")
    (root / "package" / "notes").write_text("of nobody")
    assert results._commit() == commit
    for folder in ("package", "results"):
        (root / folder / "__init__.py").write_text("changed")
        assert results._commit() == f"{commit}-dirty"
        (root / folder / "__init__.py").write_text("")


def test_what_has_a_row_is_not_run_again(results: ModuleType) -> None:
    assert results.main(["plan.yaml", "--run", "--seeds", "2", "--settings", "ours"]) == 0
    assert ran() == ["2 + 10"]
    assert results.main(["plan.yaml", "--run", "--seeds", "2", "1"]) == 0
    assert ran() == ["2 + 10", "2 + 0", "1 + 0", "1 + 10"]
    assert [(row["seed"], row["setting"]) for row in rows()] == [
        ("1", "plain"), ("1", "ours"), ("2", "plain"), ("2", "ours"),
    ]  # fmt: skip


def test_several_at_a_time(results: ModuleType) -> None:
    """Each waits for the other, so that both end only where both run at once."""
    meet = "touch {seed}; for i in {{1..200}}; do test -e 1 -a -e 2 && break; sleep 0.05; done; "
    Path("plan.yaml").write_text(
        PLAN.replace("mkdir", f"{meet} test -e 1 -a -e 2 || exit 6; mkdir")
    )
    given = ["plan.yaml", "--run", "--jobs", "2", "--seeds", "1", "2", "--settings", "plain"]
    assert results.main(given) == 0
    assert [(row["seed"], row["valid"]) for row in rows()] == [("1", "1"), ("2", "4")]


def test_the_processor_seconds_are_of_the_run_alone(results: ModuleType) -> None:
    spin = "python -c 'import time; all(iter(lambda: time.process_time() < 0.7, False))'"
    Path("plan.yaml").write_text(PLAN.replace("mkdir", f"test {{seed}} = 1 && {spin}; mkdir"))
    given = ["plan.yaml", "--run", "--jobs", "2", "--seeds", "1", "2", "--settings", "plain"]
    assert results.main(given) == 0
    assert [row["processor_seconds"] for row in rows()] == ["1", "0"]


def test_a_curve(results: ModuleType) -> None:
    """A point has the time of its last line; a run's curve is there once."""
    lines = "for i in 1 2; do echo step $i,000; sleep 0.3; echo loss $(({seed} + i)); done; mkdir"
    curve = "curve: '(?s)step (?P<update>[\\d,]+).(?:(?!step).)*?loss (?P<score>\\d+)'"
    Path("plan.yaml").write_text(PLAN.replace("mkdir", lines) + curve)
    Path("plan_curves.csv").write_text(
        "setting,seed,update,seconds,score\nours,4,5,6,7\nplain,1,1000,9,9\n"
    )
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0
    with Path("plan_curves.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    first, second = (float(point["seconds"]) for point in points[:2])
    assert [[*point.values()][:3] for point in points] == [
        ["plain", "1", "1000"], ["plain", "1", "2000"], ["ours", "4", "5"],
    ]  # fmt: skip
    assert [point["score"] for point in points] == ["2", "3", "7"]
    assert first >= 0.3
    assert second - first >= 0.2


def test_the_picture_of_the_curves(
    results: ModuleType, load_script: LoadScript, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = load_script("curves")
    plan = results.Plan.read(Path("plan.yaml"))
    assert results.main(["plan.yaml", "--plot", "it.png"]) == 2
    assert capsys.readouterr().err == (
        "error: plan_curves.csv has no curve: a plan with `curve:` leaves them as it runs\n"
    )
    plan.curves.write_text(
        "setting,seed,update,seconds,score\nplain,1,10,5.5,900\nplain,1,20,7.5,40\n"
        "plain,2,10,6.5,700\nplain,2,20,8.5,50\nplain,2,30,9.5,5\nours,1,10,3.5,800\n"
    )
    runs = curves.of_runs(plan, "plain", "seconds")
    assert runs == [[(5.5, 900), (7.5, 40)], [(6.5, 700), (8.5, 50), (9.5, 5)]]
    assert curves.middle(runs) == [(6, 800), (8, 45)]
    assert results.main(["plan.yaml", "--plot", "it.png"]) == 0
    assert Path("it.png").read_bytes().startswith(b"\x89PNG")


def test_another_device_has_files_of_its_own(
    results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = "devices: {cpu: '', mine: echo elsewhere; }"
    Path("plan.yaml").write_text(PLAN.replace("mkdir", "{device} mkdir") + devices)
    one = ["--run", "--seeds", "1", "--settings", "plain"]
    assert results.main(["plan.yaml", *one]) == 0
    assert results.main(["plan.yaml", *one, "--device", "mine"]) == 0
    assert ran() == ["1 + 0", "1 + 0"]
    assert rows()[0]["device"] == "cpu"
    assert Path("plan_mine.csv").read_text().split("\n")[1].split(",")[3] == "mine"
    assert "elsewhere" in Path("runs/plan_mine/plain.1.log").read_text()
    assert results.main(["plan.yaml", "--run", "--device", "tpu"]) == 2
    assert capsys.readouterr().err == (
        "error: plan.yaml: devices: there is no tpu: it has cpu, mine\n"
    )


def test_without_a_card(
    results: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("plan.yaml").write_text(PLAN + "devices: {cuda: ''}")
    assert results.main(["plan.yaml", "--run", "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "error: --device cuda: torch finds no card here\n"
    assert not Path("ran").exists()


def test_no_run_at_a_time(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["plan.yaml", "--run", "--jobs", "0"]) == 2
    assert capsys.readouterr().err == "error: --jobs 0: it must be 1 or more\n"


def test_what_another_process_runs_is_left_to_it(results: ModuleType) -> None:
    with results.locked(Path("runs/plan/plain.1.lock"), wait=False) as mine:
        assert mine
        assert results.main(["plan.yaml", "--run", "--seeds", "1"]) == 0
    assert ran() == ["1 + 10"]


def test_without_run_nothing_is_run(
    results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.main(["plan.yaml"]) == 0
    assert not Path("ran").exists()
    assert capsys.readouterr().out.startswith("| valid | n | mean |")


def test_a_run_that_fails_leaves_no_row_and_the_others_go_on(
    results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PLAN.replace("mkdir", "test {seed} = 1 && exit 5; mkdir").replace("echo {seed}", "echo")
    Path("plan.yaml").write_text(text)
    assert results.main(["plan.yaml", "--run", "--settings", "plain"]) == 1
    assert [row["seed"] for row in rows()] == ["2", "4"]
    assert capsys.readouterr().err == "plain, seed 1: exit code 5; see runs/plan/plain.1.log\n"


def test_a_run_without_a_score(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.yaml").write_text(PLAN.replace("score (", "F1 ("))
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 1
    assert not Path("plan.csv").exists()
    assert capsys.readouterr().err == (
        "plain, seed 1: it printed no valid; see runs/plan/plain.1.log\n"
    )


def test_the_table(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Differences 5.1, 4.1, 1.1, -1.1: mean 2.3, standard deviation 2.833; t is 3.182."""
    text = PLAN.replace("[1, 2, 4]", "[1, 2, 3, 4, 5]")
    Path("plan.yaml").write_text(text)
    scores = {"plain": [15.4, 17.4, 21.0, 16.6, 99.0], "ours": [20.5, 21.5, 22.1, 15.5]}
    plan = results.Plan.read(Path("plan.yaml"))
    for setting, values in scores.items():
        for seed, value in enumerate(values, 1):
            plan.add({**dict.fromkeys(plan.fields, ""), "setting": setting, "seed": seed,
                      "valid": value})  # fmt: skip
    assert results.main(["plan.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| valid | n | mean | standard deviation | minus plain, paired | 95 % interval |",
        "|---|---|---|---|---|---|",
        "| plain | 5 | 33.88 | 36.46 |  |  |",
        "| ours | 4 | 19.90 | 3.01 | +2.30 (n 4) | -2.21 to +6.81 |",
        "",
    ]  # fmt: skip


def test_one_pair_has_no_interval(load_script: LoadScript) -> None:
    paired = load_script("paired")
    apart = paired.differences({1: 3.0, 2: 5.0}, {2: 4.0, 3: 9.0})
    assert (apart.n, apart.mean) == (1, 1.0)
    assert math.isnan(apart.half)
    assert paired.differences({1: 3.0}, {2: 4.0}) is None


@pytest.mark.parametrize(("old", "new", "fault"), [
    ("update: 7\n", "", "plan.yaml lacks update: --help shows a plan"),
    ("threads", "cores", "plan.yaml has unknown keys cores: --help shows a plan"),
    ("'score (\\\\d+)'", "'score (\\\\d+'", "plan.yaml: scores: score (\\\\d+: missing ), "
     "unterminated subpattern at position 6"),
    ("'score (\\\\d+)'", "score", "plan.yaml: scores: score needs one group, which is the "
     "number"),
    ("{folder}", "{home}", "plan.yaml: command: 'home' is not {seed}, {setting}, {folder}, "
     "{update} or {device}; a brace of bash's is written twice"),
    ("update: 7", "update: [", "plan.yaml is no YAML: "),
    ("settings: {plain: + 0, ours: + 10}", "settings: {}", "plan.yaml: settings: there is none"),
    ("threads: 3", "curve: '(\\d+)'", "plan.yaml: curve: (\\d+) needs the groups "
     "(?P<update>...) and (?P<score>...)"),
    ("threads: 3", "curve: '(\\d+'", "plan.yaml: curve: (\\d+: missing ), unterminated "),
    ("threads: 3", "devices: {card: ''}", "plan.yaml: devices: there is no cpu: it has card"),
    ("settings: {plain: + 0, ours: + 10}", "settings: [plain]", "plan.yaml: settings needs names "
     "with values: --help shows a plan"),
    ("threads: 3", "devices: [cpu]", "plan.yaml: devices needs names with values: "),
    ("seeds: [1, 2, 4]", "seeds: 3", "plan.yaml: seeds: 3 is no list of whole numbers: [1, 2, 3]"),
    ("seeds: [1, 2, 4]", "seeds: []", "plan.yaml: seeds: [] is no list of whole numbers: "),
    ("seeds: [1, 2, 4]", "seeds: [true]", "plan.yaml: seeds: [True] is no list of whole numbers"),
    ("seeds: [1, 2, 4]", "seeds: [1, 1]", "plan.yaml: seeds: [1, 1] has one twice"),
    ("update: 7", "update: '7'", "plan.yaml: update: 7 is no whole number of 1 or more"),
    ("threads: 3", "threads: 0", "plan.yaml: threads: 0 is no whole number of 1 or more"),
    ("threads: 3", "curve: [1]", "plan.yaml: curve: [1] is no text"),
    ("threads: 3", "resumes: 1", "plan.yaml: resumes: 1 is neither true nor false"),
    ("threads: 3", "devices: {cpu: null}", "plan.yaml: devices: cpu: None is no text: put it into "
     "quotes, '' is nothing"),
    ("plain: + 0", "0.1: + 0", "plan.yaml: settings: 0.1 is no text: put the name into quotes"),
    ("plain: + 0", "on: + 0", "plan.yaml: settings: True is no text: put the name into quotes"),
    ("plain: + 0", "../x: + 0", "plan.yaml: settings: ../x: no / and no |, since logs and tables"),
    ("plain: + 0", "plain: null", "plan.yaml: settings: plain: None is no text: put it into "),
    ("valid: 'score (\\d+)'", "valid: 5", "plan.yaml: scores: valid: 5 is no text: "),
    ("valid: 's", "seed: 's", "plan.yaml: scores: seed is a column's name already: take another"),
    ("{folder}", "{seed.x}", "plan.yaml: command: 'int' object has no attribute 'x' is not {seed}"),
    ("command: >-\n", "command: null\nfurther: >-\n", "plan.yaml has unknown keys further"),
])  # fmt: skip
def test_a_plan_that_is_none(
    results: ModuleType, capsys: pytest.CaptureFixture[str], old: str, new: str, fault: str
) -> None:
    old, new, fault = (part.replace("\\\\", "\\") for part in (old, new, fault))
    assert old in PLAN
    Path("plan.yaml").write_text(PLAN.replace(old, new))
    assert results.main(["plan.yaml", "--run"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {fault}")
    assert not Path("ran").exists()


def test_rows_of_another_command_are_not_mixed(
    results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0
    Path("plan.yaml").write_text(PLAN.replace("update: 7", "update: 8"))
    capsys.readouterr()
    others = "plan.csv has rows that this plan did not make: plain, seed 1 (another update)"
    assert results.main(["plan.yaml", "--run"]) == 2
    assert capsys.readouterr().err == (
        f"error: {others}: move the file away, or give the plan another name\n"
    )
    assert ran() == ["1 + 0"]
    assert results.main(["plan.yaml"]) == 0
    assert capsys.readouterr().err == f"note: {others}\n"
    Path("plan.csv").rename("old.csv")
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0


def test_rows_that_are_none(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0
    good = Path("plan.csv").read_text()
    line = good.splitlines()[1]
    for text, fault in {
        good + line + "\n": "plan.csv: the row of plain, seed 1 stands twice",
        good.replace(",7,1,", ",7,nan,"): "plan.csv: the row of plain, seed 1 has no number as "
        "valid: 'nan'",
        good + "plain,2\n": "plan.csv: row 2 has 2 values for 10 columns: mend or remove it",
        "": "plan.csv has the columns , and the plan setting",
    }.items():
        capsys.readouterr()
        Path("plan.csv").write_text(text)
        assert results.main(["plan.yaml"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {fault}")


def test_seeds_that_a_plan_no_longer_has_do_not_count(results: ModuleType) -> None:
    assert results.main(["plan.yaml", "--run"]) == 0
    Path("plan.yaml").write_text(PLAN.replace("[1, 2, 4]", "[4, 1]"))
    plan = results.Plan.read(Path("plan.yaml"))
    assert plan.values("ours", "valid") == {4: 26, 1: 11}


def test_curves_of_another_plan_are_refused_before_a_run(results: ModuleType) -> None:
    Path("plan_curves.csv").write_text("a,b\n")
    assert results.main(["plan.yaml", "--run"]) == 2
    assert not Path("ran").exists()


@pytest.mark.parametrize("value", ["1,234.5", "nan", "inf", "high"])
def test_a_score_that_is_no_number_leaves_no_row(
    results: ModuleType, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    plan = yaml.safe_load(PLAN)
    plan |= {"command": f"echo score {value} {{setting}}", "scores": {"valid": r"score (\S+)"}}
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 1
    assert f"plain, seed 1: valid is {value!r}, which is no number" in capsys.readouterr().err
    assert not Path("plan.csv").exists()


@pytest.mark.parametrize("command", ["(echo score 1; false) | cat", "echo score 1; false; echo"])
def test_what_fails_inside_a_command_fails(results: ModuleType, command: str) -> None:
    plan = {**yaml.safe_load(PLAN), "command": f"{command} {{setting}}"}
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 1
    assert not Path("plan.csv").exists()


@contextmanager
def begun(
    folder: Path, command: str, seeds: str = "[1]", further: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Start the script on a plan in a process of its own, whose run has made the file ``begun``."""
    (folder / "plan.yaml").write_text(
        f"command: '{command}'\n"
        f"update: 1\nseeds: {seeds}\nsettings: {{plain: ''}}\nscores: {{valid: 'score (\\d+)'}}\n"
        + further
    )
    script = Path(__file__).parents[2] / "scripts" / "results.py"
    process = subprocess.Popen(
        [sys.executable, script, "plan.yaml", "--run"], cwd=folder, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Who starts this in the background may have ignored them.
        preexec_fn=lambda: [signal.signal(end, signal.SIG_DFL) for end in ENDS],  # noqa: PLW1509 - no locks
    )  # fmt: skip
    try:
        for _ in range(600):
            if (folder / "begun").exists():
                break
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", ENDS)
def test_a_signal_ends_what_runs_too(tmp_path: Path, end: signal.Signals) -> None:
    """Sent to the script alone."""
    with begun(tmp_path, "echo $$ > pid; mv pid begun; sleep 60; echo {setting}") as process:
        process.send_signal(end)
        assert process.wait(30) == 128 + end
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)
    assert not (tmp_path / "plan.csv").exists()


# Its first leg ends within a line, its second fails, its third prints an update of the first again.
LEGS = """
mkdir -p {folder}; cd {folder}; if test ! -e half; then
echo update 1 loss 9; sleep 0.5; echo update 2 loss 8; echo -n update 3; sleep 0.5; touch half;
touch ../../../begun; sleep 60; elif test ! -e more; then touch more; echo -n up; exit 4; fi;
echo update 2 loss 7; echo update 3 loss 6; echo score 5 {setting}
""".replace("\n", " ")
CURVE = "curve: '(?m)^update (?P<update>\\d+) loss (?P<score>\\d+)'\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on(
    results: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: signal.Signals
) -> None:
    """SIGKILL ends the script and, as a machine that stops, what it has started."""
    with begun(tmp_path, LEGS, further=f"{CURVE}resumes: true\n") as process:
        [child] = _children(process.pid)
        process.send_signal(end)
        process.wait(30)
        if end == signal.SIGKILL:
            os.killpg(child, end)
            with Path("runs/plan.legs/plain.1.jsonl").open("a") as record:
                record.write('["line", 9')  # what it was about to write
    assert Path("runs/plan.legs/plain.1/half").exists()
    assert results.main(["plan.yaml"]) == 0, "the tables can be had meanwhile"
    assert [results.main(["plan.yaml", "--run"]) for _ in "23"] == [1, 0]
    [row] = rows()
    assert row["valid"] == "5"
    assert row["processor_seconds"] == "", "no guess: bash did not wait for what it had begun"
    with Path("plan_curves.csv").open(newline="") as file:
        points = [(point["update"], point["score"]) for point in csv.DictReader(file)]
        file.seek(0)
        seconds = [float(point["seconds"]) for point in csv.DictReader(file)]
    assert points == [("1", "9"), ("2", "7"), ("3", "6")]
    assert 0.4 < seconds[1] - seconds[0] < 30
    assert float(row["seconds"]) >= round(seconds[2])
    assert Path("runs/plan/plain.1.log").read_text().endswith("update 3 loss 6\nscore 5\n")
    left = {path.name for path in Path("runs/plan").iterdir()}
    assert left == {"plain.1.log", "plain.1.lock"}
    assert not [*Path("runs/plan.legs").iterdir()], "nothing that would go on"


def test_the_processor_seconds_of_all_legs(results: ModuleType) -> None:
    spin = "python -c 'import time; all(iter(lambda: time.process_time() < 1.1, False))'"
    first = f"test -e {{folder}}/half || {{{{ touch {{folder}}/half; {spin}; exit 3; }}}}; {spin}; "
    Path("plan.yaml").write_text(PLAN.replace("mkdir", f"{first}mkdir") + "resumes: true\n")
    given = ["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]
    assert [results.main(given), results.main(given)] == [1, 0]
    assert [row["processor_seconds"] for row in rows()] == ["2"]


def _children(process: int) -> list[int]:
    return [int(pid) for task in Path(f"/proc/{process}/task").iterdir()
            for pid in (task / "children").read_text().split()]  # fmt: skip


def test_a_run_whose_process_lives_is_not_made_twice(results: ModuleType, tmp_path: Path) -> None:
    """Though the script that began it was killed."""
    with begun(tmp_path, LEGS, further="resumes: true\n") as process:
        [child] = _children(process.pid)
    try:
        assert results.main(["plan.yaml", "--run"]) == 0
        assert not Path("plan.csv").exists()
    finally:
        os.killpg(child, signal.SIGKILL)


def test_a_run_of_another_command_is_not_gone_on_with(
    results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {**yaml.safe_load(PLAN), "resumes": True}
    given = ["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]

    def main(command: str) -> int:
        Path("plan.yaml").write_text(yaml.safe_dump({**plan, "command": f"{command} {{setting}}"}))
        return results.main(given)

    assert main("echo >> {folder}/begun; false") == 1
    capsys.readouterr()
    assert main("echo score 1") == 2
    assert capsys.readouterr().err == (
        "error: runs/plan.legs/plain.1 was begun by another plan (command echo >> FOLDER/begun; "
        "false + 0): remove the folder to begin anew\n"
    )
    plan |= {"threads": 4}
    assert main("echo >> {folder}/begun; false") == 2
    assert "begun by another plan (threads 3)" in capsys.readouterr().err
    shutil.rmtree("runs/plan.legs/plain.1")
    assert main("false") == 1
    assert main("echo score 1") == 0, "what failed at once has left nothing to go on with"


def test_devices_that_do_not_resume_begin_anew(results: ModuleType) -> None:
    """And leave alone what a plan that resumed has left."""
    text = PLAN.replace("mkdir {folder}/model;", "touch {folder}/it; false;") + "resumes: [cpu]\n"
    Path("plan.yaml").write_text(text)
    given = ["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]
    assert results.main(given) == 1
    for other in ("devices: {cpu: '', cuda: ''}\nresumes: [cuda]\n", "resumes: false\n"):
        Path("plan.yaml").write_text(text.replace("resumes: [cpu]\n", other))
        assert results.main(given) == 1
        assert Path("runs/plan.legs/plain.1/it").exists()


def test_a_run_may_remove_its_folder(results: ModuleType) -> None:
    text = PLAN.replace("mkdir {folder}/model;", "rm -r {folder};")
    Path("plan.yaml").write_text(text + "resumes: true\n")
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0
    assert len(rows()) == 1


def test_a_row_that_is_removed_is_made_anew(results: ModuleType, monkeypatch) -> None:
    """Though the script was killed when it had written the row."""
    text = PLAN.replace("mkdir {folder}/model;", "echo a >> {folder}/it; cat {folder}/it;")
    Path("plan.yaml").write_text(text + "resumes: true\n")
    given = ["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]
    with monkeypatch.context() as killed:
        killed.setattr(results.Run, "forget", lambda one: None)
        assert results.main(given) == 0
    assert Path("runs/plan.legs/plain.1/it").exists()
    assert results.main(given) == 0
    Path("plan.csv").unlink()
    assert results.main(given) == 0
    assert Path("runs/plan/plain.1.log").read_text().count("a\n") == 1


def test_settings_have_folders_of_their_own(results: ModuleType) -> None:
    plan = {**yaml.safe_load(PLAN), "settings": {"a  b": "", "a, b": "x", "a_b": "y"}}
    plan |= {"command": "echo {folder}{setting} >> ran; touch {folder}/it; false", "resumes": True}
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    assert results.main(["plan.yaml", "--run", "--seeds", "1"]) == 1
    assert ran() == [
        f"runs/plan.legs/{name}" for name in ("a_20__20_b.1", "a_2c__20_b.1x", "a_5f_b.1y")
    ]
    assert all(Path(folder.rstrip("xy")).is_dir() for folder in ran())


def test_a_key_without_a_value_is_left_out(results: ModuleType) -> None:
    Path("plan.yaml").write_text(PLAN.replace("threads: 3", "curve:"))
    assert results.main(["plan.yaml", "--run", "--seeds", "1", "--settings", "plain"]) == 0
    assert [row["threads"] for row in rows()] == ["1"]


@pytest.mark.parametrize(("given", "fault"), [
    (["--seeds", "3"], "plan.yaml has no seed 3: it has 1, 2, 4"),
    (["--settings", "our"], "plan.yaml has no setting our: it has plain, ours"),
])  # fmt: skip
def test_a_run_that_is_not_in_the_plan(
    results: ModuleType, capsys: pytest.CaptureFixture[str], given: list[str], fault: str
) -> None:
    assert results.main(["plan.yaml", "--run", *given]) == 2
    assert capsys.readouterr().err == f"error: {fault}\n"
    assert not Path("ran").exists()


def test_rows_of_another_plan(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.csv").write_text("setting,seed\nplain,1\n")
    assert results.main(["plan.yaml", "--run"]) == 2
    assert capsys.readouterr().err == (
        "error: plan.csv has the columns setting, seed, and the plan setting, seed, commit, "
        "device, threads, update, valid, processor_seconds, seconds, command: move it away\n"
    )
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "name", [path.name for path in sorted((Path(__file__).parents[2] / "results").glob("*.yaml"))]
)
def test_the_plans_here_can_be_run(results: ModuleType, name: str) -> None:
    """Their rows fit to them; a setting stands where the command takes it."""
    path = Path(__file__).parents[2] / "results" / name
    for device in yaml.safe_load(path.read_text(encoding="utf-8")).get("devices", ["cpu"]):
        plan = results.Plan.read(path, device)
        assert plan.strangers() is None
        seeds = {int(row["seed"]) for row in plan.rows()}
        assert seeds <= {*plan.seeds}
        commands = {plan.line(setting, 1, "f") for setting in plan.settings}
        assert len(commands) == len(plan.settings)


def test_ctrl_c_ends_it_in_a_line(tmp_path: Path) -> None:
    """As a terminal sends it: to the runs too. What had a row keeps it; the one that is stopped has
    none."""
    command = "test {seed} = 1 || (touch begun; sleep 60); echo score 1 {setting}"
    with begun(tmp_path, command, seeds="[1, 2]") as process:
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped by Ctrl-C; what was finished is kept"
    assert "Traceback" not in told
    with (tmp_path / "plan.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"]


def test_no_plan(results: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["no.yaml"]) == 2
    assert "no.yaml" in capsys.readouterr().err
