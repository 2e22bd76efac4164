"The guides, followed to the letter."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from signbook.run import main

GUIDES, BIN = ROOT / 'docs/guides', Path(sys.executable).parent


def blocks(name, language):
    "Code blocks of a guide in one language, in order."
    return re.findall(rf'^```{language}\n(.*?)^```', (GUIDES / f'{name}.md').read_text(encoding='utf-8'), re.M | re.S)


def shell(commands, cwd, **env):
    "Run the lines of a console block in one shell; returns what they print."
    done = subprocess.run(['bash', '-ec', commands], cwd=cwd, capture_output=True, text=True, env={**os.environ, 'PATH': f'{BIN}:{os.environ["PATH"]}', **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_own_corpus(tmp_path, monkeypatch, capsys):
    from signbook.signworld import signworld
    isolated, _ = signworld('smoke', seed=3)
    at = tmp_path / 'data/mine'; at.mkdir(parents=True)
    frame = isolated.frame.iloc[:90].assign(name=[f'c{i}' for i in range(90)], gloss=np.arange(90) % 3, split=np.repeat(['train', 'val', 'test'], [60, 12, 18]))
    frame[['name', 'gloss', 'signer', 'split']].to_csv(at / 'labels.csv', index=False)
    for i, n in enumerate(frame['name']): np.save(at / f'{n}.npy', isolated.clips[i])
    reader, python, talks = blocks('own_corpus', 'python')
    assert len([line for line in reader.splitlines() if line.strip()]) <= 20
    (tmp_path / 'my_reader.py').write_text(reader); (tmp_path / 'use.py').write_text(python)
    (tmp_path / 'my_talks.py').write_text(talks); talking = tmp_path / 'data/talks'
    for n in ('resnet-18', 'mbart-large-cc25', 'mbart-large-50', 'talks/frames'): (tmp_path / 'data' / n).mkdir(parents=True)
    (talking / 'labels.csv').write_text('name,text,gloss,signer,split,frames\n' + ''.join(f'v{i},the wind blows,,s,{s},3\n' for i, s in enumerate(('train', 'train', 'dev', 'test'))))
    said = shell('\n'.join(blocks('own_corpus', 'console')) + '\npython use.py', tmp_path, SIGNBOOK_DATA=str(tmp_path / 'data'), SIGNBOOK_OUTPUTS=str(tmp_path / 'outputs'))
    assert 'mine' in said and '8 rows x 3 seeds: 33 units, 0 of them cached: unknown time' in said and 'scl talks: 11 rows x 3 seeds' in said
    r = json.loads(next((tmp_path / 'outputs/results').glob('11_semlex.mine*.json')).read_text())
    assert {c['corpus'] for c in r['rows']} == {'mine'} and all(c['value'] is not None for c in r['rows'])
    assert {'majority', 'PCA + logistic regression'} <= {c['row'] for c in r['rows']}
    (at / 'labels.csv').write_text('name,gloss,signer,split\nc0,a,s,everything\n')
    for k, v in dict(SIGNBOOK_READERS='mine=my_reader:read_mine', SIGNBOOK_DATA=str(tmp_path / 'data')).items(): monkeypatch.setenv(k, v)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    capsys.readouterr()
    assert main(['data', 'audit', 'mine']) == 2 and capsys.readouterr().err.strip() == 'signbook: data/mine/labels.csv: row 1: split: expected train, val or test, found everything'


def test_own_checkpoint(golden, tmp_path, monkeypatch):
    import torch
    z = np.load(golden / 'slgcn_openhands.npz')
    weights = {k.replace('enc/', 'model.encoder.'): torch.tensor(z[k]).float() for k in z.files if k.startswith('enc/')}
    torch.save({'epoch': 3, 'state_dict': weights}, tmp_path / 'encoder.ckpt')  # as Lightning writes it
    monkeypatch.chdir(tmp_path); here = {}
    for code in blocks('own_checkpoint', 'python'): exec(code, here)
    assert here['features'].shape[1] == 256 and 0 < here['density'].sdr < 150


def test_add_a_paper(tmp_path):
    tracked = subprocess.run(['git', 'ls-files', '-z', '-co', '--exclude-standard', 'signbook', 'data', 'outputs/reference', 'settings.ini', 'pyproject.toml', 'README.md'], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode: pytest.skip('not a git clone')
    for f in filter(None, tracked.stdout.split('\0')):
        if (ROOT / f).is_file(): (tmp_path / f).parent.mkdir(parents=True, exist_ok=True); shutil.copyfile(ROOT / f, tmp_path / f)
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'data/papers/toy.json').write_text(blocks('add_a_paper', 'json')[0])
    shutil.copyfile(GUIDES / 'template.ipynb', tmp_path / 'nbs/61_toy_tables.ipynb')
    said = shell(blocks('add_a_paper', 'console')[0], tmp_path, PYTHONPATH=str(tmp_path), SIGNBOOK_OUTPUTS=str(tmp_path / 'outputs'))
    assert '2 rows x 3 seeds: 6 units, 0 of them cached' in said
    r = json.loads((tmp_path / 'outputs/results/61_toy_tables.smoke.json').read_text())
    assert len(r['rows']) == 6 and r['claims'][0]['verdict'] in ('holds', 'inconclusive', 'contradicted')
    page = (tmp_path / 'outputs/report.html').read_text()
    assert 'A longer margin recognises better' in page and 'notebook 61_toy_tables' in page


def test_colab_clones_installs_and_calls_what_exists(tmp_path):
    if not (ROOT / '.git').exists(): pytest.skip('not a git clone')
    cells = [''.join(c['source']) for c in json.loads((GUIDES / 'colab.ipynb').read_text())['cells'] if c['cell_type'] == 'code']
    clone, folder, install = cells[1].split('\n')
    shell(clone.removeprefix('!').replace('{source}', str(ROOT)), tmp_path)
    assert folder == '%cd signbook' and (tmp_path / 'signbook/constraints.txt').is_file() and install == '%pip install -q -c constraints.txt -e .'
    doctor, (run, report) = cells[2].removeprefix('!'), (line.removeprefix('!') for line in cells[3].split('\n'))
    assert 'Tables' in shell(f'{doctor}\n{run} --dry-run\n{report}', tmp_path, SIGNBOOK_OUTPUTS=str(tmp_path / 'outputs'), SIGNBOOK_DATA=str(tmp_path / 'data'))
    assert (tmp_path / 'outputs/report.html').is_file() and 'outputs/report.html' in cells[4]
