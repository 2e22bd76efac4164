"The signbook command, as a user calls it."
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT
from signbook.corpora import recipes
from signbook.evidence import load_result
from signbook.run import main, table_notebooks

BIN = Path(sys.executable).parent
SIGNBOOK = BIN / 'signbook'
STORED = Path(sys.prefix) / 'test-outputs/units'  # of the notebook tests that `make test` runs first


@pytest.fixture
def signbook(capsys, monkeypatch):
    "The command in this process: (exit code, standard output, standard error); `env` for this test."
    def call(*argv, **env):
        for k, v in env.items(): monkeypatch.setenv(k, str(v))
        try: code = main([str(a) for a in argv])
        except SystemExit as e: code = e.code
        return SimpleNamespace(returncode=code, **dict(zip(('stdout', 'stderr'), capsys.readouterr())))
    monkeypatch.chdir(ROOT)
    return call


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
def test_a_wrong_call_is_refused_with_the_nearest_names(argv, says, place, signbook):
    done = signbook(*argv)
    assert done.returncode == 2 and says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith('signbook')]) == 1


@pytest.mark.parametrize('argv', [['list'], ['doctor'], ['data', 'list'], ['data', 'check'], ['--help'], ['run', '--help'], ['run', '12_autsl', '--dry-run']])
def test_looking_changes_nothing(argv, place, signbook):
    done = signbook(*argv)
    assert done.returncode == 0 and done.stdout and not (place / 'outputs').exists()


def test_the_installed_command_is_this_one(place):
    done = subprocess.run([SIGNBOOK, 'rnu'], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "signbook: command: expected a known command (nearest: run), found 'rnu'\n")


def test_a_reader_may_stop_before_the_end(place):
    run = subprocess.Popen([SIGNBOOK, 'list'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    run.stdout.close()
    assert (run.wait(60), run.stderr.read()) == (0, '')


@pytest.mark.parametrize('name', table_notebooks())
def test_without_data_a_table_says_what_it_needs(name, place, signbook):
    if STORED.is_dir():
        (place / 'outputs').mkdir()
        (place / 'outputs/units').symlink_to(STORED)
    done = signbook('run', name, '--seeds', '0,1')
    assert done.returncode == 0, done.stderr
    result = load_result(next((place / 'outputs/results').glob(f'{name}.*json')))
    assert result['provenance']['parameters']['seeds'] == '0,1'
    assert all('signbook data fetch' in m['command'] or 'put' in m['command'] for m in result['not_run'])
    assert result['rows'] or result['not_run']


def test_run_on_real_data_finds_the_printed_numbers_and_papermill_the_same(real, place, signbook, tmp_path_factory):
    at = place / 'outputs/results/12_autsl.smoke.json'
    done = signbook('run', '12_autsl', '-p', 'seeds', '7', '--scale', 'smoke', SIGNBOOK_DATA=real)
    assert done.returncode == 0, done.stderr
    ours = load_result(at)
    assert {k: ours['provenance']['parameters'][k] for k in ('scale', 'seeds')} == {'scale': 'smoke', 'seeds': '7'}
    cells = {(r['row'], r['column']): r for r in ours['rows']}
    assert round(cells['ensemble fine-tuned on validation, RGB', 'top-1']['value'], 2) == 98.42
    assert round(cells['ensemble fine-tuned on validation, RGB-D', 'top-1']['value'], 2) == 98.53
    assert [round(cells[f'SL-GCN {s}', 'top-1']['value'], 2) for s in ('joint', 'bone', 'joint motion', 'bone motion', 'four streams')] == [95.35, 95.70, 93.21, 93.29, 96.47]
    assert {c['id']: c['verdict'] for c in ours['claims']}['samslr-depth-helps'] == 'inconclusive'
    assert round(cells['SL-GCN joint', 'MRR']['value'], 4) == .9722 and round(cells['SL-GCN joint', 'MRR, released code']['value'], 4) == .4897
    at.unlink()
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    subprocess.run([BIN / 'papermill', ROOT / 'nbs/12_autsl.ipynb', 'out.ipynb', '-p', 'seeds', '7', '-p', 'scale', 'smoke'], cwd=elsewhere, check=True, capture_output=True)
    theirs = load_result(at)
    assert {k: theirs[k] for k in ('rows', 'claims', 'not_run', 'figures')} == {k: ours[k] for k in ('rows', 'claims', 'not_run', 'figures')}
    assert theirs['provenance']['parameters'] == ours['provenance']['parameters'] and len(theirs['provenance']['units']) == 14
    assert os.listdir(elsewhere) == ['out.ipynb']
    assert '14 units, 14 of them cached: about 0 s' in signbook('run', '12_autsl', '--dry-run', '--seeds', '7').stdout
    assert re.search(r'14 units, 0 of them cached: about \d+ s, by units recorded here', signbook('run', '12_autsl', '--dry-run', '--scale', 'cpu').stdout)


def test_a_broken_notebook_is_refused_with_its_line(place, signbook):
    (place / 'mine.ipynb').write_text('{"cells": [\n  {"cell_type": }]}')
    done = signbook('run', place / 'mine.ipynb')
    assert done.returncode == 2 and 'mine.ipynb' in done.stderr and 'line 2' in done.stderr


def test_reproduce_goes_on_when_one_notebook_fails(place, signbook):
    (place / 'data/autsl-scores').mkdir(parents=True)
    for f in recipes()['autsl-scores']['files']:
        with open(place / 'data/autsl-scores' / f['name'], 'wb') as out: out.truncate(f['bytes'])
    done = signbook('reproduce', '--only', '12_autsl,13_phoenix')
    assert done.returncode == 1
    assert '[1/2] 12_autsl: FAILED' in done.stdout and '[2/2] 13_phoenix: ' in done.stdout and 'autsl_test_labels.csv' in done.stdout
    assert (place / 'outputs/report.html').exists()
    assert (place / 'outputs/notebooks/12_autsl.smoke.failed.ipynb').exists() and not (place / 'outputs/notebooks/12_autsl.smoke.ipynb').exists()


def test_audit_of_a_real_corpus_from_the_command_line(real, place, signbook):
    done = signbook('data', 'audit', 'phoenix14t', SIGNBOOK_DATA=real)
    assert done.returncode == 0 and '12 of 642' in done.stdout


def test_a_mirror_serves_and_a_wrong_file_is_refused(real, place, signbook):
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


def test_data_that_git_brings_have_a_size_and_are_checked(real, place, signbook):
    line = signbook('data', 'list', 'isl30').stdout.splitlines()
    assert '37.2 MB' in line[0] and line[-1].strip() == 'signbook data fetch isl30'
    assert 'by hand' in signbook('data', 'list', 'csl-daily').stdout
    if not (real / 'isl30/RawDataset.tar.xz').is_file(): pytest.skip('no packed isl30')
    assert signbook('data', 'fetch', 'isl30', SIGNBOOK_MIRROR=real).returncode == 0
    assert 'isl30: every file has its SHA-256' in signbook('data', 'check', 'isl30').stdout
