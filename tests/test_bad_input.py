"Damaged and hostile files: one line that names file and field, never anything else."
import contextlib
import gzip
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

from signbook.core import InputError, load_json, load_pickle
from signbook.corpora import CorpusError, load_clip_labels, load_phoenix14t, load_records, load_scores

LABELS = {'a': 0, 'b': 2, 'c': 1}


class Run:
    "A pickle that would make a file."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


def scores(tmp_path, **changes):
    data = {c: np.eye(3, dtype=np.float32)[k] for c, k in LABELS.items()} | changes
    path = tmp_path / 'scores.pkl'
    path.write_bytes(pickle.dumps({k: v for k, v in data.items() if v is not None}))
    return path


def one_line(error, *parts):
    assert '\n' not in str(error.value) and all(p in str(error.value) for p in parts)


@pytest.mark.parametrize('changes, parts', [
    ({'a': None}, ['a score for every labelled clip', '(a)']),
    ({'zzz': np.zeros(3)}, ['a label for every scored clip', '(zzz)']),
    ({'a': np.zeros(4)}, ['a: expected shape (3,)', '(4,)']),
    ({'a': np.zeros((3, 1))}, ['shape (3,)']),
    ({'a': np.array([0, np.nan, 1])}, ['a: expected finite scores']),
    ({'a': np.array([0, np.inf, 1])}, ['finite']),
    ({'a': np.array(['x', 'y', 'z'])}, ['a: expected 3 numbers']),
    ({'a': [[1, 2], [3]]}, ['a: expected']),
    ({'a': np.array(['1', '2', '3'])}, ['a: expected 3 numbers']),
    ({'a': None, 'b': None, 'c': None, 'other_1': np.zeros(3)}, ['labelled clip']),
])
def test_scores(tmp_path, changes, parts):
    with pytest.raises(CorpusError) as e: load_scores(scores(tmp_path, **changes), LABELS, 3)
    one_line(e, 'scores.pkl', *parts)


@pytest.mark.parametrize('content', [[1, 2], 'text', None, {1: np.zeros(3)}, 3.0])
def test_a_pickle_of_something_else(tmp_path, content):
    (tmp_path / 's.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(CorpusError) as e: load_scores(tmp_path / 's.pkl', LABELS, 3)
    one_line(e, 's.pkl', 'dict of clip name to scores')


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: {'a': x}, lambda x: [x], lambda x: {'a': np.array([x], dtype=object)}])
def test_a_hostile_pickle_does_nothing(tmp_path, protocol, wrap):
    (tmp_path / 'bad.pkl').write_bytes(pickle.dumps(wrap(Run(tmp_path / 'owned')), protocol))
    with pytest.raises(InputError) as e: load_pickle(tmp_path / 'bad.pkl')
    one_line(e, 'bad.pkl', 'pickle')
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('body', [
    b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR.", b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(I0\ntS'b'\ntR.",
    b"ctorch.storage\n_load_from_bytes\n(cos\nsystem\ntR.", b"cnumpy\ndtype\n(S'O8, (99999999,)f8'\ntR.", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", b'\x80\x04P1\n.',
    b"ccollections\nOrderedDict.__class__\n.",
])
def test_hand_made_pickles(tmp_path, body):
    (tmp_path / 'x.pkl').write_bytes(body)
    with pytest.raises(InputError) as e: load_pickle(tmp_path / 'x.pkl')
    one_line(e, 'x.pkl')


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'int64', 'uint8', 'bool'])
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_torch_tensors_are_read_without_torch(tmp_path, dtype, protocol):
    import torch
    x = (torch.arange(24).view(4, 6) % 5).to(getattr(torch, dtype))
    views = [x, x.T, x[1:3, ::2], x[0], x[3, 5], x[:0], torch.empty(0)]
    (tmp_path / 't.pkl').write_bytes(pickle.dumps(views, protocol))
    for got, want in zip(load_pickle(tmp_path / 't.pkl', tensors=True), views, strict=True): assert got.shape == tuple(want.shape) and np.array_equal(got, want.numpy())
    assert load_pickle(tmp_path / 't.pkl') == [None]*7


def test_damaged_and_hostile_tensors_are_refused(tmp_path):
    import torch
    path, whole = tmp_path / 't.pkl', pickle.dumps(torch.arange(12.).view(3, 4), 2)
    path.write_bytes(pickle.dumps(torch.zeros(1).expand(10**6, 10**6), 2))
    with pytest.raises(InputError) as e: load_pickle(path, tensors=True)
    one_line(e, 't.pkl', 'damaged torch tensor')
    for old, new in ((b'FloatStorage', b'eval'), (b'ctorch\n', b'cos\n'), (b'K\x03K\x04', b'K\x04K\x04')):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(InputError): load_pickle(path, tensors=True)
    rng = random.Random(0)
    for _ in range(1000):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 4)): raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(bytes(raw))
        try: load_pickle(path, tensors=True)
        except InputError as e: assert '\n' not in str(e)


@pytest.mark.parametrize('body', [b'\x80\x04Nr\xff\xff\xff\x7f.', b'\x80\x05\x96' + (2**42).to_bytes(8, 'little') + b'.', b'\x80\x04\x8e' + (2**42).to_bytes(8, 'little') + b'.', b'\x80\x04\x8d' + (2**42).to_bytes(8, 'little') + b'.'])
def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path, body):
    import tracemalloc
    (tmp_path / 'm.pkl').write_bytes(body); tracemalloc.start()
    try:
        with contextlib.suppress(InputError): assert load_pickle(tmp_path / 'm.pkl', max_bytes=2**24) is None
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally: tracemalloc.stop()


def _array(dtype, state=b''): return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I4\ntcnumpy\ndtype\n(S'" + dtype + b"'\ntR" + state + b"I00\n(ltb."


@pytest.mark.parametrize('body', [_array(b'O'), *(_array(d, b"(I3\nS'<'\nNNNI8\nI8\nI63\ntb") for d in (b'f8', b'V8', b'U2', b'>f8', b'S0')), _array(b'f8', b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb")])
def test_a_list_never_becomes_an_array(tmp_path, body):
    "NumPy reads past a list that is shorter than the shape, so another process tries."
    (tmp_path / 'x.pkl').write_bytes(body)
    code = f"from signbook.core import load_pickle, InputError\ntry: load_pickle({str(tmp_path / 'x.pkl')!r})\nexcept InputError as e: print(e)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and 'x.pkl: pickle: expected plain data' in done.stdout


@pytest.mark.parametrize('dtype', ['>f8', '<i2', '>U3', '?', 'S4', [('a', '>i4'), ('b', 'f8', )]])
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_arrays_in_any_byte_order(tmp_path, dtype, protocol):
    x = np.zeros((2, 3), dtype)
    if isinstance(dtype, list): x['a'], x['b'] = [[1, 2, 3]]*2, .5
    else: x[:] = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps([x, x.T, x[0, 1]], protocol))
    for got, want in zip(load_pickle(tmp_path / 'x.pkl'), [x, x.T, x[0, 1]], strict=True): assert np.array_equal(got, want)


def test_fuzzed_pickles_return_data_or_an_input_error(tmp_path):
    rng, path = random.Random(0), tmp_path / 'f.pkl'
    whole = pickle.dumps({'clip': np.arange(5.), 'n': np.int64(3), 'l': ['x', {'y': (1, 2)}], 'b': b'abc'})
    for _ in range(3000):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 4)): raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(bytes(raw[:rng.randrange(len(raw))] if rng.random() < .3 else raw))
        try: load_pickle(path)
        except InputError as e: assert '\n' not in str(e)


def test_truncated_files(tmp_path):
    whole = gzip.compress(pickle.dumps([{'name': 'a', 'text': 'b'}] * 50))
    for cut in (0, 1, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / 't.pkl').write_bytes(whole[:cut])
        with pytest.raises(InputError) as e: load_records(tmp_path / 't.pkl', name=str)
        one_line(e, 't.pkl')


def test_score_and_label_files_that_cannot_be_read(tmp_path):
    for call in (lambda: load_scores(tmp_path / 'none.pkl', LABELS, 3), lambda: load_clip_labels(tmp_path / 'none.csv'), lambda: load_clip_labels(tmp_path)):
        with pytest.raises(CorpusError) as e: call()
        one_line(e, 'file')
    scores(tmp_path); (tmp_path / 'scores.pkl').write_bytes((tmp_path / 'scores.pkl').read_bytes()[:-9])
    with pytest.raises(CorpusError) as e: load_scores(tmp_path / 'scores.pkl', LABELS, 3)
    one_line(e, 'scores.pkl', 'pickle')


@pytest.mark.parametrize('text, parts', [('a,1\nb\n', ['line 2', 'clip,class id']), ('a,1\na,1\n', ['line 2', 'distinct']), ('a,-1\n', ['line 1']), ('a,1.5\n', ['line 1']), ('', ['at least one clip']), ('a,x\n', ['line 1']), (',3\n', ['line 1'])])
def test_labels(tmp_path, text, parts):
    (tmp_path / 'l.csv').write_text(text)
    with pytest.raises(CorpusError) as e: load_clip_labels(tmp_path / 'l.csv')
    one_line(e, 'l.csv', *parts)


def test_labels_with_a_byte_order_mark_or_another_encoding(tmp_path):
    (tmp_path / 'l.csv').write_bytes('\ufeffé,1\n'.encode())
    assert load_clip_labels(tmp_path / 'l.csv') == {'é': 1}
    (tmp_path / 'l.csv').write_bytes('é,1\n'.encode('latin-1'))
    with pytest.raises(CorpusError) as e: load_clip_labels(tmp_path / 'l.csv')
    one_line(e, 'l.csv', 'UTF-8')


GOOD = dict(name='v', signer='S1', gloss='A B', text='c d', num_frames=3, alignments={'pami0': '0 1 2'})


@pytest.mark.parametrize('change, parts', [
    ({'name': 3}, ['record 0', 'name: expected str, found int']), ({'gloss': None}, ['gloss: expected str, found NoneType']), ({'num_frames': 4}, ['pami0: expected 4 states, found 3']),
    ({'alignments': {}}, ['pami0: expected integers']), ({'alignments': {'pami0': '0 x 1'}}, ['pami0: expected integers']), ({'num_frames': True}, ['num_frames'])])
def test_phoenix_records(tmp_path, change, parts):
    (tmp_path / 'phoenix14t.dev').write_bytes(gzip.compress(pickle.dumps([GOOD | change])))
    with pytest.raises(CorpusError) as e: load_phoenix14t(tmp_path, 'dev')
    one_line(e, 'phoenix14t.dev', *parts)


def test_phoenix_names_must_differ(tmp_path):
    (tmp_path / 'phoenix14t.dev').write_bytes(gzip.compress(pickle.dumps([GOOD, GOOD])))
    with pytest.raises(CorpusError) as e: load_phoenix14t(tmp_path, 'dev')
    one_line(e, 'phoenix14t.dev', 'v again')


@pytest.mark.parametrize('text', ['{"a": NaN}', '{"a": 1', '[Infinity]', '[-1e999]', '', '\x00'])
def test_json(tmp_path, text):
    (tmp_path / 'j.json').write_text(text)
    with pytest.raises(InputError) as e: load_json(tmp_path / 'j.json')
    one_line(e, 'j.json')
