"Units of work: what a key holds, records that are damaged, kills, two runs at once, lack of memory, a real cluster."
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import signbook.experiment as ex
import units
from signbook.core import InputError, save_json
from signbook.experiment import Experiment, compute, find_unit, fingerprint, load_record, source_of
from units import Net, Toy

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def log(place, monkeypatch):
    for v in ('SIGNBOOK_FRESH', 'SIGNBOOK_WORKERS', 'SIGNBOOK_SCHEDULER', 'SIGNBOOK_PROGRESS'): monkeypatch.delenv(v, raising=False)
    monkeypatch.setenv('UNITS_LOG', str(place / 'log'))
    (place / 'log').touch()
    return place / 'log'


def lines(log, word): return [x.split()[1:] for x in log.read_text().splitlines() if x.split()[0] == word]


def one_line(info, *parts):
    assert '\n' not in str(info.value)
    for p in parts: assert p in str(info.value)


def records(place, unit): return sorted((place / 'outputs/units' / unit).glob('*.json'))


PACKAGE = {
    '__init__.py': 'from .models import Model\n',
    'unit.py': '''
        "Module docstring."
        import numpy as np
        from functools import cache
        from fastcore.basics import patch
        from . import data, elsewhere, registry
        from .models import Model
        from .models import helper as assist
        from .stars import *
        try: import nothing_of_that_name as fast
        except ImportError: fast = None
        RATE, OTHER = .5, 1
        TABLE = {}
        TABLE['late'] = 'first'
        class Config:
            "Docstring."
            def area(self): return 1
        @patch
        def twice(self:Config): return 2
        def figure(r): return r
        def named(): return 'by string'
        def main(config, seed, device):
            "Docstring."
            m = Model(); m.step(); data.load(); assist(); shine(); registry.find('named')  # comment
            return {'y': RATE}
        ''',
    'models.py': '''
        from .deep import WIDTH
        class Model:
            def step(self): return WIDTH
        def helper(): return 3
        def unused(): return 4
        ''',
    'deep.py': 'WIDTH = 8\ndef plot(): return 1\n', 'stars.py': 'def shine(): return 5\ndef dull(): return 6\n',
    'data.py': 'import math\nPATH = "a"\ndef load(): return PATH\ndef save(): return 1\n',
    'registry.py': '''
        KNOWN = {}
        def add(f): KNOWN[f.__name__] = f; return f
        def find(n): return KNOWN.get(n)
        @add
        def registered(): return 'yes'
        ''',
    'elsewhere.py': '''
        from . import registry
        @registry.add
        def far(): return 'far'
        def late(): return 'late'
        _ = registry.add(late)
        def idle(): return 7
        ''',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    "Writes a package under a new name and returns its name and a function that edits it."
    name = f'gull{random.randrange(10**9)}'
    (tmp_path / name).mkdir()
    for f, text in PACKAGE.items(): (tmp_path / name / f).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(str(tmp_path))

    def edit(file, old, new):
        path = tmp_path / name / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return lambda: path.write_text(text)
    return name, edit


USED = [('unit.py', 'RATE, OTHER = .5', 'RATE, OTHER = .6'), ('unit.py', "'first'", "'second'"), ('unit.py', "{'y': RATE}", "{'y': 2*RATE}"), ('unit.py', 'fast = None', 'fast = 0'), ('unit.py', "'by string'", "'by text'"),
        ('models.py', 'return WIDTH', 'return WIDTH + 1'), ('models.py', 'return 3', 'return 33'), ('deep.py', 'WIDTH = 8', 'WIDTH = 9'), ('stars.py', 'return 5', 'return 55'), ('data.py', 'PATH = "a"', 'PATH = "b"'),
        ('data.py', 'return PATH', 'return PATH*2'), ('registry.py', "'yes'", "'no'"), ('elsewhere.py', "'far'", "'near'"), ('elsewhere.py', "'late'", "'soon'"), ('registry.py', 'KNOWN.get(n)', 'KNOWN[n]'), ('__init__.py', 'import Model\n', 'import Model\nprint("loaded")\n')]
UNUSED = [('unit.py', 'def figure(r): return r', 'def figure(r): return 2*r'), ('unit.py', '# comment', '# other'), ('unit.py', '"Docstring."\n    m =', '"More."\n    m ='), ('unit.py', '"Module docstring."', '"Other."'), ('unit.py', 'return 2', 'return 22'),
          ('models.py', 'return 4', 'return 44'), ('deep.py', 'return 1', 'return 11'), ('stars.py', 'return 6', 'return 66'), ('data.py', 'return 1', 'return 11'), ('elsewhere.py', 'return 7', 'return 77')]


def test_the_source_of_a_unit_is_what_it_uses(package):
    name, edit = package
    unit = find_unit(f'{name}.unit.main')
    first = fingerprint(unit)
    for e in USED:
        undo = edit(*e)
        assert fingerprint(unit) != first, e
        undo()
    for e in UNUSED:
        undo = edit(*e)
        assert fingerprint(unit) == first, e
        undo()
    assert fingerprint(unit) == first


def test_the_old_code_never_writes_under_the_key_of_the_new(place, package):
    name, edit = package
    unit = find_unit(f'{name}.unit.main')
    first = compute(unit, {}, 0)
    undo = edit('deep.py', 'WIDTH = 8', 'WIDTH = 9999')
    with pytest.raises(InputError) as e: compute(unit, {}, 0)
    one_line(e, f'{name}.unit.main: source: expected what this process has imported', f'found {name}.deep.WIDTH edited since')
    with pytest.raises(InputError): compute(unit, {}, 1)
    assert len(records(place, f'{name}.unit.main')) == 1
    undo()
    assert compute(unit, {}, 0) == first
    undo = edit('deep.py', 'WIDTH = 8', 'WIDTH = 8  # as before')
    assert compute(unit, {}, 2).source == first.source
    undo()
    edit('deep.py', 'WIDTH = 8', 'WIDTH = 7777')
    code = f'from signbook.experiment import compute, find_unit; print(compute(find_unit("{name}.unit.main"), dict(), 0).source)'
    new = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True).stdout.strip()
    assert new != first.source and compute(unit, {}, 0).source == new
    for m in ('deep', 'models', 'unit'): importlib.reload(sys.modules[f'{name}.{m}'])
    assert compute(find_unit(f'{name}.unit.main'), {}, 1).source == new


LONG = {'__init__.py': '', 'below.py': 'def base(config, seed, device): return {"x": 1}\n', 'later.py': 'X = 1\n', 'top.py': """
    import time
    from pathlib import Path
    from signbook.experiment import compute
    from .below import base
    def row(config, seed, device):
        until = Path(config['flag'])
        Path(config['flag'] + '.started').touch()
        while not until.exists(): time.sleep(.01)
        return {'x': compute(base, {}, seed).metrics['x']}
    def lazy(config, seed, device):
        Path(__file__).with_name('later.py').write_text('X = 22\\n')
        from . import later
        return {'x': later.X}
    """}


def test_an_edit_during_a_run(place, tmp_path, monkeypatch):
    name = f'tern{random.randrange(10**9)}'
    (tmp_path / name).mkdir()
    for f, text in LONG.items(): (tmp_path / name / f).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(sys.path))
    row, base, flag = find_unit(f'{name}.top.row'), find_unit(f'{name}.below.base'), tmp_path / 'flag'
    old = fingerprint(base)

    def edit():
        until(lambda: flag.with_name('flag.started').exists())
        (tmp_path / name / 'below.py').write_text('def base(config, seed, device): return {"x": 2222}\n')
        flag.touch()
    editor = threading.Thread(target=edit)
    editor.start()
    got = Experiment('long', row, {'a': dict(flag=str(flag))}, [0]).run(workers=1, progress=False)
    editor.join()
    assert not got.failures and got.values('a', 'x') == [1]
    assert [load_record(p).source for p in records(place, f'{name}.below.base')] == [old] != [fingerprint(base)]
    with pytest.raises(InputError) as e: compute(find_unit(f'{name}.top.lazy'), {}, 0)
    one_line(e, f'{name}.top.lazy: source: expected what this process has imported')
    assert not records(place, f'{name}.top.lazy')


def test_a_config_class_brings_its_methods_also_patched_ones(package):
    name, edit = package
    unit, types = find_unit(f'{name}.unit.main'), (f'{name}.unit.Config',)
    first = fingerprint(unit, types)
    for e in (('unit.py', 'return 2', 'return 22'), ('unit.py', 'return 1', 'return 11')):
        undo = edit(*e)
        assert fingerprint(unit, types) != first
        undo()
    assert fingerprint(unit, types) == first


def test_the_source_of_real_units_leaves_this_machinery_out():
    found = source_of(units.built)
    assert {'units.built', 'units.base', 'units.Toy', 'units.note'} <= set(found)
    assert not [n for n in found if n.startswith('signbook.experiment')]
    assert 'signbook.training.fit' in source_of(units.train) and 'signbook.training.learning_curve' not in source_of(units.train)
    assert 'units.toy' not in found


def test_a_key_holds_all_that_decides():
    key = lambda config=Toy(), seed=0, unit=units.toy, **k: ex._task(unit, config, seed, **k).key
    assert key() == key(Toy(1.)) == key(device='cpu')
    assert key({'a': (1, 2)}) == key({'a': [1, 2]})
    assert key(device='cuda:0') == key(device='cuda:3')
    variants = [key(), key(Toy(2.)), key(seed=1), key(seed=None), key(unit=units.base), key(device='cuda'), key(threads=2), key(corpora={'a': '1'}), key(corpora={'a': '2'}), key(Net()), key(Net(fit=units.FitConfig(epochs=4)))]
    assert len(set(variants)) == len(variants)


def test_a_hit_is_the_record_and_its_tensors(place, log):
    first = compute(units.base, Toy(2.), None)
    again = compute(units.base, Toy(2.), None)
    assert again == first and lines(log, 'base') == [['2.0', 'None']]
    assert {k: (v.dtype, v.tolist()) for k, v in again.tensors().items()} == {'w': (torch.float64, [2.] * 3), 'b': (torch.uint8, [0, 1, 2, 3])}
    assert load_record(records(place, 'units.base')[0]) == first
    assert compute(units.base, Toy(2.), None, fresh=True).date > first.date and len(lines(log, 'base')) == 2
    assert first.cost['wall'] >= 0 and first.cost['peak_mib'] > 10 and first.cost['threads'] == 1 and first.cost['device'].startswith('cpu: ')
    assert first.config == {'x': 2., 'seconds': 0., 'trouble': ''} and first.versions['torch'] == torch.__version__


def flip(path, at=-1):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(bytes(raw))


DAMAGE = {
    'a digit': lambda j, t, other: j.write_text(j.read_text().replace('"x": 2.0', '"x": 3.0')), 'cut': lambda j, t, other: j.write_bytes(j.read_bytes()[:-40]), 'empty': lambda j, t, other: j.write_bytes(b''),
    'not a record': lambda j, t, other: j.write_text('[1]'), 'NaN': lambda j, t, other: j.write_text('{"a": NaN}'), 'bytes': lambda j, t, other: j.write_bytes(b'\xff\xfe'), 'a field too many': lambda j, t, other: save_json(j, {**json.loads(j.read_text()), 'more': 1}),
    "another unit's": lambda j, t, other: shutil.copyfile(other, j), 'tensors flipped': lambda j, t, other: flip(t), 'tensors cut': lambda j, t, other: t.write_bytes(t.read_bytes()[:-1]), 'tensors gone': lambda j, t, other: t.unlink(),
    'tensors of another': lambda j, t, other: shutil.copyfile(other.with_suffix('.safetensors'), t)}


@pytest.mark.parametrize('how', DAMAGE)
def test_a_damaged_record_is_computed_again_with_a_warning(place, log, how):
    compute(units.base, Toy(5.), None)
    other, = records(place, 'units.base')
    good = compute(units.base, Toy(2.), None)
    path, = set(records(place, 'units.base')) - {other}
    DAMAGE[how](path, path.with_suffix('.safetensors'), other)
    with pytest.warns(UserWarning, match='computed again'): again = compute(units.base, Toy(2.), None)
    assert again.metrics == good.metrics and again.tensors()['w'].tolist() == [2.] * 3
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert compute(units.base, Toy(2.), None) == again
    assert len(lines(log, 'base')) == 3


def test_a_unit_disturbs_nobody(place):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    state = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()
    missed = compute(units.built, Toy(4.), 1)
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()) == state
    hit = compute(units.built, Toy(4.), 1, fresh=True)
    compute(units.base, Toy(4.), None)
    records(place, 'units.built')[0].unlink()
    assert missed.metrics == hit.metrics == compute(units.built, Toy(4.), 1).metrics


def test_fresh_computes_once_what_is_built_on(place, log):
    first = compute(units.built, Toy(4.), 1)
    again = compute(units.built, Toy(4.), 1, fresh=True)
    assert len(lines(log, 'base')) == 2 and again.metrics == first.metrics and again.date > first.date
    compute(units.built, Toy(4.), 1)
    assert len(lines(log, 'base')) == 2


def test_nothing_half_written_when_the_disk_is_full(place, monkeypatch):
    def full(*a): raise OSError(28, 'No space left on device')
    for broken in ('replace', 'chmod'):
        with monkeypatch.context() as m:
            m.setattr(os, broken, full)
            with pytest.raises(InputError) as e: compute(units.base, Toy(1.), None)
        one_line(e, 'units.base', 'expected a folder with room to write', 'No space left on device')
        assert [p.name for p in (place / 'outputs/units/units.base').iterdir() if p.suffix != '.lock'] == []
    real = os.replace
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', lambda a, b: full() if str(b).endswith('.json') else real(a, b))
        with pytest.raises(InputError): compute(units.base, Toy(1.), None)
    assert [p.name for p in (place / 'outputs/units/units.base').iterdir() if p.suffix != '.lock'] == []
    assert compute(units.base, Toy(1.), None).metrics == {'x': 1.}


def test_a_folder_that_cannot_be_written(place):
    (place / 'outputs').write_text('a file')
    with pytest.raises(InputError) as e: Experiment('t', units.toy, {'a': Toy()}).run()
    one_line(e, 'units: folder: expected a folder with room to write', 'Not a directory')
    with pytest.raises(InputError): compute(units.toy, Toy(), 0)


@pytest.mark.skipif(sys.platform != 'linux' or os.geteuid() != 0, reason='needs a small file system of its own')
def test_a_disk_that_is_really_full(place, monkeypatch):
    small = place / 'small'
    small.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', small], capture_output=True).returncode: pytest.skip('cannot mount')
    try:
        monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(small))
        got = Experiment('big', units.big, {'a': {}}, range(3)).run(workers=1, progress=False)
        assert len(got.records) == 2 and [f.kind for f in got.failures.values()] == ['error']
        assert 'No space left on device' in got.failures['a', 2].message
        assert len(list(small.glob('units/units.big/*.json'))) == len(list(small.glob('units/units.big/*.safetensors'))) == 2 and not list(small.glob('units/units.big/*.part'))
        with pytest.raises(OSError), open(small / 'fill', 'wb', 0) as f:
            while True: f.write(bytes(4096))
        with pytest.raises(InputError) as e: Experiment('big', units.big, {'a': {}}, [9]).run(progress=False)
        one_line(e, 'expected a folder with room to write', 'No space left on device')
    finally: subprocess.run(['umount', small])


@pytest.mark.parametrize('make, parts', [
    (lambda: Experiment('t', units.toy, {}), ['t: rows: expected at least one row']), (lambda: Experiment('t', units.toy, {'a': Toy()}, []), ['seeds']), (lambda: Experiment('t', units.toy, {'a': Toy()}, '1,1'), ['seeds']),
    (lambda: Experiment('t', lambda c, s, d: {}, {'a': Toy()}), ['unit: expected a top-level function of an importable module']), (lambda: Experiment('t', units.toy, {'a': 3}), ['t: a: config: expected a dataclass or a dict, found int']),
    (lambda: Experiment('t', units.toy, {'a': {'f': print}}), ['config.f: expected a JSON value']), (lambda: Experiment('t', units.toy, {'a': Toy(float('inf'))}), ['t: a: config.x: expected a finite number']),
    (lambda: Experiment('t', units.toy, {'base': Toy(), 'treated': Toy()}).run(only='treted'), ["t: row: expected a known row (nearest: treated), found 'treted'"]), (lambda: Experiment('t', units.toy, {'a': Toy()}).run(backend='dusk'), ['t: backend: expected a known backend (nearest: dask)']),
    (lambda: Experiment('t', units.toy, {'a': Toy()}).run(workers='many'), ['workers: expected a whole number >= 1']), (lambda: Experiment('t', units.toy, {'a': Toy()}).run(threads=0), ['threads: expected a whole number >= 1']),
    *[(lambda k=k: Experiment('t', units.toy, {'a': Toy()}).run(**k), [f'{next(iter(k))}: expected a whole number >= 1']) for k in (dict(threads=1.5), dict(workers=0), dict(workers=2.7))], (lambda: compute(units.toy, Toy(), 0, device='gpu'), ['device: expected']),
    (lambda: Experiment('t', units.toy, {'a': Toy()}).run(device='gpu'), ['device: expected']), (lambda: Experiment('t', units.toy, {'a': Toy()}).run(device='cuda:99'), ['device: expected']),
    (lambda: Experiment('t', units.toy, {'a': Toy()}).run(backend='dask'), ['scheduler: expected the address of a Dask scheduler']), (lambda: ex.clean('everything'), ['clean: what'])])
def test_bad_input(make, parts):
    with pytest.raises(InputError) as e: make()
    one_line(e, *parts)


def test_defaults_from_the_environment(monkeypatch):
    monkeypatch.setenv('SIGNBOOK_WORKERS', '3'), monkeypatch.setenv('SIGNBOOK_FRESH', '1')
    assert ex._workers('cpu', 1) == 3 and ex._workers('cpu', 1, 2) == 2 and ex._fresh(None) > '2' and ex._fresh(False) == ''
    monkeypatch.setenv('SIGNBOOK_FRESH', '0'), monkeypatch.setenv('SIGNBOOK_WORKERS', '')
    assert ex._fresh(None) == '' and 1 <= ex._workers('cpu', 1) <= os.cpu_count() and ex._workers('cpu', 10**6) == 1
    assert ex._workers('cpu', 1, peak_mib=ex._free_memory() / 2**20) == 1
    monkeypatch.setenv('SIGNBOOK_WORKERS', 'x')
    with pytest.raises(InputError): ex._workers('cpu', 1)


def test_one_unit_per_gpu(tmp_path):
    gpus, held, most = [f'fake:{i}' for i in range(3)], {}, []

    def unit(i):
        with ex.device_slot(gpus, tmp_path, poll=.005) as d:
            assert held.setdefault(d, i) == i
            most.append(len(held))
            time.sleep(random.random() / 50)
            del held[d]
        return d
    with ThreadPoolExecutor(8) as pool: used = list(pool.map(unit, range(40)))
    assert set(used) == set(gpus) and max(most) == 3
    with pytest.raises(InputError), ex.device_slot([]): pass
    with ex.device_slot(['cpu']) as a, ex.device_slot(['cpu']) as b: assert a == b == 'cpu'


def test_gpus_of_a_machine_that_has_two(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True), monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert ex._device_kind('auto') == 'cuda' and ex._devices('cuda') == ['cuda:0', 'cuda:1'] and ex._devices('cuda:1') == ['cuda:1'] == [ex._device_kind('cuda:1')]
    assert [ex._workers(*a) for a in (('cuda', 1), ('cuda', 1, 8), ('cuda:1', 1, 8), ('cuda', 1, 1))] == [2, 2, 1, 1]


def test_a_gpu_is_free_again_when_its_process_is_killed(tmp_path):
    code = f'import time\nfrom signbook.experiment import device_slot\nwith device_slot(["fake:0"], {str(tmp_path)!r}): print("held", flush=True); time.sleep(60)'
    holder = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    with ThreadPoolExecutor(1) as pool:
        def take():
            with ex.device_slot(['fake:0'], tmp_path, poll=.01) as d: return d
        waiting = pool.submit(take)
        time.sleep(.2)
        assert not waiting.done()
        holder.kill(), holder.wait()
        assert waiting.result(5) == 'fake:0'


ZOO = {'good': Toy(1.), 'raises': Toy(2., trouble='error'), 'nan': Toy(3., trouble='nan'), 'list': Toy(4., trouble='list'), 'exits': Toy(5., trouble='exit'), 'greedy': Toy(6., trouble='memory'), 'killer': Toy(7., trouble='killed'), 'same as good': Toy(1.)}


def test_trouble_stays_where_it_is(place, log, capsys):
    got = Experiment('zoo', units.toy, ZOO, [1]).run(workers=2)
    said = capsys.readouterr().out.splitlines()
    assert {r: f.kind for (r, _), f in got.failures.items()} == dict(raises='error', nan='error', list='error', exits='error', greedy='memory', killer='killed')
    assert list(got.records) == [('good', 1), ('same as good', 1)]
    assert re.fullmatch(r"ValueError: no such gloss \(units\.py:\d+: if config\.trouble == 'error': raise ValueError\('no such gloss'\)\)", got.failures['raises', 1].message)
    assert 'units.toy: metrics.y[1]: expected a finite number or null, found nan' in got.failures['nan', 1].message
    assert 'units.toy: result: expected a dict of metrics or Made, found list' in got.failures['list', 1].message
    assert got.failures['killer', 1].message == 'worker process killed by signal 9 (SIGKILL): most likely out of memory'
    started = [x[0] for x in lines(log, 'start')]
    assert started.count('7.0') == started.count('6.0') == 2 and started.count('2.0') == 1
    assert len(said) == 7 and all(re.match(rf'\[{i}/7\] .* seed 1: ', x) for i, x in enumerate(said, 1)) and any('left' in x for x in said)
    assert re.search(r'\] good seed 1: y 11, \d', '\n'.join(said)) and re.search(r'\] killer seed 1: killed: worker process', '\n'.join(said))
    assert got.values('good', 'y') == [11.] and got.pairs('good', 'same as good', 'y') == ([11.], [11.]) and got.values('raises', 'y') == []
    assert got.frame().loc[('good', 1), 'y'] == 11. and got.frame().index.names == ['row', 'seed']
    assert 'failed: killer seed 1: killed: worker process' in got.summary() and 'zoo: 7 units: 1 computed' in got.summary() and 'cpu: ' in got.summary()
    assert [(c['unit'], c['row'], c['cached']) for c in got.costs()] == [('units.toy', 'good', False)]
    assert [u[0] for u in got.units][0] == 'good, same as good seed 1'
    cells = got.cells('toy', 't1', {'y': ('Y', '')}, evidence='mechanism', corpus='c', scale='smoke', n=5)
    assert [(c['row'], c['value']) for c in cells if c['value'] is not None] == [('good', 11.), ('same as good', 11.)]
    assert {c['error'].partition(':')[0] for c in cells if c['value'] is None} == {'error', 'memory', 'killed'} and len(cells) == 8
    with pytest.raises(InputError): got.values('godo', 'y')
    with pytest.raises(InputError): got.values('good', 'z')


def test_bits_do_not_depend_on_workers(place, log):
    rows = {'narrow': Net(8), 'wide': Net(32)}
    table = Experiment('nets', units.train, rows, (0, 1))
    one, two = table.run(workers=1, progress=False), table.run(workers=2, fresh=True, progress=False)
    assert not one.failures and not two.failures
    assert {k: r.metrics for k, r in one.records.items()} == {k: r.metrics for k, r in two.records.items()}
    assert {k: r.metrics for k, r in one.records.items()} == {(r, s): compute(units.train, c, s, fresh=True).metrics for r, c in rows.items() for s in (0, 1)}
    assert one.records['wide', 0].metrics != one.records['wide', 1].metrics
    assert [r.cost['samples'] for r in two.records.values()] == [192] * 4 and all(r.cost['samples_per_s'] > 0 for r in two.records.values())


def test_threads_of_a_worker_and_prerequisites(place, log):
    got = Experiment('threads', units.threads, {'a': {}}, [0]).run(threads=2, workers=1, progress=False)
    assert got.records['a', 0].metrics == {'torch': 2, 'omp': '2', 'device': 'cpu'}
    table = Experiment('built', units.built, {'a': Toy(1.), 'b': Toy(2.), 'bad': Toy(3., trouble='x')}, (0, 1), needs=units.needs)
    assert [u.row for u in table.units()].count(None) == 3 and [u.seed for u in table.units()][:3] == [None] * 3
    got = table.run(workers=2, progress=False)
    assert sorted(lines(log, 'base')) == [['1.0', 'None'], ['2.0', 'None'], ['3.0', 'None']]
    assert got.values('b', 'sum') == [12., 13.] and len(got.units) == 9
    assert {f.message.partition(',')[0] for f in got.failures.values()} == {'needs base'} and 'ValueError: no base' in got.failures['bad', 0].message
    for p in records(place, 'units.base'): p.unlink()
    again = Experiment('built', units.built, {'a': Toy(1.), 'b': Toy(2.), 'c': Toy(1.)}, (0, 1), needs=units.needs).run(progress=False)
    assert len(lines(log, 'base')) == 3 and len(again.units) == 4 and all(cached for *_, cached in again.units)


SCRIPT = '''
import sys
sys.path.insert(0, {here!r})
import units
from signbook.experiment import Experiment
Experiment('slow', units.toy, {{str(i): units.Toy(float(i), {seconds}) for i in range(8)}}, (0, 1)).run(workers=2)
'''


def launch(place, seconds): return subprocess.Popen([sys.executable, '-c', SCRIPT.format(here=str(HERE), seconds=seconds)], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(true, seconds=90):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(.01)


def test_killed_at_random_moments_and_run_again(place, log):
    rng, lost = random.Random(), 0
    for _ in range(int(os.environ.get('SIGNBOOK_TEST_KILLS', 2))):
        before = len(lines(log, 'start'))
        run = launch(place, .15)
        until(lambda: len(lines(log, 'start')) > before or run.poll() is not None)
        time.sleep(rng.random() * .5)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        ended = len(records(place, 'units.toy'))
        lost = len(lines(log, 'start')) - ended
        assert lost <= 2 * int(os.environ.get('SIGNBOOK_TEST_KILLS', 2))
    done = {p: p.stat().st_mtime_ns for p in records(place, 'units.toy')}
    table = Experiment('slow', units.toy, {str(i): Toy(float(i), .15) for i in range(8)}, (0, 1))
    last = table.run(workers=2, progress=False)
    assert not last.failures and len(last.records) == 16
    assert {p: p.stat().st_mtime_ns for p in done} == done and sum(cached for *_, cached in last.units) == len(done)
    assert len(lines(log, 'start')) == 16 + lost
    calm = {(r, s): compute(units.toy, replaced, s, fresh=True).metrics for r, replaced in list(table.rows.items())[:2] for s in (0, 1)}
    assert calm == {k: last.records[k].metrics for k in calm}


def test_runs_at_once_share_the_work(place, log):
    others = [launch(place, .2), launch(place, .2)]
    until(lambda: lines(log, 'start'))
    mine = {(i, s): compute(units.toy, Toy(float(i), .2), s).metrics for s in (1, 0) for i in range(7, -1, -1)}
    said = [o.communicate(timeout=90)[0] for o in others]
    assert [o.returncode for o in others] == [0, 0], said
    assert len(lines(log, 'start')) == len(lines(log, 'end')) == len({tuple(x[:2]) for x in lines(log, 'start')}) == len(mine) == 16
    assert str(os.getpid()) in {x[2] for x in lines(log, 'end')} and len({x[2] for x in lines(log, 'end')}) >= 2
    assert {json.dumps(load_record(p).metrics) for p in records(place, 'units.toy')} == {json.dumps(m) for m in mine.values()}
    assert all('[16/16]' in x and 'failed' not in x for x in said)


def test_progress_in_a_notebook_and_in_a_file(place, monkeypatch):
    monkeypatch.setenv('SIGNBOOK_PROGRESS', str(place / 'progress'))
    record, failure = compute(units.base, Toy(), None), ex.Failure('error', 'ValueError: <no>')
    jobs = [ex._Job(ex._task(units.base, Toy(x), None), 'row') for x in (1., 2.)]
    show = ex._Progress({jobs[0].task.key: [('a', 0)], jobs[1].task.key: [('a', 1), ('b', 1)]}, ['a', 'b'], [0, 1], 2, False)
    show(jobs[0], record, cached=True, left=90.), show(jobs[1], failure, left=0)
    assert (place / 'progress').read_text().splitlines() == show.lines == repr(show).splitlines()
    assert re.fullmatch(r'\[1/2\] row: x 1, [\d.e-]+ s \(cached\) \| about 90 s left', show.lines[0]) and show.lines[1] == '[2/2] row: error: ValueError: <no>'
    page = show._repr_html_()
    assert page.count('<td>error</td>') == 2 and '<no>' not in page


def test_a_changed_row_alone_is_computed(place, log):
    for x, s in itertools.product((1., 2.), (0, 1)): compute(units.toy, Toy(x), s)
    same = Experiment('t', units.toy, {'a': Toy(1.), 'b': Toy(2.)}, (0, 1)).run(progress=False)
    assert len(lines(log, 'start')) == 4 and len(same.records) == 4 and all(cached for *_, cached in same.units) and 'at once' not in same.summary()
    got = Experiment('renamed', units.toy, {'x': Toy(1.), 'y': Toy(9.)}, (0, 1)).run(progress=False)
    assert [x[0] for x in lines(log, 'start')[4:]] == ['9.0', '9.0'] and got.values('x', 'y') == [10., 11.]


def test_prediction_storage_and_cleaning(place, log, package, monkeypatch):
    name, edit = package
    table = Experiment('t', units.toy, {'a': Toy(1., .05)}, range(4))
    assert ex.predict(table) == dict(units=4, cached=0, seconds=None, source=None)
    for s in range(2): compute(units.toy, Toy(1., .05), s)
    compute(units.toy, Toy(1., .2), 0)
    told = ex.predict(table, workers=1)
    assert told['cached'] == 2 and .1 <= told['seconds'] < .3 and told['source'] == 'records'
    assert abs(ex.predict(table, workers=2)['seconds'] - told['seconds'] / 2) < .01
    compute(find_unit(f'{name}.unit.main'), {}, 0)
    edit('deep.py', 'WIDTH = 8', 'WIDTH = 9')
    folder = place / 'outputs/units/units.toy'
    (folder / '.abc.json.x1.part').write_bytes(bytes(10)), (folder / 'f00.safetensors').write_bytes(bytes(7)), (folder / 'bad.json').write_text('{')
    told = {x['unit']: x for x in ex.stored()}
    assert (told['units.toy']['records'], told['units.toy']['stale']) == (6, 3) and (told[f'{name}.unit.main']['records'], told[f'{name}.unit.main']['stale']) == (1, 1)
    would = ex.clean()
    assert would['files'] == 4 and would['units'] == sorted([f'{name}.unit.main', 'units.toy']) and would['bytes'] == sum(x['stale_bytes'] for x in told.values())
    with ex.FileLock(folder / 'bad.lock'): assert ex.clean()['files'] == 3
    assert ex.clean(dry=False) == would and ex.clean()['files'] == 0 and len(records(place, 'units.toy')) == 3
    assert ex.clean('all', dry=False)['files'] == 3 and not [p for p in folder.iterdir()]


def test_prediction_from_a_reference_result(tmp_path):
    units_ = [dict(unit='units.toy', row=r, seed=0, cached=False, wall=w, cpu=w, peak_mib=100., samples=0, samples_per_s=None, device='cpu: x', threads=1) for r, w in (('a', 4.), ('b', 8.))]
    made = dict(git=dict(commit=None, dirty=None), packages={}, python='3', device='x', seconds=1., peak_memory_mib=1., date='2026-01-01', parameters={}, corpora={}, units=units_)
    save_json(tmp_path / '99_toy.cpu.json', dict(notebook='99_toy', title='t', rows=[], claims=[], not_run=[], figures=[], provenance=made))
    assert sorted(r['wall'] for r in ex._referenced('units.toy', 'cpu', tmp_path)) == [4., 8.] and ex._referenced('units.toy', 'cuda', tmp_path) == []
    clock = ex._Clock([], 'cpu', tmp_path)
    clock.known = {'units.toy': ex._referenced('units.toy', 'cpu', tmp_path)}
    job = lambda row: ex._Job(ex._task(units.toy, Toy(), 0), row)
    assert clock.seconds(job('a')) == 4. and clock.seconds(job('b')) == 8. and clock.seconds(job('c')) == 6. and clock.left([job('a'), job('b')], 2) == 8. and clock.peak([job('a')]) == 100.


def start_cluster(place, name, workers=2):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(HERE), str(place)]), 'SIGNBOOK_OUTPUTS': str(place / 'elsewhere')}
    scheduler = subprocess.Popen([sys.executable, '-m', 'distributed.cli.dask_scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard', '--scheduler-file', str(place / name)], env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    until(lambda: (place / name).exists() and (place / name).stat().st_size)
    worker = subprocess.Popen([sys.executable, '-m', 'distributed.cli.dask_worker', '--scheduler-file', str(place / name), '--nworkers', str(workers), '--nthreads', '1', '--no-dashboard', '--local-directory', str(place)], env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    return json.loads((place / name).read_text())['address'], [scheduler, worker]


@pytest.fixture
def cluster(place, log):
    pytest.importorskip('distributed')
    address, processes = start_cluster(place, 'scheduler.json')
    yield address
    for p in processes: os.killpg(p.pid, signal.SIGKILL), p.wait()


def test_a_cluster_gives_what_this_machine_gives(place, log, cluster, package):
    rows = {**{f'{i}': Toy(float(i), .25) for i in range(6)}, 'raises': Toy(8., trouble='error')}
    table, deep = Experiment('t', units.toy, rows, (0, 1)), Experiment('built', units.built, {'a': Toy(1.), 'b': Toy(2.)}, (0, 1), needs=units.needs)
    killed = []

    def kill():
        until(lambda: len(lines(log, 'start')) > 3)
        killed.append(int(lines(log, 'start')[-1][-1]))
        os.kill(killed[0], signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    far, far_built = table.run(backend='dask', scheduler=cluster, device='cpu', progress=False), deep.run(backend='dask', scheduler=cluster, progress=False)
    killer.join()
    assert [k for k in far.failures] == [('raises', 0), ('raises', 1)] and 'ValueError: no such gloss (units.py:' in far.failures['raises', 0].message and not far_built.failures
    assert killed and killed[0] in {int(x[2]) for x in lines(log, 'start')} and len({x[2] for x in lines(log, 'end')}) >= 2
    assert not (place / 'elsewhere').exists() and len(records(place, 'units.toy')) == 12 and len(records(place, 'units.base')) == 2
    stored = {k: r for k, r in far.records.items()}
    near, near_built = table.run(fresh=True, workers=2, progress=False), deep.run(fresh=True, workers=2, progress=False)
    assert {k: r.metrics for k, r in near.records.items()} == {k: r.metrics for k, r in stored.items()} and {k: r.key for k, r in near.records.items()} == {k: r.key for k, r in stored.items()}
    assert {k: r.metrics for k, r in near_built.records.items()} == {k: r.metrics for k, r in far_built.records.items()}
    name, edit = package
    loaded = Experiment('p', find_unit(f'{name}.unit.main'), {'a': {}}, [0]).run(backend='dask', scheduler=cluster, progress=False)
    assert not loaded.failures
    edit('unit.py', "{'y': RATE}", "{'y': 2*RATE}")
    with pytest.raises(InputError) as e:
        for s in range(1, 4): Experiment('p', find_unit(f'{name}.unit.main'), {'a': {}}, [0]).run(backend='dask', scheduler=cluster, progress=False)
    one_line(e, f'{name}.unit.main: code of a worker: expected what this process has', 'restart the workers')


def test_a_scheduler_that_is_not_there(place):
    pytest.importorskip('distributed')
    began = time.monotonic()
    with pytest.raises(InputError) as e: Experiment('t', units.toy, {'a': Toy()}).run(backend='dask', scheduler='tcp://127.0.0.1:9')
    assert time.monotonic() - began < 60
    one_line(e, 'scheduler: expected a Dask scheduler at tcp://127.0.0.1:9')
    with pytest.raises(InputError): Experiment('t', units.toy, {'a': Toy()}).run(backend='dask', scheduler='nonsense://x')


def test_an_outcome_in_which_all_failed_says_so():
    got = Experiment('none', units.toy, {'a': Toy(trouble='error'), 'b': Toy(trouble='error')}, (0,)).run(device='cpu', workers=1, progress=False, only=['a'])
    assert not got.records and got.rows == ('a',) and 'no such gloss' in got.summary() and 'none: 1 units: 0 computed' in got.summary()
