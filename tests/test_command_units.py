"The signbook command and its units: killed, repeated, predicted, cleaned, on a cluster, and with a unit that fails."
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from conftest import ROOT
from signbook.evidence import load_result
from signbook.run import main

BIN, TESTS = Path(sys.executable).parent, ROOT / 'tests'
PARAMETERS = '\n'.join(['scale:str = "smoke" # smoke | cpu', 'corpus:str = "toy" # toy', 'seeds:str = "0,1,2"', 'device:str = "cpu"', 'backend:str = "local" # local | dask', 'out:str = ""'])
BODY = '''import units
from signbook.core import parse_seeds, provenance
from signbook.evidence import result_path, save_result
from signbook.experiment import Experiment
table = Experiment("toy", units.toy, {ROWS}, tuple(parse_seeds(seeds)))
outcome = table.run(backend, device)
received = dict(scale=scale, corpus=corpus, seeds=str(seeds), device=device, backend=backend, out=out)
save_result(result_path("99_toy", scale, out=out), "99_toy", "Toy", outcome.cells("signcl", "toy", {"y": ("y", "")}, evidence="mechanism", corpus="toy", scale=scale, n=1), [],
            provenance=provenance(received) | dict(units=outcome.costs()))'''


def notebook(folder, rows):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# Toy\n> A toy.'), nbformat.v4.new_code_cell(PARAMETERS, metadata={'tags': ['parameters']}), nbformat.v4.new_code_cell(BODY.replace('{ROWS}', rows))])
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    nbformat.write(nb, folder / '99_toy.ipynb')
    return folder / '99_toy.ipynb'


@pytest.fixture
def env(place, monkeypatch):
    "The environment in which kernels and workers find the toy units."
    monkeypatch.setenv('UNITS_LOG', str(place / 'log'))
    monkeypatch.setenv('PYTHONPATH', f'{ROOT}:{TESTS}')
    monkeypatch.chdir(ROOT)
    return os.environ


@pytest.fixture
def signbook(env, capsys):
    "The command in this process: (exit code, standard output, standard error)."
    def call(*argv):
        code = main([str(a) for a in argv])
        return SimpleNamespace(returncode=code, **dict(zip(('stdout', 'stderr'), capsys.readouterr())))
    return call


def log(place, word): return [line for line in (place / 'log').read_text().splitlines() if line.startswith(word + ' ')] if (place / 'log').exists() else []


def records(place): return {p: p.stat().st_mtime_ns for p in (place / 'outputs/units').glob('*/*.json')}


def test_lines_costs_cache_and_fresh(place, signbook):
    path = notebook(place, '{"one": units.Toy(1.), "two": units.Toy(2.)}')
    done = signbook('run', path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r'^  \[(\d)/6\] (one|two) seed \d: y ', done.stdout, re.M) and '[6/6]' in done.stdout
    assert re.search(r'toy: 6 units \(0 cached\), [\d.]+ s wall and [\d.]+ s CPU each, peak \d+ MiB on cpu', done.stdout)
    assert len(log(place, 'end')) == 6
    assert '6 units (0 cached)' in signbook('run', path, '--fresh', '--workers', '1').stdout and len(log(place, 'end')) == 12
    notebook(place, '{"one": units.Toy(1.), "two": units.Toy(3.)}')
    assert '6 units (3 cached)' in signbook('run', path).stdout and len(log(place, 'end')) == 15
    assert '6 units (6 cached)' in signbook('run', path).stdout and len(log(place, 'end')) == 15
    said = signbook('clean')
    assert said.returncode == 0 and 'would free 0.0 MB: 0 stale units' in said.stdout and len(records(place)) == 9
    assert 'freed' in signbook('clean', '--everything', '--yes').stdout and not records(place)
    assert (place / 'outputs/results/99_toy.smoke.json').exists()


def test_a_failing_unit_fails_the_run_and_nothing_else(place, signbook):
    done = signbook('run', notebook(place, '{"good": units.Toy(1.), "bad": units.Toy(2., trouble="error")}'))
    assert done.returncode == 1 and done.stderr == ''
    rows = load_result(place / 'outputs/results/99_toy.smoke.json')['rows']
    assert [r['value'] for r in rows if r['row'] == 'good'] == [10., 11., 12.]
    bad = [r for r in rows if r['row'] == 'bad']
    assert len(bad) == 3 and all(r['value'] is None and 'ValueError: no such gloss' in r['error'] for r in bad)
    assert signbook('report').returncode == 0
    page = (place / 'outputs/report.html').read_text()
    assert 'failed:' in page and 'no such gloss' in page


def killed_after(ends, place, path, env, wait):
    "Start a run, kill it and all that it started `wait` seconds after that many units have ended."
    run = subprocess.Popen([BIN / 'signbook', 'run', path], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env)
    until = time.monotonic() + 240
    while len(log(place, 'end')) < ends and run.poll() is None and time.monotonic() < until: time.sleep(.02)
    time.sleep(wait)
    everyone = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)] if run.poll() is None else []
    for p in everyone:
        try: p.kill()
        except psutil.NoSuchProcess: pass
    run.wait()
    psutil.wait_procs(everyone, timeout=10)


def test_killed_at_random_moments_loses_at_most_what_was_in_flight(place, env, signbook):
    path, rng, kept = notebook(place, '{f"row {i}": units.Toy(float(i), seconds=.2) for i in range(4)}'), random.Random(3), {}
    for ends in (rng.randint(2, 6), 12):  # in the midst of the units, and while the result and the notebook are written
        killed_after(ends, place, path, env, rng.uniform(0, .5))
        assert kept.items() <= records(place).items() and len(records(place)) >= ends - 2
        kept = records(place)
        for p in kept: json.loads(p.read_text())
        for f in (place / 'outputs/results').glob('[!.]*.json'): load_result(f)
        for f in (place / 'outputs/notebooks').glob('*.ipynb'): json.loads(f.read_text())
    done = signbook('run', path)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= records(place).items() and len(records(place)) == 12
    assert len(log(place, 'end')) <= 12 + 2*2
    assert sorted(r['value'] for r in load_result(place / 'outputs/results/99_toy.smoke.json')['rows']) == sorted(10.*i + s for i in range(4) for s in range(3))


def test_on_a_cluster_and_without_one(place, signbook):
    path = notebook(place, '{"one": units.Toy(1.), "two": units.Toy(2.)}')
    done = signbook('run', path, '--backend', 'dask', '--scheduler', 'tcp://127.0.0.1:9')
    assert done.returncode == 1 and 'tcp://127.0.0.1:9' in done.stderr
    from distributed import LocalCluster
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        done = signbook('run', path, '--backend', 'dask', '--scheduler', cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    far = load_result(place / 'outputs/results/99_toy.smoke.json')
    assert sorted(r['value'] for r in far['rows']) == [10., 11., 12., 20., 21., 22.] and far['provenance']['parameters']['backend'] == 'dask'


def test_an_outputs_folder_that_cannot_be_written(place, signbook):
    (place / 'outputs').write_text('a file')
    done = signbook('run', notebook(place, '{"one": units.Toy(1.)}'))
    assert done.returncode == 2 and 'outputs' in done.stderr


def test_a_kernel_that_dies_ends_in_one_line(place, signbook):
    path = notebook(place, '{"one": units.Toy(1.)}')
    path.write_text(path.read_text().replace('import units', 'import os; os._exit(1)'))
    done = signbook('run', path)
    assert done.returncode == 1 and re.fullmatch(r'signbook: 99_toy: cell 2: DeadKernelError: Kernel died \(see .*99_toy.smoke.failed.ipynb\)', done.stderr.strip().splitlines()[-1])


def test_a_dry_run_knows_fresh_and_workers(place, signbook, monkeypatch):
    import units
    from signbook.experiment import Experiment, compute
    toy = Experiment('toy', units.toy, {'row': units.Toy(1., .1)}, (0, 1, 2))
    for seed in toy.seeds: compute(units.toy, toy.rows['row'], seed)
    monkeypatch.setattr('signbook.run.experiments_of', lambda path, typed: [toy])
    monkeypatch.setattr('signbook.run._span', lambda seconds: f'{seconds:.3f}')
    path = notebook(place, '{}')
    says = lambda *more: re.search(r'3 units, (\d) of them cached: ([\d.]+)', signbook('run', path, '--dry-run', *more).stdout).groups()
    assert says() == ('3', '0.000')
    (none, one), (_, three) = says('--fresh', '--workers', '1'), says('--fresh', '--workers', '3')
    assert none == '0' and float(one) > 2.5 * float(three) > 0.2
    assert says() == ('3', '0.000') and len(log(place, 'end')) == 3


def test_a_dry_run_passes_on_what_the_notebook_takes_besides(place, signbook, monkeypatch):
    done = signbook('run', '51_san_tables', '-p', 'candidates', place / 'none.json', '--dry-run')
    assert done.returncode == 2 and 'none.json' in done.stderr
    (place / 'mine.json').write_text('{"WIND": [["STORM", 0.9]]}')
    import signbook.tables.san as san
    asked = []
    monkeypatch.setattr(san, 'experiments', lambda scale, corpus, seeds, candidates='': asked.append((scale, seeds, candidates)) or [])
    assert signbook('run', '51_san_tables', '-p', 'candidates', place / 'mine.json', '--seeds', '4', '--dry-run').returncode == 0
    assert asked == [('smoke', (4,), str(place / 'mine.json'))]


def test_times_of_reference_results_hold_at_their_own_scale(place, signbook, monkeypatch):
    import units
    from signbook.experiment import Experiment
    monkeypatch.setattr('signbook.run.experiments_of', lambda path, typed: [Experiment('toy', units.toy, {'row': units.Toy()})])
    monkeypatch.setattr('signbook.run.predict', lambda e, device: dict(units=3, cached=0, seconds=60., source='reference'))
    path = notebook(place, '{}')
    said = [signbook('run', path, '--dry-run', *more).stdout for more in ((), ('--scale', 'smoke'), ('--scale', 'cpu'))]
    assert ['unknown time' in x for x in said] == [True, True, False] and 'about 60 s, by the reference results of another machine' in said[2]


def test_a_notebook_without_parameters_or_module_is_refused(place, signbook):
    path = notebook(place, '{}')
    nb = nbformat.read(path, 4)
    nb.cells.insert(1, nbformat.v4.new_code_cell('#| default_exp tables.nowhere'))
    nbformat.write(nb, path)
    done = signbook('run', path, '--dry-run')
    assert done.returncode == 2 and 'signbook.tables.nowhere: expected a module of that name, found none: nbdev_export writes it' in done.stderr
    nb.cells = [c for c in nb.cells if 'tags' not in c.metadata]
    nbformat.write(nb, path)
    for more in ((), ('--dry-run',), ('--scale', 'cpu')):
        done = signbook('run', path, *more)
        assert done.returncode == 2 and '99_toy.ipynb: parameters: expected a cell tagged `parameters` with scale' in done.stderr


def test_from_another_folder_results_land_in_the_clone(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith('SIGNBOOK')}
    done = subprocess.run([sys.executable, '-c', 'import signbook.core as c; print(c.__file__); print(c.outputs_dir())'], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    module, outputs = done.stdout.split('\n')[:2]
    if Path(module) != ROOT / 'signbook/core.py': pytest.skip('the package is not this clone')
    assert Path(outputs) == ROOT / 'outputs'
