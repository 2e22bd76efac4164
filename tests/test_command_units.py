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

import nbformat
import pytest

from conftest import ROOT
from signbook.evidence import load_result

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
def env(place): return {**os.environ, 'UNITS_LOG': str(place / 'log'), 'PYTHONPATH': str(TESTS)}


def signbook(env, *argv, cwd=ROOT): return subprocess.run([BIN / 'signbook', *map(str, argv)], cwd=cwd, capture_output=True, text=True, env=env, timeout=300)


def log(place, word): return [line for line in (place / 'log').read_text().splitlines() if line.startswith(word + ' ')] if (place / 'log').exists() else []


def records(place): return {p: p.stat().st_mtime_ns for p in (place / 'outputs/units').glob('*/*.json')}


def test_lines_costs_cache_and_fresh(place, env):
    path = notebook(place, '{"one": units.Toy(1.), "two": units.Toy(2.)}')
    done = signbook(env, 'run', path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r'^  \[(\d)/6\] (one|two) seed \d: y ', done.stdout, re.M) and '[6/6]' in done.stdout
    assert re.search(r'toy: 6 units \(0 cached\), [\d.]+ s wall and [\d.]+ s CPU each, peak \d+ MiB on cpu', done.stdout)
    assert len(log(place, 'end')) == 6
    assert '6 units (6 cached)' in signbook(env, 'run', path).stdout and len(log(place, 'end')) == 6
    assert '6 units (0 cached)' in signbook(env, 'run', path, '--fresh', '--workers', '1').stdout and len(log(place, 'end')) == 12
    notebook(place, '{"one": units.Toy(1.), "two": units.Toy(3.)}')
    assert '6 units (3 cached)' in signbook(env, 'run', path).stdout and len(log(place, 'end')) == 15
    said = signbook(env, 'clean')
    assert said.returncode == 0 and 'would free 0.0 MB: 0 stale units' in said.stdout and len(records(place)) == 9
    assert 'freed' in signbook(env, 'clean', '--everything', '--yes').stdout and not records(place)
    assert (place / 'outputs/results/99_toy.smoke.json').exists()


def test_a_failing_unit_fails_the_run_and_nothing_else(place, env):
    done = signbook(env, 'run', notebook(place, '{"good": units.Toy(1.), "bad": units.Toy(2., trouble="error")}'))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    rows = load_result(place / 'outputs/results/99_toy.smoke.json')['rows']
    assert [r['value'] for r in rows if r['row'] == 'good'] == [10., 11., 12.]
    bad = [r for r in rows if r['row'] == 'bad']
    assert len(bad) == 3 and all(r['value'] is None and 'ValueError: no such gloss' in r['error'] for r in bad)
    assert signbook(env, 'report').returncode == 0
    page = (place / 'outputs/report.html').read_text()
    assert 'failed:' in page and 'no such gloss' in page


def test_killed_at_random_moments_loses_at_most_what_was_in_flight(place, env):
    path, rng, kept = notebook(place, '{f"row {i}": units.Toy(float(i), seconds=.4) for i in range(6)}'), random.Random(3), {}
    for _ in range(3):
        run = subprocess.Popen([BIN / 'signbook', 'run', path], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env)
        time.sleep(rng.uniform(7, 12))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        subprocess.run(['pkill', '-KILL', '-f', str(place / 'log')], check=False)
        time.sleep(.5)
        assert kept.items() <= records(place).items()
        kept = records(place)
        for p in kept: json.loads(p.read_text())
    done = signbook(env, 'run', path)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= records(place).items() and len(records(place)) == 18
    assert sorted(r['value'] for r in load_result(place / 'outputs/results/99_toy.smoke.json')['rows']) == sorted(10.*i + s for i in range(6) for s in range(3))


def test_on_a_cluster_and_without_one(place, env):
    path = notebook(place, '{"one": units.Toy(1.), "two": units.Toy(2.)}')
    done = signbook(env, 'run', path, '--backend', 'dask', '--scheduler', 'tcp://127.0.0.1:9')
    assert done.returncode == 1 and 'tcp://127.0.0.1:9' in done.stderr and 'Traceback' not in done.stderr
    from distributed import LocalCluster
    old = os.environ.get('PYTHONPATH')
    os.environ.update({k: env[k] for k in ('PYTHONPATH', 'UNITS_LOG')})
    try:
        with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
            done = signbook(env, 'run', path, '--backend', 'dask', '--scheduler', cluster.scheduler_address)
    finally:
        del os.environ['UNITS_LOG']
        os.environ.pop('PYTHONPATH') if old is None else os.environ.update(PYTHONPATH=old)
    assert done.returncode == 0, done.stderr
    far = load_result(place / 'outputs/results/99_toy.smoke.json')['rows']
    assert signbook(env, 'run', path, '--fresh').returncode == 0
    assert load_result(place / 'outputs/results/99_toy.smoke.json')['rows'] == far


def test_an_outputs_folder_that_cannot_be_written(place, env):
    (place / 'outputs').write_text('a file')
    done = signbook(env, 'run', notebook(place, '{"one": units.Toy(1.)}'))
    assert done.returncode in (1, 2) and 'Traceback' not in done.stderr and 'outputs' in done.stderr


def test_papermill_as_users_do_it_gives_the_same_result_file(place, env, tmp_path_factory, real):
    env, elsewhere = {**env, 'SIGNBOOK_DATA': str(real)}, tmp_path_factory.mktemp('elsewhere')
    at = place / 'outputs/results/12_autsl.smoke.json'
    done = signbook(env, 'run', '12_autsl', '--seeds', '7', '--scale', 'smoke')
    assert done.returncode == 0, done.stderr
    ours = load_result(at)
    at.unlink()
    subprocess.run([BIN / 'papermill', ROOT / 'nbs/12_autsl.ipynb', 'out.ipynb', '-p', 'seeds', '7', '-p', 'scale', 'smoke'], cwd=elsewhere, env=env, check=True, capture_output=True)
    theirs = load_result(at)
    assert {k: theirs[k] for k in ('rows', 'claims', 'not_run', 'figures')} == {k: ours[k] for k in ('rows', 'claims', 'not_run', 'figures')}
    assert theirs['provenance']['parameters'] == ours['provenance']['parameters'] and len(theirs['provenance']['units']) == 14
    assert os.listdir(elsewhere) == ['out.ipynb']
    said = signbook(env, 'run', '12_autsl', '--dry-run', '--seeds', '7').stdout
    assert '14 units, 14 of them cached: about 0 s' in said
    said = signbook(env, 'run', '12_autsl', '--dry-run', '--scale', 'cpu').stdout
    assert re.search(r'14 units, 0 of them cached: about \d+ s, by units recorded here', said)


def test_from_another_folder_results_land_in_the_clone(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith('SIGNBOOK')}
    done = subprocess.run([sys.executable, '-c', 'import signbook.core as c; print(c.outputs_dir())'], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) in (ROOT / 'outputs', tmp_path / 'outputs')
