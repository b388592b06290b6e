import base64
import functools
import gzip
import html
import http.server
import json
import math
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import plotly.graph_objects
import pytest

from visionsweep.report.sweep import charts, page
from visionsweep.report.sweep.axes import focus, labels
from visionsweep.report.sweep.charts import make_charts
from visionsweep.report.sweep.page import sweep_page, write_report
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.report.sweep.winner import summarize
from visionsweep.text import short_value

SPACE = {
    "loss": {"choices": ["focal", "poly", "größe"]},
    "loss.gamma": {
        "type": "float",
        "low": 0.5,
        "high": 5.0,
        "log": False,
        "step": None,
        "when": ["loss=focal"],
    },
    "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "step": None},
    "model.hidden": {"type": "int", "low": 1, "high": 64, "log": False, "step": 1},
}
EVIL = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "%{x}&amp;{{plotly}}",
    "größe 日本",
    "<b>$x$",
]


def trial(number, state="complete", values=(0.5,), params=None, epochs=5, **changes):
    last = values[0] if values else 0.3
    curve = (
        tuple((epoch, last * epoch / epochs) for epoch in range(1, epochs + 1))
        if math.isfinite(last)
        else ()
    )
    known = {
        "start": 100.0 * number,
        "end": 100.0 * number + 150,
        "directory": str(number),
        "curve": curve,
    } | changes
    return SweptTrial(
        number=number, state=state, values=values, params=params or {}, epochs=epochs, **known
    )


def sweep(
    trials,
    space=SPACE,
    metrics=("val/f1_macro",),
    directions=("maximize",),
    name="faces",
    **changes,
):
    return SweepRecord(name, metrics, directions, space, trials, **changes)


def random_sweep(count, objectives=1, seeds=1, pruned=0.6, seed=0):
    """Return a sweep in which the learning rate decides, with every state."""
    rng = random.Random(seed)
    trials = []
    for number in range(count):
        params = {
            "loss": rng.choice(SPACE["loss"]["choices"]),
            "optim.lr": 10 ** rng.uniform(-4, -1),
        }
        if params["loss"] == "focal":
            params["loss.gamma"] = rng.uniform(0.5, 5.0)
        params["model.hidden"] = rng.randint(1, 64)
        value = 0.9 - 0.1 * abs(math.log10(params["optim.lr"]) + 2.5) + rng.gauss(0, 0.01)
        state = "pruned" if number > 5 and rng.random() < pruned else "complete"
        spread = rng.uniform(0.001, 0.02) if seeds > 1 and state == "complete" else None
        values = (value, *[rng.uniform(1, 1e6) for _ in range(objectives - 1)])
        trials.append(trial(number, state, values, params, rng.randint(2, 27), seed_std=spread))
    trials.append(trial(count, "failed", (), trials[0].params, error='ValueError: <no> "memory"'))
    trials.append(trial(count + 1, "running", (), trials[1].params, end=None))
    metrics = ("val/f1_macro", "num_parameters", "val/loss")[:objectives]
    directions = ("maximize", "minimize", "minimize")[:objectives]
    return sweep(trials, metrics=metrics, directions=directions, run_epochs=27, num_seeds=seeds)


def evil_sweep():
    """Return a sweep whose names and values are HTML, plotly's markup or not ASCII."""
    space = {name: {"choices": EVIL} for name in EVIL}
    rng = random.Random(0)
    trials = [
        trial(i, values=(rng.random(),), params={name: rng.choice(EVIL) for name in EVIL})
        for i in range(20)
    ]
    trials.append(trial(20, "failed", (), error=EVIL[0]))
    return sweep(trials, space, metrics=(EVIL[0],), name=EVIL[1])


SWEEPS = {
    "empty": sweep([]),
    "one": sweep(
        [trial(0, params={"loss": "focal", "loss.gamma": 1.0, "optim.lr": 0.01, "model.hidden": 3})]
    ),
    "failed": sweep([trial(i, "failed", (), {"loss": "poly"}, curve=()) for i in range(5)]),
    "running": sweep([trial(0, "running", (), {"loss": "poly"}, end=None)]),
    "constant": sweep(
        [trial(i, values=(1.0,), params={"loss": "poly", "optim.lr": 0.01}) for i in range(12)]
    ),
    "odd values": sweep(
        [
            trial(i, values=(value,), params={"loss": "poly"})
            for i, value in enumerate(
                [math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 1.0, 2.0, 3.0]
            )
        ]
    ),
    "no times": sweep(
        [trial(i, values=(i / 9,), start=None, end=None, curve=()) for i in range(9)], space={}
    ),
    "three objectives": random_sweep(40, objectives=3),
    "seeds": random_sweep(30, seeds=3),
    "evil": evil_sweep(),
    "many": random_sweep(120),
}


@functools.cache
def page_of(name):
    return sweep_page(SWEEPS[name])


def content_of(page):
    """Return what the page hands to its script."""
    return json.loads(
        re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)[1]
    )


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_page_whose_parts_fit(name):
    page = page_of(name)
    content = content_of(page)
    frames = re.findall(r'<div class="chart" id="([\w-]+)"', page)
    assert sorted(frames) == sorted(chart["id"] for chart in content["charts"])
    assert len(set(frames)) == len(frames)
    assert set(content["trials"]) == {str(t.number) for t in SWEEPS[name].trials}
    for chart in content["charts"]:
        # raises for what plotly does not know
        plotly.graph_objects.Figure(chart["data"], chart["layout"])
        for trace in chart["data"]:
            if "customdata" in trace and trace["customdata"] is not None:
                assert len(trace["customdata"]) == len(trace["x"]) == len(trace["y"])


def test_the_page_needs_nothing_else():
    page = page_of("many")
    assert not re.findall(r"<(?:link|iframe|img)|<script[^>]* src|@import|url\(", page)
    assert len(page.encode()) < 5e6


def test_plotly_is_in_the_page_whole():
    page = page_of("one")
    packed = re.search(r'<script type="text/plain" id="plotly">([A-Za-z0-9+/=]*)</script>', page)[1]
    original = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    assert gzip.decompress(base64.b64decode(packed)) == original.read_bytes()


def test_no_name_becomes_html():
    page = page_of("evil")
    template = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "<img" not in template
    assert "alert(2)</script>" not in page
    assert page.count("<script") == 3  # content, plotly, code
    assert html.escape(EVIL[0]) in template
    assert html.escape(EVIL[2]) in template  # and its braces are no place of the template
    shown = json.dumps(content_of(page))
    assert "<img" not in shown
    assert "&lt;img src=x" in shown  # plotly reads HTML too
    assert "$" not in shown  # and mathematics
    raw = re.search(r'id="content">(.*?)</script>', page, re.S)[1]
    assert "<" not in raw  # not even in the marks that plotly is meant to read


def test_the_leaderboard_is_in_the_page():
    record = SWEEPS["seeds"]
    page = page_of("seeds")
    rows = re.findall(r'<tr data-trial="(\d+)" class="([\w ]+)">(.*?)</tr>', page)
    assert len(rows) == len(record.trials)
    best = max((t for t in record.trials if t.state == "complete"), key=lambda t: t.values[0])
    number, classes, cells = rows[0]
    assert (int(number), classes) == (best.number, "complete first")
    texts = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells)]
    assert texts[:4] == [
        "1",
        f"#{best.number}",
        "complete",
        f"{best.values[0]:.4f} ± {short_value(best.seed_std, 2)}",
    ]
    assert short_value(best.params["optim.lr"]) in texts
    assert "failed: ValueError: &lt;no&gt; &quot;memory&quot;" in page


@functools.cache
def charts_of(name):
    return {made.id: made for made in make_charts(summarize(SWEEPS[name]))}


def points_of(chart):
    """Return (trial number, x, y) of every point and every point of a line."""
    found = []
    for trace in chart.data:
        is_one = trace.get("meta") is not None
        owners = [trace["meta"]] * len(trace["x"]) if is_one else trace.get("customdata") or []
        found += zip(owners, trace["x"], trace["y"], strict=False)
    return found


def test_points_carry_the_number_of_their_trial():
    record, made = SWEEPS["three objectives"], charts_of("three objectives")
    trials = {t.number: t for t in record.trials}
    complete = {t.number for t in record.trials if t.state == "complete"}
    keys = list(summarize(record).shares)
    for name, x, y in (
        ("history", lambda t: t.number, lambda t: t.value),
        ("pareto-1", lambda t: t.values[1], lambda t: t.value),
        ("pareto-2", lambda t: t.values[2], lambda t: t.value),
        ("slice-0", lambda t: t.params[keys[0]], lambda t: t.value),
        ("rank", lambda t: t.params[keys[0]], lambda t: t.params[keys[1]]),
    ):
        points = points_of(made[name])
        assert {number for number, *_ in points} == complete, name
        for number, *place in points:
            assert place == [x(trials[number]), y(trials[number])], name
    for number, epoch, value in points_of(made["curves"]):
        assert dict(trials[number].curve)[epoch] == value
    curves = {number for number, *_ in points_of(made["curves"])}
    assert curves == {t.number for t in record.trials if t.state != "failed"}
    bars = points_of(made["timeline"])
    assert sorted(number for number, *_ in bars) == sorted(trials)
    for number, milliseconds, y in bars:
        assert y == number
        if trials[number].end is not None:
            assert milliseconds == 1000 * trials[number].seconds


def test_numbers_survive_gaps_between_the_trials():
    trials = [trial(i, values=(i / 100,), params={"loss": "poly"}) for i in (3, 5, 11)]
    for made in make_charts(summarize(sweep(trials))):
        assert {number for number, *_ in points_of(made)} <= {3, 5, 11}, made.id
        if made.id in ("history", "curves", "timeline"):
            assert {number for number, *_ in points_of(made)} == {3, 5, 11}


def test_pareto_optimal_trials_are_told_apart():
    record = SWEEPS["three objectives"]
    beaten, best = charts_of("three objectives")["pareto-1"].data
    assert (beaten["name"], best["name"]) == ("beaten", "Pareto-optimal")
    assert sorted(best["customdata"]) == sorted(t.number for t in record.pareto())


def test_a_pruned_trial_has_its_values_on_the_page_and_is_in_no_front():
    trials = [
        trial(0, values=(0.8, 5.0)),
        trial(1, values=(0.7, 3.0)),
        trial(2, state="pruned", values=(0.9, 1.0)),  # it would beat them
    ]
    record = sweep(trials, metrics=("F1", "size"), directions=("maximize", "minimize"))
    [chart] = [chart for chart in make_charts(summarize(record)) if chart.id == "pareto-1"]
    assert [trace["customdata"] for trace in chart.data] == [[], [0, 1]]
    assert chart.note.endswith("Without 1 pruned trial.")
    page = sweep_page(record)
    assert "2 trials are Pareto-optimal" in page
    assert page.count(">0.9000<") == 1


@pytest.mark.parametrize(
    ("direction", "expected"), [("maximize", [0.2, 0.5, 0.7]), ("minimize", [0.2, 0.2, 0.2])]
)
def test_best_so_far_only_gets_better(direction, expected):
    trials = [trial(i, values=(value,)) for i, value in ((0, 0.2), (1, 0.5), (4, 0.7))]
    trials.insert(2, trial(2, "pruned", (0.99,)))
    made = make_charts(summarize(sweep(trials, directions=(direction,))))
    best = next(chart for chart in made if chart.id == "history").data[1]
    assert (best["x"], best["y"]) == ([0, 1, 4], expected)


def test_parallel_lines_are_those_of_their_trials():
    record = SWEEPS["many"]
    made = charts_of("many")["parallel"]
    ticks = [re.sub("<br>", "", tick) for tick in made.layout["xaxis"]["ticktext"]]
    trials = {t.number: t for t in record.trials}
    places = {}
    for number, axis, y in points_of(made):
        places.setdefault(ticks[axis], []).append((number, y))
    objective = sorted(places["val/f1_macro"], key=lambda place: place[1])
    values = [trials[number].value for number, _ in objective]
    assert values == sorted(values)
    gamma = [(y > 0, "loss.gamma" in trials[number].params) for number, y in places["loss.gamma"]]
    assert sum(is_active for _, is_active in gamma) > 3
    missing = [
        y for (_, active), (_, y) in zip(gamma, places["loss.gamma"], strict=True) if not active
    ]
    assert set(missing) == {0}  # the bottom of the axis
    assert "not active" in made.note


def test_many_trials_are_sampled(monkeypatch):
    monkeypatch.setattr(charts, "MAX_LINES", 20)
    monkeypatch.setattr(page, "MAX_ROWS", 30)
    record = SWEEPS["many"]
    drawn = next(c for c in make_charts(summarize(record)) if c.id == "curves")
    numbers = {number for number, *_ in points_of(drawn)}
    assert len(numbers) == 20
    assert numbers >= {t.number for t in record.ranked()[:10]}
    assert "a sample of the others, 20 trials" in drawn.note
    assert f"{len(record.trials) - 30} more trials are in trials.csv" in sweep_page(record)


@pytest.mark.slow
def test_two_thousand_trials_stay_a_page():
    started = time.process_time()
    page = sweep_page(random_sweep(2000))
    assert time.process_time() - started < 40  # 10 on an idle machine
    assert len(page.encode()) < 5e6


def test_names_on_charts_stay_different():
    alike = [f"optim.{'x' * 40}.{i}.weight_decay" for i in range(2)]
    assert len(set(labels(alike).values())) == 2
    assert labels(["<b>$x$"]) == {"<b>$x$": "&lt;b&gt;&#36;x&#36;"}


def test_the_axis_ends_where_bad_trials_would_squeeze_the_good_ones():
    good = [i / 100 for i in range(11)]  # nine tenths of them take 0.09
    assert focus(good, [], 1.6) is None
    assert focus(good, [0.2], 1.6) is None
    assert focus([*good], [5.0], 1.6) == pytest.approx(1.6 * 0.09)
    assert focus(good[:4], [5.0], 1.6) is None
    assert focus([1.0] * 9, [5.0], 1.6) is None
    trials = [trial(i, values=(0.9 - i / 1000,)) for i in range(20)] + [trial(20, values=(0.1,))]
    made = {chart.id: chart for chart in make_charts(summarize(sweep(trials)))}
    low, high = made["history"].layout["yaxis"]["range"]
    assert 0.1 < low < 0.88 < 0.9 < high
    assert (
        made["history"].note
        == "Not shown: 1 complete trial below the axis; double-click to zoom out."
    )


def test_the_page_of_a_sweep_that_is_over_is_always_the_same(monkeypatch):
    # so that `sync` sends it once
    page = page_of("constant")
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert sweep_page(SWEEPS["constant"]) == page
    now = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(1e9))
    assert f"As of {now}" not in page
    assert f"As of {now}" in sweep_page(SWEEPS["running"])


def test_the_file_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "a").mkdir()
    write_report(tmp_path / "a", SWEEPS["one"])
    path = write_report(tmp_path / "a", SWEEPS["empty"])
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert list((tmp_path / "a").iterdir()) == [path] == [tmp_path / "a" / "report.html"]


# -- in a browser

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# Appended to a page: tells the page around it what was drawn (nobody can look into a sandbox).
TELL = """<script>
const told = setInterval(() => {
  const none = content.textContent.includes('"charts":[]');
  const charts = document.documentElement.dataset.charts ?? (none ? "0" : null);
  if (charts === null) return;
  clearInterval(told);
  const made = [...document.querySelectorAll(".chart")];
  const row = document.querySelector("#leaderboard tbody tr");
  if (row) row.click();
  const isMarked = (e) => e.id !== "importances" && e.data.at(-1).x?.length > 0;
  const marked = made.filter(isMarked).map((e) => e.id);
  const heads = document.querySelectorAll("#leaderboard button");
  if (heads.length) heads[1].click();
  const rows = [...document.querySelectorAll("#leaderboard tbody tr")].slice(0, 3);
  const order = rows.map((r) => Number(r.dataset.trial));
  const layers = ".scatterlayer path, .barlayer path, .heatmaplayer image";
  const empty = made.filter((e) => !e.querySelector(layers)).map((e) => e.id);
  const width = document.documentElement.scrollWidth;
  const problem = document.getElementById("problem").textContent;
  const name = location.pathname.split("/").at(-1);
  const pictures = document.images.length;
  parent.postMessage({ name, charts, problem, empty, marked, order, width, pictures }, "*");
}, 20);
</script>"""
AROUND = """<!DOCTYPE html><script>
const names = %s, answers = [];
function next() {
  if (!names.length) return fetch("told", { method: "POST", body: JSON.stringify(answers) });
  const frame = document.createElement("iframe");
  Object.assign(frame, { width: 1200, height: 800, src: names.shift() });
  frame.setAttribute("sandbox", "allow-scripts");
  document.body.replaceChildren(frame);
}
addEventListener("message", (event) => { answers.push(event.data); next(); });
addEventListener("load", next);
</script><body></body>"""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-logging=stderr",
    "--window-size=1220,900",
]


class Desk(http.server.SimpleHTTPRequestHandler):
    """Serves a directory and takes one answer."""

    def do_POST(self):
        self.server.answer.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def browse_frames(directory, names):
    """Open pages in sandboxed frames in turn; return their answers and the console."""
    (directory / "around.html").write_text(AROUND % json.dumps(names), encoding="utf-8")
    handler = functools.partial(Desk, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.answer = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/around.html"
        command = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={directory / 'profile'}",
            "--remote-debugging-port=0",
            url,
        ]
        with (directory / "log").open("w+") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                answers = json.loads(server.answer.get(timeout=120))
            finally:
                os.killpg(browser.pid, signal.SIGTERM)
                browser.wait(timeout=30)
                server.shutdown()
            log.seek(0)
            return answers, [line for line in log if "CONSOLE" in line and "favicon" not in line]


def browse(page):
    """Open a page in headless Chromium; return its final document and its console."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [
        CHROMIUM,
        *FLAGS,
        profile,
        "--virtual-time-budget=60000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@needs_chromium
@pytest.mark.slow
def test_every_chart_is_drawn_in_a_sandboxed_frame(tmp_path):
    files = {f"{name.replace(' ', '-')}.html": name for name in SWEEPS}
    for file, name in files.items():
        (tmp_path / file).write_text(page_of(name) + TELL, encoding="utf-8")
    answers, console = browse_frames(tmp_path, list(files))
    assert console == []
    assert [answer["name"] for answer in answers] == list(files)
    for answer in answers:
        name = files[answer["name"]]
        record = SWEEPS[name]
        assert answer["problem"] == "", answer
        assert int(answer["charts"]) == len(charts_of(name)), name
        assert answer["empty"] == [], answer["name"]
        assert answer["pictures"] == 0, answer["name"]
        assert answer["width"] <= 1200, answer["name"]
        assert answer["order"] == sorted(t.number for t in record.trials)[:3], answer["name"]
        if answer["name"] == "many.html":
            marked = {"history", "curves", "timeline", "parallel", "rank", "slice-0"}
            assert set(answer["marked"]) >= marked


@needs_chromium
@pytest.mark.slow
def test_the_page_opens_from_disk(tmp_path):
    path = write_report(tmp_path, SWEEPS["many"])
    document, console = browse(path)
    assert console == []
    expected = len(charts_of("many"))
    assert re.search(r'<html[^>]* data-charts="(\d+)"', document)[1] == str(expected)


@needs_chromium
@pytest.mark.slow
def test_what_goes_wrong_in_the_browser_is_seen(tmp_path):
    broken = tmp_path / "broken.html"
    page = sweep_page(SWEEPS["one"])
    broken.write_text(
        page.replace("async function draw() {", "async function draw() { gone();"), encoding="utf-8"
    )
    assert "The charts could not be drawn: gone is not defined" in browse(broken)[0]
    old = page.replace('("DecompressionStream" in window)', "false")
    broken.write_text(old, encoding="utf-8")
    assert "The charts need a browser with DecompressionStream" in browse(broken)[0]
    broken.write_text("<script>console.error('seen')</script>", encoding="utf-8")
    assert len(browse(broken)[1]) == 1  # the console that the other tests look at
