"The project itself: notebooks in step with the package, tags, wheel, no trace of a machine."
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT
from test_readme import EXAMPLES
from signbook.run import table_notebooks

NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))
BIN = Path(sys.executable).parent


def tracked():
    "Files that git knows or would add, where this is a clone."
    done = subprocess.run(['git', 'ls-files', '-z', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True)
    if done.returncode: pytest.skip('not a git clone')
    return [f for f in done.stdout.split('\0') if f and (ROOT / f).is_file()]


@pytest.fixture(scope='module')
def regenerated(tmp_path_factory):
    "A copy of the tree after nbdev_clean and nbdev_export."
    copy = tmp_path_factory.mktemp('tree')
    for f in tracked():
        (copy / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / f, copy / f)
    for tool in ('nbdev_clean', 'nbdev_export'):
        subprocess.run([BIN / tool], cwd=copy, check=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(copy)})
    return copy


@pytest.mark.parametrize('folder', ['nbs', 'signbook'])
def test_nbdev_clean_and_export_change_nothing(regenerated, folder):
    ours = {f for f in tracked() if f.startswith(folder + '/')}
    theirs = {str(p.relative_to(regenerated)) for p in (regenerated / folder).rglob('*') if p.is_file() and '__pycache__' not in p.parts}
    assert ours == theirs
    assert [f for f in sorted(ours) if (ROOT / f).read_bytes() != (regenerated / f).read_bytes()] == []


def tags(path): return [c['metadata'].get('tags', []) for c in json.loads(path.read_text())['cells']]


@pytest.mark.parametrize('name', table_notebooks())
def test_one_parameters_cell_that_survives_cleaning(name, regenerated):
    for folder in (ROOT, regenerated):
        assert sum('parameters' in t for t in tags(folder / 'nbs' / f'{name}.ipynb')) == 1


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_committed_with_outputs_and_without_errors(path):
    cells = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    assert any(c['outputs'] for c in cells)
    assert not [o for c in cells for o in c['outputs'] if o['output_type'] == 'error']
    assert max(len(''.join(c['source']).splitlines()) for c in cells) <= 45


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_running_a_notebook_changes_no_code(path):
    assert not [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code' and re.search(r'^\s*(from|import) nbdev|^!', ''.join(c['source']), re.M)]


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if re.match(r'(1[1-9]|22|3[23]|42|51)_', p.stem)], ids=lambda p: p.stem)
def test_every_table_notebook_has_the_same_parameters(path):
    from signbook.run import notebook_parameters
    own = {'51_san_tables': ['candidates']}.get(path.stem, [])
    assert list(notebook_parameters(path)) == ['scale', 'corpus', 'seeds', 'device', 'backend', 'out', *own]


def test_no_machine_path_or_registry_in_the_tree():
    odd = re.compile(r'(?<!\w)/(work|root|tmp|home/[a-z]+)/|file:/{3}')
    text = [f for f in tracked() if f.endswith(('.ipynb', '.py', '.md', '.json', '.ini', '.toml', '.txt', '.svg'))]
    assert [f for f in text if odd.search((ROOT / f).read_text(encoding='utf-8'))] == []


def test_wheel_carries_notebooks_papers_recipes_and_reference(tmp_path):
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', tmp_path, ROOT], check=True)
    names = zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist()
    for f in [*(ROOT / 'nbs').glob('*.ipynb')]: assert f'signbook/notebooks/{f.name}' in names
    for f in [*(ROOT / 'data/papers').glob('*.json')]: assert f'signbook/papers/{f.name}' in names
    for f in [*(ROOT / 'data/recipes').glob('*.json')]: assert f'signbook/recipes/{f.name}' in names
    for f in [*(ROOT / 'outputs/reference').glob('*.json')]: assert f'signbook/reference/{f.name}' in names
    unpacked = tmp_path / 'site'
    zipfile.ZipFile(next(tmp_path.glob('*.whl'))).extractall(unpacked)
    (unpacked / 'nbdev.py').write_text('raise ImportError("nbdev")')  # the environment has it, a user need not
    where = dict(cwd=tmp_path, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(unpacked), 'SIGNBOOK_DATA': str(tmp_path / 'data'), 'SIGNBOOK_OUTPUTS': str(tmp_path / 'outputs')})
    python = lambda code: subprocess.run([sys.executable, '-c', code], **where)
    done = python('import signbook, signbook.evidence as e; print(signbook.__file__, len(e.papers()))')
    assert done.stdout.split() == [str(unpacked / 'signbook/__init__.py'), str(len(list((ROOT / 'data/papers').glob('*.json'))))]
    for line in ('doctor', 'list'): done = python(f'from signbook.run import main; exit(main([{line!r}]))'); assert done.returncode == 0 and '32_signcl_tables' in done.stdout, done.stderr
    done = python('\n'.join(e for e in EXAMPLES if 'load_corpus' not in e)); assert done.returncode == 0, done.stderr
