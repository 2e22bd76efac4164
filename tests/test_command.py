"The signbook command, as a user calls it."
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from signbook.corpora import recipes
from signbook.evidence import load_result
from signbook.run import table_notebooks

SIGNBOOK = Path(sys.executable).parent / 'signbook'
STORED = Path(sys.prefix) / 'test-outputs/units'  # of the notebook tests that `make test` runs first


def signbook(*argv, **env):
    return subprocess.run([SIGNBOOK, *map(str, argv)], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **{k: str(v) for k, v in env.items()}}, timeout=600)


@pytest.mark.parametrize('argv, says', [
    (['rnu'], 'nearest: run'),
    (['run', '12_autls'], 'nearest: 12_autsl'),
    (['run', '12_autsl', '-p', 'sedes', '7'], 'nearest: seeds'),
    (['run', '12_autsl', '--scale', 'smok'], 'nearest: smoke'),
    (['run', '12_autsl', '--corpus', 'autsl-score'], 'nearest: autsl-scores'),
    (['run', '12_autsl', '--backend', 'daks'], 'nearest: dask'),
    (['run', '12_autsl', '--seeds', '1,1'], 'distinct integers'),
    (['run', '12_autsl', '-p', 'seeds'], 'pairs of name and value'),
    (['run', '12_autsl', '--seeds', '1', '-p', 'seeds', '2'], 'one value'),
    (['reproduce', '--scale', 'huge'], 'scale'),
    (['reproduce', '--only', '12_autls'], 'nearest: 12_autsl'),
    (['data', 'fetch', 'autsl-score'], 'nearest: autsl-scores'),
    (['data', 'audit', 'phoenix14'], 'nearest: phoenix14t'),
    (['data', 'audit', 'isl30'], 'signbook data fetch isl30'),
    (['data', 'fetch', 'phoenix14t'], '--accept-licence'),
    (['data', 'fetch', 'csl-daily'], 'by hand'),
    (['data', 'fecth'], 'nearest: fetch'),
    (['run'], 'notebook'),
])
def test_a_wrong_call_is_refused_with_the_nearest_names(argv, says, place):
    done = signbook(*argv)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith('signbook')]) == 1


@pytest.mark.parametrize('argv', [['list'], ['doctor'], ['data', 'list'], ['data', 'check'], ['--help'], ['run', '--help'], ['run', '12_autsl', '--dry-run']])
def test_looking_changes_nothing(argv, place):
    done = signbook(*argv)
    assert done.returncode == 0 and done.stdout and not (place / 'outputs').exists()


def test_a_reader_may_stop_before_the_end(place):
    run = subprocess.Popen([SIGNBOOK, 'list'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    run.stdout.close()
    assert (run.wait(60), run.stderr.read()) == (0, '')


@pytest.mark.parametrize('name', table_notebooks())
def test_without_data_a_table_says_what_it_needs(name, place):
    if STORED.is_dir():
        (place / 'outputs').mkdir()
        (place / 'outputs/units').symlink_to(STORED)
    done = signbook('run', name, '--seeds', '0,1')
    assert done.returncode == 0, done.stderr
    result = load_result(next((place / 'outputs/results').glob(f'{name}.*json')))
    assert result['provenance']['parameters']['seeds'] == '0,1'
    assert all('signbook data fetch' in m['command'] or 'put' in m['command'] for m in result['not_run'])
    assert result['rows'] or result['not_run']


def test_run_on_real_data_records_parameters_and_finds_the_printed_numbers(real, place):
    done = signbook('run', '12_autsl', '-p', 'seeds', '7', '--scale', 'smoke', SIGNBOOK_DATA=real)
    assert done.returncode == 0, done.stderr
    result = load_result(place / 'outputs/results/12_autsl.smoke.json')
    assert {k: result['provenance']['parameters'][k] for k in ('scale', 'seeds')} == {'scale': 'smoke', 'seeds': '7'}
    cells = {(r['row'], r['column']): r for r in result['rows']}
    assert round(cells['ensemble fine-tuned on validation, RGB', 'top-1']['value'], 2) == 98.42
    assert round(cells['ensemble fine-tuned on validation, RGB-D', 'top-1']['value'], 2) == 98.53
    assert [round(cells[f'SL-GCN {s}', 'top-1']['value'], 2) for s in ('joint', 'bone', 'joint motion', 'bone motion', 'four streams')] == [95.35, 95.70, 93.21, 93.29, 96.47]
    assert {c['id']: c['verdict'] for c in result['claims']}['samslr-depth-helps'] == 'inconclusive'
    assert round(cells['SL-GCN joint', 'MRR']['value'], 4) == .9722 and round(cells['SL-GCN joint', 'MRR, released code']['value'], 4) == .4897


def test_a_broken_notebook_is_refused_with_its_line(place):
    (place / 'mine.ipynb').write_text('{"cells": [\n  {"cell_type": }]}')
    done = signbook('run', place / 'mine.ipynb')
    assert done.returncode == 2 and 'mine.ipynb' in done.stderr and 'line 2' in done.stderr and 'Traceback' not in done.stderr


def test_reproduce_goes_on_when_one_notebook_fails(place, tmp_path):
    (place / 'data/autsl-scores').mkdir(parents=True)
    for f in recipes()['autsl-scores']['files']:
        with open(place / 'data/autsl-scores' / f['name'], 'wb') as out: out.truncate(f['bytes'])
    done = signbook('reproduce', '--only', '12_autsl,13_phoenix')
    assert done.returncode == 1
    assert '[1/2] 12_autsl: FAILED' in done.stdout and '[2/2] 13_phoenix: ' in done.stdout and 'autsl_test_labels.csv' in done.stdout
    assert (place / 'outputs/report.html').exists()
    assert (place / 'outputs/notebooks/12_autsl.smoke.failed.ipynb').exists() and not (place / 'outputs/notebooks/12_autsl.smoke.ipynb').exists()


def test_a_killed_run_leaves_whole_files_or_none(real, place):
    results, rng = place / 'outputs/results', random.Random(0)
    for _ in range(4):
        run = subprocess.Popen([SIGNBOOK, 'run', '12_autsl'], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, 'SIGNBOOK_DATA': str(real)})
        time.sleep(rng.uniform(2, 9))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        for f in results.glob('[!.]*.json'): load_result(f)
        for f in (place / 'outputs/notebooks').glob('*.ipynb'): json.loads(f.read_text())
    assert signbook('run', '12_autsl', SIGNBOOK_DATA=real).returncode == 0


def test_audit_of_a_real_corpus_from_the_command_line(real, place):
    done = signbook('data', 'audit', 'phoenix14t', SIGNBOOK_DATA=real)
    assert done.returncode == 0 and '12 of 642' in done.stdout


def test_a_mirror_serves_and_a_wrong_file_is_refused(real, place):
    done = signbook('data', 'fetch', 'autsl-scores', SIGNBOOK_MIRROR=real)
    assert done.returncode == 0, done.stderr
    assert signbook('data', 'check', 'autsl-scores').returncode == 0
    labels = place / 'data/autsl-scores/autsl_test_labels.csv'
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + b'9')
    done = signbook('data', 'check', 'autsl-scores')
    assert done.returncode == 1 and 'sha256' in done.stdout
    wrong = place / 'mirror/autsl-scores'
    wrong.mkdir(parents=True)
    (wrong / labels.name).write_bytes(whole[:-1] + b'9')
    labels.unlink()
    done = signbook('data', 'fetch', 'autsl-scores', SIGNBOOK_MIRROR=place / 'mirror')
    assert done.returncode == 2 and 'sha256' in done.stderr and not labels.exists()
