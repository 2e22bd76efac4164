"Readers of isolated-sign corpora: real files by their counts, written files by their description, damaged files by their message."
import csv
import gzip
import io
import json
import pickle
import random
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signbook.core import InputError
from signbook.corpora import (ISOLATED, SPLITS, Card, CorpusError, IsolatedCorpus, few_shot, fingerprint, leave_one_signer_out, load_clip_labels, mediapipe258, read_asl_citizen, read_asl_lex, read_asl_mediapipe,
                              read_autsl, read_fingerspelling, read_isl30, read_npy, read_openhands, read_pose_folder, read_pose_samples, read_semlex, read_skeleton_texts, read_table, read_tar, read_wlasl,
                              read_wlasl_asllex, fetch, frame_folders, present, recipe, recipes, signer_disjoint, stratified_folds, verify)
from signbook.phonology import FEATURES, decode, feature_names
from signbook.pose import joint_set, select, write_pose

LEX = {n: f.values[0] for n, f in zip(feature_names(), FEATURES)}
NAMES = feature_names()


def npy(x): f = io.BytesIO(); np.save(f, x); return f.getvalue()


def refused(call, *parts):
    "`call` raises a CorpusError of one line that has all `parts`."
    with pytest.raises(CorpusError) as e: call()
    assert '\n' not in str(e.value) and all(p in str(e.value) for p in parts), str(e.value)


# ---- small valid releases, written as their public descriptions say

def semlex(at, frames=(3, 2, 1), columns=None, **changes):
    empty = dict.fromkeys(NAMES, '')
    rows = [('v1', '1', '1936', 'train', 'asllex', 'eat_1', {**LEX, 'Path Movement': 'None', 'Spread': 'N/A'}, '12.0'), ('v1', '1', '1936', 'train', 'freetext', 'food, eat', empty, ''),
            ('v2', '2', '1220', 'val', 'signbank', '3369', empty, '3369'), ('v3', '3', '900', 'test', 'asllex', 'N/A', LEX, '')]
    table = pd.DataFrame([{'video_id': r[0], 'signer_id': r[1], 'duration': r[2], 'split': r[3], 'label_type': r[4], 'label': r[5], **r[6], 'Flexion Change': '0', 'SignBank Reference ID': r[7], **changes} for r in rows])
    at.mkdir(parents=True, exist_ok=True)
    (table if columns is None else columns(table)).to_csv(at / 'semlex_metadata.csv')
    for n, s, T in zip(('v1', 'v2', 'v3'), SPLITS, frames):
        x = np.linspace(0, 1, T * 553 * 3).astype(np.float16).reshape(T, 553, 3); x[0, 511:532] = np.nan
        (at / s).mkdir(exist_ok=True); np.save(at / s / f'{n}.npy', x)
    return at


def citizen(at, poses=True, head='Participant ID,Video file,Gloss,ASL-LEX Code', encoding='utf-8'):
    (at / 'splits').mkdir(parents=True)
    for s, rows in (('train', 'P1,1-EAT.mp4,EAT1,C_01\nP1,"2, b-EAT.mp4",EAT2,NA\n'), ('val', 'P2,4.7e-7-seedSOUR.mp4,SOUR,C_03\n'), ('test', 'P3,4-X.mp4,None,C_02\n')):
        (at / 'splits' / f'{s}.csv').write_bytes(f'{head}\n{rows}'.encode(encoding))
    if poses: poses_in(at / 'poses', ['1-EAT', '2, b-EAT', '4.7e-7-seedSOUR', '4-X'])
    return at


def wave(T=3, V=75, seed=0): return np.random.default_rng(seed).random((T, V, 3)).astype(np.float32) + 1


def poses_in(at, names, joints='mediapipe75', fps=25):
    at.mkdir(parents=True, exist_ok=True)
    for i, n in enumerate(names): (at / n).parent.mkdir(exist_ok=True); write_pose(at / f'{n}.pose', wave(2 + i, len(joint_set(joints))), joints, fps)
    return at


def openhands(path, T=3, **changes):
    x = np.full((T, 75, 3), .5); x[0, 33:54] = 0
    path.parent.mkdir(parents=True, exist_ok=True); path.write_bytes(pickle.dumps({'keypoints': x, 'confidences': (x != 0).all(-1).astype(float)} | changes))
    return path


def instance(video, signer, split, **more): return {'video_id': video, 'signer_id': signer, 'split': split, 'bbox': [0, 0, 9, 9], 'fps': 25, 'source': 'aslbrick', 'variation_id': 0, **more}


def glosses(**more): return [{'gloss': 'book', 'instances': [instance('69241', 118, 'train', **more), instance('07069', 4, 'test', **more)]}, {'gloss': 'None', 'instances': [instance('00001', 4, 'val', **more)]}]


def wlasl(at, data=None):
    at.mkdir(parents=True, exist_ok=True); (at / 'WLASL_v0.3.json').write_text(json.dumps(glosses() if data is None else data))
    for n in ('07069_book_1', '69241', '00001'): openhands(at / 'poses' / f'{n}.pkl')
    return at


def merged(at, data=None):
    at.mkdir(parents=True, exist_ok=True)
    features = {**LEX, 'Path Movement': 'None', 'Nondominant Handshape': float('nan'), 'Spread': 0.0}
    data = glosses(**features) + [{'gloss': 'improve', 'instances': [instance('29137', 38, 'test', **dict.fromkeys(LEX, -1))]}] if data is None else data
    with zipfile.ZipFile(at / 'merged_data.json.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('merged_data.json', json.dumps(data)); z.writestr('__MACOSX/._merged_data.json', b'\0')
    openhands(at / '69241.pkl'); openhands(at / 'book' / '07069_book_1.pkl')
    return at


def compact(at):
    at.mkdir(parents=True, exist_ok=True)
    rows = [dict(gloss=g, video_id=v, split=s, signer_id=i, **f) for g, v, s, i, f in (('book', '1', 'train', '4', {**LEX, 'Path Movement': 'None', 'Second Minor Location': ''}), ('improve', '2', 'test', '5', dict.fromkeys(LEX, '-1')))]
    (at / 'wlasl_asllex_compact.csv.gz').write_bytes(gzip.compress(pd.DataFrame(rows).to_csv(index=False).encode()))
    return at


def lexicon(at):
    at.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([{'Entry ID': n, 'Code (survey)': c, 'Flexion Change': '0', **LEX, 'Path Movement': m} for n, c, m in (('eat', 'C_01', 'None'), ('release, rescue', 'C_02', 'Curved'))]).to_csv(at / 'asllex_data.csv', index=False)
    return at


def autsl(at): at.mkdir(parents=True); (at / 'autsl_test_labels.csv').write_text('signer34_sample1,133\nsigner6_sample2,0\n'); return at


LINE = b' '.join(b'%.7g' % (i / 7 - 3) for i in range(60)) + b'\n'


def isl(at, names=('zoe', 'ann'), signs=('eat', 'go'), times=2):
    (at / 'RawDataset').mkdir(parents=True)
    for s in signs:
        for w in names:
            for i in range(1, times + 1): (at / 'RawDataset' / f'{s}{"__" if s == "go" else "_"}{w}_{i}.txt').write_bytes(LINE * (i + 1))
    return at


def mediapipe(at, signers=True, frames=20):
    rows = np.arange(2 * 258, dtype=float).reshape(2, 258) + 1; rows[0, 132:195] = 0
    for w, s in (('-', 0), ('eat', 2), ('eat', 10)):  # 2 before 10: by number
        (at / 'MP_Data' / w / str(s)).mkdir(parents=True)
        for i in range(frames): np.save(at / 'MP_Data' / w / str(s) / f'{i}.npy', rows[i % 2])
    if signers: (at / 'signers.csv').write_text('word,sequence,recorder\n-,0,R1\neat,2,R1\neat,10,R2\n')
    return at


def pose_folder(at, index='name,gloss,signer,split\na,None,S1,train\nx/b,N/A,S2,test\n'):
    poses_in(at, ['a', 'x/b'])
    if index: (at / 'index.csv').write_text(index)
    return at


def letters(at):
    poses_in(at, ['ase/q', 'ase/r'])
    (at / 'index.csv').write_text('path,spoken_language,signed_language,start,end,words,glosses,priority\nase/q.pose,en,ase,0,1,A,A,0\nase/r.pose,en,ase,0,1,B,None,0\nars/z.pose,ar,ars,0,1,C,C,0\n')
    return at


WRITERS = {'semlex': semlex, 'asl-citizen': citizen, 'wlasl': wlasl, 'wlasl-asllex': merged, 'asl-lex': lexicon, 'autsl-scores': autsl, 'isl30': isl, 'asl-mediapipe': mediapipe, 'fingerspelling': letters,
           'pose-samples': lambda at: poses_in(at, ['signer0_sample1', 'second']), 'pose-folder': pose_folder}
OPTIONS = {'isl30': dict(cache=False), 'wlasl-asllex': dict(poses=True)}


def read(name, at, **options): return ISOLATED[name](at, **(OPTIONS.get(name, {}) | options))


def touch(corpus):
    "Read every clip; each is float32 (T, V, C) without infinite values."
    assert corpus.frame[['name', 'gloss', 'signer', 'split']].map(lambda v: isinstance(v, str)).all().all()
    for c in corpus.clips if corpus.clips is not None else ():
        assert c.dtype == np.float32 and c.ndim == 3 and len(c) and c.shape[1] == len(joint_set(corpus.joint_set)) and not np.isinf(c).any()
    if corpus.codes is not None: decode(corpus.codes)
    return fingerprint(corpus)


# ---- every reader

@pytest.mark.parametrize('name', ISOLATED)
def test_a_small_release(tmp_path, name):
    corpus = read(name, WRITERS[name](tmp_path / 'c'))
    assert isinstance(corpus, IsolatedCorpus) and len(corpus) >= 2 and corpus.card.name == name
    assert touch(corpus) == touch(read(name, tmp_path / 'c'))
    assert len(touch(corpus.subset([1, 0]))) == 16
    pickle.loads(pickle.dumps(corpus))
    assert (ISOLATED[name].__doc__ or '').strip().splitlines()[0]


def test_every_corpus_with_a_recipe_has_the_recipes_name():
    assert set(ISOLATED) - set(recipes()) == {'pose-folder'}
    for n in ('semlex', 'asl-citizen', 'wlasl'): assert recipe(n)['files'] == [] and '{folder}' in recipe(n)['manual'] and recipe(n)['manual'].format(folder='x')


@pytest.mark.parametrize('name', ISOLATED)
def test_an_empty_or_missing_folder(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    for at in (tmp_path / 'empty', tmp_path / 'missing'): refused(lambda: read(name, at))


TOKENS = [b'', b'nan', b'NaN', b'inf', b'-inf', b'-1', b'1e999', b'None', b'N/A', b'../../x', b'/etc/passwd', b'\0', b'"', b'""', b',', b'\n', b'\r', b'\xff\xfe', '\u200f'.encode(), b'9' * 400, b'[' * 3000, b'{}', b'null', b'\\', b'train', b'.pose']


def damage(at, rng):
    "One random damage to one random file of a folder."
    files = sorted(p for p in at.rglob('*') if p.is_file())
    path = rng.choice([p for p in files if p.suffix in ('.csv', '.json')] or files) if rng.random() < .4 else rng.choice(files)
    raw = bytearray(path.read_bytes())
    a = rng.randrange(len(raw) + 1) if rng.random() < .5 else rng.randrange(min(len(raw), 300) + 1)
    b = min(len(raw), a + rng.choice((1, 3, 9, 100, 2000)))
    how = rng.randrange(10)
    if how < 3:
        for _ in range(rng.choice((1, 1, 4, 30))):
            if raw: raw[rng.randrange(len(raw)) if rng.random() < .4 else min(a + rng.randrange(8), len(raw) - 1)] = rng.randrange(256)
    elif how == 3: del raw[a:]
    elif how == 4: del raw[a:b]
    elif how == 5: raw[a:a] = raw[a:b]
    elif how == 6: raw[a:b] = rng.choice(TOKENS)
    elif how == 7: raw[a:a] = rng.choice(TOKENS)
    elif how == 8 and rng.random() < .5: path.unlink(); return
    elif how == 8: shutil.copy(path, path.with_name(rng.choice(('other', 'zz_1_2', '99')) + path.suffix)); return
    else: raw[:] = rng.choice(files).read_bytes()
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize('name', ISOLATED)
def test_damaged_releases_are_read_or_refused(tmp_path, name, seed=0, times=120):
    whole, rng, read_well = WRITERS[name](tmp_path / 'whole'), random.Random(f'{seed} {name}'), 0
    for i in range(times):
        at = shutil.copytree(whole, tmp_path / 'damaged', dirs_exist_ok=False)
        damage(at, rng)
        try: touch(read(name, at)); read_well += 1
        except InputError as e: assert '\n' not in str(e) and len(str(e)) < 600
        shutil.rmtree(at)
    assert 0 < read_well < times


# ---- presence, fingerprints, subsets

def test_what_an_interrupted_download_leaves_is_not_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path)); at = tmp_path / 'isl30'
    for left in ('.RawDataset.part', '.RawDataset.tar.xz.part', 'cache', 'RawDataset'):
        (at / left).mkdir(parents=True); assert not present('isl30')
    (at / 'RawDataset.tar.xz').write_bytes(b'x'); assert not present('isl30')
    with (at / 'RawDataset.tar.xz').open('wb') as f: f.truncate(recipe('isl30')['git']['packed'][0]['bytes'])
    assert present('isl30'); refused(lambda: verify('isl30'), 'RawDataset.tar.xz: sha256')
    (at / 'RawDataset' / 'a.txt').write_bytes(LINE); assert present('isl30'); verify('isl30')


def test_an_unpacked_folder_replaces_what_was_left(tmp_path, monkeypatch):
    from signbook import corpora
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path)); monkeypatch.delenv('SIGNBOOK_MIRROR', raising=False)
    def git(args, **more):
        if args[3] == 'checkout': (Path(args[2]) / 'RawDataset').mkdir(); (Path(args[2]) / 'RawDataset' / 'new.txt').write_bytes(LINE)
    monkeypatch.setattr(corpora.subprocess, 'run', git)
    (tmp_path / 'isl30' / '.RawDataset.part').mkdir(parents=True); (tmp_path / 'isl30' / '.RawDataset.part' / 'old.txt').write_bytes(b'')
    at = fetch('isl30'); assert [p.relative_to(at).as_posix() for p in sorted(at.rglob('*'))] == ['RawDataset', 'RawDataset/new.txt'] and fetch('isl30') == at


@pytest.mark.parametrize('name', ['pose-folder', 'asl-mediapipe', 'pose-samples'])
def test_a_fingerprint_sees_clips_read_on_demand(tmp_path, name):
    at = WRITERS[name](tmp_path / 'c'); before = fingerprint(read(name, at)); path = sorted(p for p in at.rglob('*') if p.suffix in ('.npy', '.pose'))[0]
    if path.suffix == '.npy': np.save(path, np.load(path) + 1)
    else: write_pose(path, wave(2) + 5, 'mediapipe75', 25)
    assert fingerprint(read(name, at)) != before


def test_a_fingerprint_is_the_same_in_another_process(tmp_path):
    import subprocess, sys
    code = '''import numpy as np, pandas as pd
from signbook.corpora import *
x = [None, np.zeros((3, 2, 2)), np.array([None, 'a'], object)]
print(fingerprint(IsolatedCorpus(Card('toy'), pd.DataFrame(dict(name=list('abc'), gloss='g', signer='', split='')), x)))'''
    assert len({subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout for _ in range(2)}) == 1


def test_subsets_refuse():
    c = corpus_of([('a', 'x', 'S', ''), ('b', 'x', 'T', '')])
    for bad in ([], [2], [-3], [.5], [True], np.zeros(0), np.zeros((1, 2), int), ['a'], None, slice(1)): refused(lambda: c.subset(bad), 'made: i')
    assert c.subset([-1]).frame['name'].tolist() == c.subset([False, True]).frame['name'].tolist() == c.subset(1).frame['name'].tolist() == ['b']


def test_frames_of_a_video(tmp_path):
    from PIL import Image
    (tmp_path / 'v').mkdir(); (tmp_path / 'v' / '._1.png').write_bytes(b'x')
    for k in range(12): Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(tmp_path / 'v' / f'{k}.png')
    video, = frame_folders(tmp_path, ['v'], 4)
    assert np.asarray(video)[:, 0, 0, 0].tolist() == [f[0, 0, 0] for f in video] == list(range(12)) and video[-1].shape == (4, 4, 3)
    assert [np.asarray(video[k])[:, 0, 0, 0].tolist() for k in (slice(9, None), [3, 1], np.arange(12) > 9)] == [[9, 10, 11], [3, 1], [10, 11]] and len(video[[]]) == 0


# ---- arrays, archives, tables

@pytest.mark.parametrize('raw, says', [
    (b'', 'header'), (b'\x93NUMPY\x09\x00', 'header'), (npy(np.zeros((2, 3)))[:40], 'header'), (npy(np.zeros((2, 3)))[:-1], 'size: expected 176 bytes, found 175'), (npy(np.zeros((2, 3))) + b'\0', 'found 177'),
    (npy(np.zeros((0, 3))), 'shape: expected (1 or more, 3), found (0, 3)'), (npy(np.zeros((3, 2))), 'found (3, 2)'), (npy(np.zeros(3)), 'found (3,)'), (npy(np.zeros((2, 3), int)), 'dtype: expected float16, float32 or float64, found int64'),
    (npy(np.array([[None] * 3])), 'found object'), (npy(np.zeros((2, 3), complex)), 'complex128'), (npy(np.zeros((2, 3))).replace(b'(2, 3)', b'(-2,3)'), 'shape'), (npy(np.zeros((2, 3))).replace(b'(2, 3), ', b'(10**9,3)'), 'header'),
    (npy(np.zeros((2, 3))).replace(b'(2, 3), }  ', b'(9999999,3),}'.ljust(11)), ''),
])
def test_npy(raw, says): refused(lambda: read_npy('x.npy', (None, 3), raw), 'x.npy', says)


def test_npy_of_every_kind():
    for dtype in ('<f2', '>f4', '<f8'):
        for order in 'CF': np.testing.assert_array_equal(read_npy('x.npy', (None, 3), npy(np.arange(6).reshape(2, 3).astype(dtype, order=order))), np.arange(6).reshape(2, 3))


def tar(path, members, how='w:gz', **info):
    with tarfile.open(path, how) as t:
        for n, b in members:
            m = tarfile.TarInfo(n); m.size = len(b)
            for k, v in info.items(): setattr(m, k, v)
            t.addfile(m, io.BytesIO(b))
    return path


def test_archives(tmp_path):
    path = tmp_path / 'a.tar'
    for how in ('w', 'w:gz', 'w:xz'): assert read_tar(tar(path, [('d/x', b'1' * 700), ('y', b'')], how)) == {'d/x': b'1' * 700, 'y': b''}
    for name in ('../x', 'a/../../x', '/x', 'a\\x', 'C:x', 'a\nb'): refused(lambda: read_tar(tar(path, [(name, b'')])), 'a.tar', 'member')
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE): refused(lambda: read_tar(tar(path, [('x', b'')], type=kind, linkname='/etc/passwd')), 'a link or device')
    for how in ('w', 'w:gz', 'w:xz'):
        raw = tar(path, [(f'{i}', bytes([i]) * 900) for i in range(9)], how).read_bytes()
        for cut in range(1, len(raw), max(1, len(raw) // 60)):
            path.write_bytes(raw[:cut])
            try: assert set(read_tar(path)) <= {str(i) for i in range(9)} and how == 'w'
            except CorpusError: pass
    path.write_bytes(gzip.compress(b'\0' * 10**6)); refused(lambda: read_tar(path, limit=10**5), 'at most 100000 bytes, found more')
    raw = bytearray(tar(path, [(f'{i}', b'1' * 900) for i in range(3)], 'w').read_bytes()); raw[1536:1540] = b'\xff' * 4; path.write_bytes(raw)
    refused(lambda: read_tar(path), 'expected another member or the end')


def test_tables_as_csv_reads_them(tmp_path):
    rng, path, well = random.Random(0), tmp_path / 't.csv', 0
    for _ in range(600):
        w = rng.randrange(1, 4)
        text = ','.join('xyzw'[:w]) + '\n' + '\n'.join(','.join(rng.choice(['', 'a', '"q,""r"', ' ', '  b', 'None', '"n\nl"', '"', "'", 'ä', '\t', '#', '1.0', '\0']) for _ in range(w)) for _ in range(rng.randrange(1, 6)))
        path.write_bytes(text.encode())
        try: table = read_table(path)
        except CorpusError: continue
        rows = list(csv.reader(io.StringIO(text, newline=''), strict=True))
        assert table.values.tolist() == [r for r in rows[1:] if len(r) == w] and list(table) == rows[0]; well += 1
    assert well > 200


# ---- Sem-Lex

def test_semlex(tmp_path):
    c = read_semlex(semlex(tmp_path / 's'))
    assert c.frame['gloss'].tolist() == ['eat_1', 'food, eat', '3369', 'N/A'] and c.frame['signer'].tolist() == ['1', '1', '2', '3'] and c.frame['split'].tolist() == ['train', 'train', 'val', 'test']
    assert c.frame['duration_ms'].tolist() == [1936, 1936, 1220, 900] and c.frame['signbank_id'].tolist() == ['12.0', '', '3369', ''] and (c.joint_set, c.fps) == ('mediapipe553', 30)
    assert decode(c.codes)['Path Movement'].tolist() == ['None', 'N/A', 'N/A', LEX['Path Movement']] and (c.codes[1:3] == -1).all() and c.codes[0, NAMES.index('Spread')] == -1
    assert [x.shape for x in c.clips] == [(3, 553, 3), (3, 553, 3), (2, 553, 3), (1, 553, 3)]
    left = select(c.clips[0], 'mediapipe553', 'mediapipe75')[:, 33:54]
    assert np.isnan(left[0]).all() and np.isfinite(left[1:]).all()


def test_semlex_columns_go_by_name(tmp_path):
    whole = read_semlex(semlex(tmp_path / 'a'))
    for i, change in enumerate((lambda t: t[t.columns[::-1]], lambda t: t.rename(columns=lambda c: c.replace(' ', '')), lambda t: t.assign(extra='x'), lambda t: t.rename(columns=str.upper))):
        c = read_semlex(semlex(tmp_path / f'b{i}', columns=change))
        assert (c.codes == whole.codes).all() and c.frame['gloss'].tolist() == whole.frame['gloss'].tolist()
    refused(lambda: read_semlex(semlex(tmp_path / 'c', columns=lambda t: t.drop(columns='split'))), 'semlex_metadata.csv: split: expected one column, found 0')
    refused(lambda: read_semlex(semlex(tmp_path / 'd', columns=lambda t: t.assign(SignType='x'))), 'Sign Type: expected one column, found 2')
    refused(lambda: read_semlex(semlex(tmp_path / 'e', columns=lambda t: t.drop(columns='Handshape'))), 'Handshape')
    assert read_semlex(tmp_path / 'e', codes=False).codes is None


def test_semlex_options(tmp_path):
    at = semlex(tmp_path / 's')
    assert len(read_semlex(at, duplicates='first')) == 3
    refused(lambda: read_semlex(at, duplicates='error'), 'v1 again, 1 rows')
    assert read_semlex(at, label_types=['freetext', 'signbank']).frame['gloss'].tolist() == ['food, eat', '3369']
    only = read_semlex(at, splits=['test']); assert only.frame['name'].tolist() == ['v3'] and (only.codes == read_semlex(at).codes[3:]).all()
    assert read_semlex(at, poses=False).clips is None
    for bad in (dict(duplicates='last'), dict(label_types=['asl']), dict(splits=['dev']), dict(missing='no'), dict(extra='no')):
        with pytest.raises(InputError): read_semlex(at, **bad)
    refused(lambda: read_semlex(at, label_types=[]), 'items: expected at least one')
    (at / 'test' / 'v3.npy').unlink()
    refused(lambda: read_semlex(at), 'one for each of 4 rows, found 1 rows without (v3); missing="drop"')
    c = read_semlex(at, missing='drop'); assert len(c) == len(c.clips) == len(c.codes) == 3 and '1 of 4 clips have no file' in c.card.defects[-1]
    assert read_semlex(at, splits=['train'], missing='keep').frame['has_clip'].all()
    c = read_semlex(at, missing='keep'); assert c.frame['has_clip'].tolist() == [True] * 3 + [False]
    refused(lambda: c.clips[3], 'v3.npy', 'no such file')
    np.save(at / 'test' / 'v4.npy', np.zeros((1, 553, 3), np.float16))
    refused(lambda: read_semlex(at, missing='drop'), 'a row for every clip, found 1 without (test/v4); extra="ignore"')
    assert len(read_semlex(at, missing='drop', extra='ignore')) == 3
    shutil.rmtree(at / 'test'); assert read_semlex(at, splits=['train', 'val']).clips is not None
    for s in ('train', 'val'): shutil.rmtree(at / s)
    assert read_semlex(at).clips is None
    refused(lambda: read_semlex(at, poses=True), 'poses')


@pytest.mark.parametrize('field, value, says', [
    ('video_id', '../../secret', "video_id: expected a file name without folder, found '../../secret'"), ('video_id', '/etc/passwd', 'video_id'), ('video_id', 'a/b', 'video_id'), ('video_id', '', 'video_id'), ('video_id', 'a\\b', 'video_id'),
    ('label', '', "label: expected a value, found ''"), ('label', '  ', 'label'), ('signer_id', '', 'signer_id'), ('split', 'dev', "split: expected train, val or test, found 'dev'"), ('label_type', '', 'label_type'),
    ('duration', 'long', "duration_ms: expected a finite number >= 0, found 'long'"), ('duration', 'inf', 'duration_ms'), ('duration', '-1', 'duration_ms'), ('Handshape', 'paw', "Handshape: expected one of 58 values"), ('Path Movement', '', 'Path Movement'),
])
def test_semlex_bad_rows(tmp_path, field, value, says): refused(lambda: read_semlex(semlex(tmp_path / 's', **{field: value})), 'semlex_metadata.csv: row', says)


def test_a_bad_feature_is_named_by_its_row_of_the_file(tmp_path):
    at, said = semlex(tmp_path / 's', columns=lambda t: t.assign(Handshape=[*t['Handshape'][:3], 'paw'])), set()
    for options in ({}, {'splits': ['test']}, {'splits': ['train']}):
        with pytest.raises(CorpusError) as e: read_semlex(at, **options)
        said.add(str(e.value))
    assert len(said) == 1 and 'Handshape' in said.pop()


@pytest.mark.parametrize('x, says', [
    (np.zeros((2, 543, 3), np.float16), 'shape: expected (1 or more, 553, 3), found (2, 543, 3)'), (np.zeros((0, 553, 3), np.float16), 'found (0, 553, 3)'), (np.zeros((2, 553, 3), int), 'dtype'), (np.full((2, 553, 3), np.inf, np.float16), 'finite numbers or NaN'),
    (np.zeros((553, 3), np.float16), 'shape'), (np.full((2, 553, 3), 1e39), 'finite'),
])
def test_semlex_bad_clips(tmp_path, x, says):
    at = semlex(tmp_path / 's'); np.save(at / 'train' / 'v1.npy', x)
    refused(lambda: read_semlex(at).clips[0], 'v1.npy', says)


def test_encodings(tmp_path):
    at = semlex(tmp_path / 's'); path = at / 'semlex_metadata.csv'; raw = path.read_bytes()
    path.write_bytes(b'\xef\xbb\xbf' + raw); assert len(read_semlex(at)) == 4
    path.write_bytes(raw.replace(b'\n', b'\r\n')); assert read_semlex(at).frame['gloss'].tolist() == ['eat_1', 'food, eat', '3369', 'N/A']
    path.write_bytes(raw.replace(b'eat_1', 'caf\xe9'.encode('latin-1'))); refused(lambda: read_semlex(at), 'semlex_metadata.csv: byte', 'UTF-8')
    path.write_bytes(raw.decode().encode('utf-16')); refused(lambda: read_semlex(at), 'byte 0')
    path.write_bytes(raw[:-9]); refused(lambda: read_semlex(at), 'line 5')


def test_a_large_table_reads_fast(tmp_path):
    n, rows = 100_000, pd.DataFrame({'Unnamed': range(100_000), 'video_id': [f'Netq{i:016d}' for i in range(100_000)], 'signer_id': [i % 41 for i in range(100_000)], 'duration': 1936, 'split': 'train', 'label_type': ['asllex', 'freetext'] * 50_000, 'label': [f'sign, {i % 3149}' for i in range(100_000)]})
    words = pd.DataFrame({k: np.where(rows['label_type'] == 'asllex', v, '') for k, v in LEX.items()})
    pd.concat([rows, words.assign(**{'Flexion Change': '0', 'SignBank Reference ID': '1.0'})], axis=1).to_csv(tmp_path / 'semlex_metadata.csv', index=False)
    seconds = []
    for _ in range(3): started = time.process_time(); c = read_semlex(tmp_path); seconds.append(time.process_time() - started)
    print(f'\nSem-Lex metadata: {min(seconds):.2f} s of one core for {n} rows')
    assert len(c) == n and (c.codes[0] == 0).all() and (c.codes[1] == -1).all() and min(seconds) < 5


# ---- ASL Citizen

def test_asl_citizen(tmp_path):
    c = read_asl_citizen(citizen(tmp_path / 'c'), asl_lex=lexicon(tmp_path / 'l') / 'asllex_data.csv')
    assert c.frame['name'].tolist() == ['1-EAT', '2, b-EAT', '4.7e-7-seedSOUR', '4-X'] and c.frame['gloss'].tolist() == ['EAT1', 'EAT2', 'SOUR', 'None'] and c.frame['signer'].tolist() == ['P1', 'P1', 'P2', 'P3']
    assert decode(c.codes)['Path Movement'].tolist() == ['None', 'N/A', 'N/A', 'Curved'] and [len(x) for x in c.clips] == [2, 3, 4, 5] and (c.joint_set, c.fps) == ('mediapipe75', None)
    (tmp_path / 'parent').mkdir(); shutil.move(tmp_path / 'c', tmp_path / 'parent' / 'ASL_Citizen')
    assert read_asl_citizen(tmp_path / 'parent', splits=['test']).frame['name'].tolist() == ['4-X']
    assert read_asl_citizen(tmp_path / 'parent', poses=False).clips is None
    assert len(read_asl_citizen(citizen(tmp_path / 'bom', head='Participant ID ,Video file,Gloss,ASL-LEX Code', encoding='utf-8-sig'))) == 4


def test_asl_citizen_refuses(tmp_path):
    at = citizen(tmp_path / 'c')
    (at / 'poses' / '4-X.pose').unlink(); refused(lambda: read_asl_citizen(at), 'without (4-X)'); assert len(read_asl_citizen(at, missing='drop')) == 3
    poses_in(at / 'poses', ['new', '4-X']); refused(lambda: read_asl_citizen(at), 'without (new)'); assert len(read_asl_citizen(at, extra='ignore')) == 4
    poses_in(at / 'poses', ['4-X'], fps=30); assert [len(x) for x in read_asl_citizen(at, extra='ignore').clips] == [2, 3, 4, 2]
    poses_in(at / 'poses', ['4-X'], 'openhands27'); refused(lambda: [*read_asl_citizen(at, extra='ignore').clips], '4-X.pose')
    test = at / 'splits' / 'test.csv'; head = 'Participant ID,Video file,Gloss,ASL-LEX Code\n'
    for row, says in (('P3,../x.mp4,A,C', 'Video file'), ('P3,x,A,C', 'a file name'), ('P3,4-X.mp4,,C', 'Gloss'), (',4-X.mp4,A,C', 'Participant ID'), ('P3,4-X.mp4,A', 'line 2: expected 4 fields, found 3'), ('P3,1-EAT.mp4,A,C', '1-EAT again')):
        test.write_text(head + row + '\n'); refused(lambda: read_asl_citizen(at, poses=False), says, 'splits: ' if 'again' in says else 'test.csv: ')
    test.write_text(head + 'P3,5-X.mp4,A,C\nP3,4-X.mp4,,C\n'); refused(lambda: read_asl_citizen(at, poses=False), 'splits/test.csv: row 2: Gloss')
    test.unlink(); refused(lambda: read_asl_citizen(at), 'test.csv: file')


# ---- WLASL

def test_wlasl(tmp_path):
    c = read_wlasl(wlasl(tmp_path / 'w'))
    assert c.frame['name'].tolist() == ['69241', '07069', '00001'] and c.frame['gloss'].tolist() == ['book', 'book', 'None'] and c.frame['signer'].tolist() == ['118', '4', '4'] and c.frame['split'].tolist() == ['train', 'test', 'val']
    assert np.isnan(c.clips[1]).all(-1).sum(1).tolist() == [21, 0, 0] and not np.isnan(read_wlasl(tmp_path / 'w', zeros='keep').clips[1]).any()
    assert len(read_wlasl(tmp_path / 'w' / 'WLASL_v0.3.json')) == 3 and read_wlasl(tmp_path / 'w', poses=False).clips is None
    (tmp_path / 'w' / 'poses' / '69241.pkl').unlink(); refused(lambda: read_wlasl(tmp_path / 'w'), 'without (69241)')
    assert read_wlasl(tmp_path / 'w', missing='drop').frame['name'].tolist() == ['07069', '00001'] and read_wlasl(tmp_path / 'w', missing='keep').frame['has_clip'].tolist() == [False, True, True]
    refused(lambda: read_wlasl(tmp_path / 'w', poses=tmp_path / 'nowhere'), 'nowhere')


@pytest.mark.parametrize('data, says', [
    ([], 'a list of glosses'), ({'a': 1}, 'a list of glosses'), ([1], 'entry 0'), ([{'gloss': '', 'instances': []}], 'entry 0'), ([{'gloss': 'a', 'instances': []}], 'instances: expected at least one'), ([{'gloss': 'a'}], 'entry 0'), ([{'gloss': 'a', 'instances': [3]}], 'a 0'),
    ([{'gloss': 'a', 'instances': [instance(3, 1, 'test')]}], 'a 0: video_id: expected text, found 3'), ([{'gloss': 'a', 'instances': [instance('1', None, 'test')]}], 'signer_id'), ([{'gloss': 'a', 'instances': [instance('1', True, 'test')]}], 'signer_id'),
    ([{'gloss': 'a', 'instances': [instance('1', 1, 'dev')]}], 'split'), ([{'gloss': 'a', 'instances': [instance('../1', 1, 'test')]}], 'video_id'), ([{'gloss': 'a', 'instances': [instance('1', 1, 'test')] * 2}], '1 again'), ([{'gloss': 'a', 'instances': [{'video_id': '1'}]}], 'split'),
])
def test_wlasl_bad_labels(tmp_path, data, says): refused(lambda: read_wlasl(wlasl(tmp_path / 'w', data)), 'WLASL_v0.3.json', says)


def test_wlasl_bad_json(tmp_path):
    path = wlasl(tmp_path / 'w') / 'WLASL_v0.3.json'
    for raw in (b'', b'[', b'[{"gloss": NaN}]', b'\xff', b'[' * 100000): path.write_bytes(raw); refused(lambda: read_wlasl(tmp_path / 'w'), 'WLASL_v0.3.json')


@pytest.mark.parametrize('change, says', [
    (dict(keypoints=np.zeros((3, 76, 3))), 'joints: expected 75'), (dict(keypoints=np.zeros((0, 75, 3)), confidences=np.zeros((0, 75))), 'frames: expected at least 1'), (dict(keypoints=np.full((3, 75, 3), np.inf)), 'finite numbers or NaN'), (dict(keypoints=[1, 2]), 'keypoints: expected an array, found list'), (dict(confidences=None), 'confidences: expected an array, found NoneType'),
    (dict(confidences=np.zeros((2, 75))), 'confidences'), (dict(confidences=np.full((3, 75), np.nan)), 'confidences'), (dict(confidences=np.array(['a'])), 'confidences'), (dict(keypoints=np.array(['a'])), 'real numbers'),
])
def test_openhands_refuses(tmp_path, change, says): refused(lambda: read_openhands(openhands(tmp_path / 'x.pkl', **change)), 'x.pkl', says)


def test_openhands_zeros(tmp_path):
    x = np.full((2, 75, 3), .5); x[0, 0] = 0; x[0, 40] = 0; x[1, 54:] = 0; c = np.ones((2, 75)); c[1, 20] = 0
    missing = np.isnan(read_openhands(openhands(tmp_path / 'x.pkl', keypoints=x, confidences=c))).all(-1)
    assert np.argwhere(missing).tolist() == [[1, 20], *([1, i] for i in range(54, 75))]
    for content in (3, [1], {'keypoints': x}): (tmp_path / 'x.pkl').write_bytes(pickle.dumps(content)); refused(lambda: read_openhands(tmp_path / 'x.pkl'), 'x.pkl: content')
    refused(lambda: read_openhands(tmp_path / 'none.pkl'), 'no such file')
    (tmp_path / 'x.pkl').write_bytes(b"cos\nmkdir\n(S'%s'\ntR." % str(tmp_path / 'owned').encode()); refused(lambda: read_openhands(tmp_path / 'x.pkl'), 'x.pkl: pickle'); assert not (tmp_path / 'owned').exists()


def test_wlasl_asllex(tmp_path):
    c = read_wlasl_asllex(merged(tmp_path / 'm'))
    assert len(c) == 4 and c.clips is None and decode(c.codes)['Path Movement'].tolist() == ['None'] * 3 + ['N/A'] and (c.codes[3] == -1).all() and (c.codes[:3, NAMES.index('Nondominant Handshape')] == -1).all()
    c = read_wlasl_asllex(tmp_path / 'm', poses=True); assert c.frame['name'].tolist() == ['69241', '07069'] and c.codes.shape == (2, 16) and '2 of 4 clips have no file' in c.card.defects[-1]
    refused(lambda: read_wlasl_asllex(tmp_path / 'm', poses=True, missing='error'), 'rows without')
    c = read_wlasl_asllex(compact(tmp_path / 'c')); assert decode(c.codes)['Second Minor Location'].tolist() == ['N/A', 'N/A'] and (c.codes[1] == -1).all()
    for at, name in ((tmp_path / 'm', 'merged_data.json.zip'), (tmp_path / 'c', 'wlasl_asllex_compact.csv.gz')):
        raw = (at / name).read_bytes()
        for cut in range(0, len(raw), max(1, len(raw) // 40)): (at / name).write_bytes(raw[:cut]); refused(lambda: read_wlasl_asllex(at), name)
    with zipfile.ZipFile(tmp_path / 'm' / 'merged_data.json.zip', 'w') as z: z.writestr('a.json', '[]'); z.writestr('b.json', '[]')
    refused(lambda: read_wlasl_asllex(tmp_path / 'm'), 'one .json')
    with zipfile.ZipFile(tmp_path / 'm' / 'merged_data.json.zip', 'w') as z: z.writestr('a.json', '[Infinity]')
    refused(lambda: read_wlasl_asllex(tmp_path / 'm'), 'a finite number, found Infinity')


# ---- ASL-LEX, AUTSL

def test_asl_lex(tmp_path):
    c = read_asl_lex(lexicon(tmp_path / 'l')); assert c.frame['gloss'].tolist() == ['eat', 'release, rescue'] and c.clips is None and decode(c.codes)['Path Movement'].tolist() == ['None', 'Curved']
    words = {f.osf: {'Path Movement': 'BackAndForth', 'Sign Type': 'OneHanded'}.get(f.name, f.values[0]) for f in FEATURES} | {'FlexionChange.2.0': '0', 'EntryID': 'eat', 'LemmaID': 'eat'}
    for encoding in ('utf-8-sig', 'latin-1'):
        (tmp_path / 'osf.csv').write_bytes(pd.DataFrame([words, words | {'EntryID': 'café'}]).to_csv(index=False).encode(encoding))
        c = read_asl_lex(tmp_path / 'osf.csv'); assert c.frame['gloss'].tolist() == ['eat', 'café'] and decode(c.codes)['Path Movement'][0] == 'Back And Forth' and decode(c.codes)['Sign Type'][0] == 'One Handed'


def test_autsl(tmp_path):
    at = autsl(tmp_path / 'a'); (at / 'train_labels.csv').write_text('signer1_sample1,7\n')
    assert read_autsl(at).frame.values.tolist() == [['signer34_sample1', '133', 'signer34', 'test'], ['signer6_sample2', '0', 'signer6', 'test'], ['signer1_sample1', '7', 'signer1', 'train']]
    assert len(read_autsl(at, 'train_labels.csv')) == len(read_autsl(at / 'train_labels.csv')) == 1
    (at / 'train_labels.csv').write_text('signer6_sample2,7\n'); refused(lambda: read_autsl(at), 'signer6_sample2 in two files')
    (at / 'train_labels.csv').write_text('sample2,7\n'); refused(lambda: read_autsl(at), 'train_labels.csv: clip: expected signerN_sampleM')


# ---- ISL30

def test_isl30(tmp_path):
    c = read_isl30(isl(tmp_path / 'i'), cache=tmp_path / 'cache')
    assert c.frame['name'].tolist() == [f'{g}_{s}_{r}' for g in ('eat', 'go') for s in ('S01', 'S02') for r in (1, 2)] and [len(x) for x in c.clips] == [2, 3] * 4 and c.fps is None
    assert not any('zoe' in str(v) or 'ann' in str(v) for v in (c.frame.values, c.card)) and np.allclose(c.clips[0][0, 0], [-3, 1 / 7 - 3, 2 / 7 - 3])
    tar(tmp_path / 'RawDataset.tar.xz', [(f'RawDataset/{p.name}', p.read_bytes()) for p in sorted((tmp_path / 'i' / 'RawDataset').iterdir())], 'w:xz')
    packed = read_isl30(tmp_path / 'RawDataset.tar.xz', cache=False)
    assert packed.frame.equals(c.frame) and all((a == b).all() for a, b in zip(packed.clips, c.clips)) and fingerprint(packed) == fingerprint(c)
    (tmp_path / 'i' / 'RawDataset' / 'eat_zoe_1.txt').touch(); assert fingerprint(read_isl30(tmp_path / 'i', cache=tmp_path / 'cache')) == fingerprint(c)


def test_isl30_cache(tmp_path):
    at = isl(tmp_path / 'i'); first = read_isl30(at, cache=tmp_path / 'c'); kept, = (tmp_path / 'c').iterdir()
    with np.load(kept) as z: assert {k: z[k].shape for k in z.files} == dict(source=(), frames=(20, 20, 3), lengths=(8,), sign=(8,), signer=(8,), repetition=(8,), content=()) and set(z['signer']) == {'S01', 'S02'}
    again = read_isl30(at, cache=tmp_path / 'c'); assert again.frame.equals(first.frame) and fingerprint(again) == fingerprint(first)
    raw = bytearray(kept.read_bytes()); raw[len(raw) // 2] ^= 1
    for bad in (bytes(raw), bytes(raw[:99]), b''):
        kept.write_bytes(bad); c = read_isl30(at, cache=tmp_path / 'c'); assert all((a == b).all() for a, b in zip(c.clips, first.clips)) and len(kept.read_bytes()) == len(raw)
    (at / 'RawDataset' / 'eat_zoe_1.txt').write_bytes(LINE * 5)
    assert max(len(x) for x in read_isl30(at, cache=tmp_path / 'c').clips) == 5 and len(list((tmp_path / 'c').iterdir())) == 2
    (tmp_path / 'file').write_text(''); assert len(read_isl30(at, cache=tmp_path / 'file' / 'x')) == 8


def test_isl30_refuses(tmp_path):
    at = isl(tmp_path / 'i'); raw = at / 'RawDataset'
    for bad, says in ((b'', 'frames: expected at least 1, found 0'), (LINE + b'1 2 3\n', 'eat_ann_1.txt: line 2: expected 60 finite numbers, found 3 words'), (LINE.replace(b' ', b' x', 1), '59 of them numbers'), (LINE + b'\n', 'line 2'), (LINE.replace(b'-3', b'nan', 1), 'line 1'),
                      (LINE.replace(b'-3', b'inf', 1), 'line 1'), (LINE[:-30], 'line 1'), (LINE[:-1] + b' 1\n', 'found 61 words'), (b'\xff\xfe' + LINE, 'line 1'), (b'"' + LINE, 'line 1'), (LINE.replace(b'-3', b'1_0', 1), 'line 1'), (LINE.replace(b' ', b',', 1), 'line 1'), (LINE.replace(b'-3', b'', 1), 'line 1')):
        (raw / 'eat_ann_1.txt').write_bytes(bad); refused(lambda: read_isl30(at, cache=False), 'RawDataset/eat_ann_1.txt', says)
    (raw / 'eat_ann_1.txt').write_bytes(LINE)
    (raw / 'notes.md').write_text('x'); refused(lambda: read_isl30(at, cache=False), '.txt files alone, found 1 others'); (raw / 'notes.md').unlink()
    (raw / 'eat_ann.txt').write_bytes(LINE); refused(lambda: read_isl30(at, cache=False), 'sign_signer_repetition.txt'); (raw / 'eat_ann.txt').unlink()
    (raw / 'eat__ann_1.txt').write_bytes(LINE); refused(lambda: read_isl30(at, cache=False), 'each sign, signer and repetition once, found eat, S01, 1 again'); (raw / 'eat__ann_1.txt').unlink()
    (raw / 'eat_ann_1.txt').unlink(); refused(lambda: read_isl30(at, cache=False), 'expected 8: 2 signs x 2 signers x 2 times, found 7'); assert len(read_isl30(at, cache=False, complete=False)) == 7
    for s in ('\t', '  '): (raw / 'eat_ann_1.txt').write_bytes(LINE.replace(b' ', s.encode())); assert len(read_isl30(at, cache=False)) == 8


# ---- MediaPipe words

def test_asl_mediapipe(tmp_path):
    c = read_asl_mediapipe(mediapipe(tmp_path / 'm'))
    assert c.frame[['name', 'gloss', 'signer']].values.tolist() == [['-/0', '-', 'R1'], ['eat/2', 'eat', 'R1'], ['eat/10', 'eat', 'R2']] and np.isnan(c.clips[1]).all(-1).sum(1).tolist() == [21, 0] * 10 and c.clips[0][1, 0].tolist() == [259, 260, 261]
    packed = tmp_path / 'MP_Data_subset.tar.gz'; files = sorted(p for p in (tmp_path / 'm' / 'MP_Data').rglob('*.npy'))
    tar(packed, [(p.relative_to(tmp_path / 'm').as_posix(), p.read_bytes()) for p in files])
    d = read_asl_mediapipe(packed); assert d.frame.drop(columns='signer').equals(c.frame.drop(columns='signer')) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(c.clips, d.clips))
    assert mediapipe258(np.zeros((1, 258))).shape == (1, 75, 3) and np.isnan(mediapipe258(np.zeros((1, 258)))).all()


def test_asl_mediapipe_refuses(tmp_path):
    at = mediapipe(tmp_path / 'm'); one = at / 'MP_Data' / 'eat' / '10'
    for x, says in ((np.zeros(257), 'found (257,)'), (np.zeros((1, 258)), 'shape'), (np.zeros(258, int), 'dtype'), (np.full(258, np.inf), 'frame 3: expected finite'), (np.full(258, 1e39), 'finite')): np.save(one / '3.npy', x); refused(lambda: read_asl_mediapipe(at).clips[2], 'eat/10', says)
    (one / '3.npy').unlink(); refused(lambda: read_asl_mediapipe(at), 'eat/10: frames: expected 0 to 19, found 19 files')
    np.save(one / '3.npy', np.zeros(258)); np.save(one / '20.npy', np.zeros(258)); refused(lambda: read_asl_mediapipe(at), 'found 21 files'); assert len(read_asl_mediapipe(at, frames=None).clips[2]) == 21; (one / '20.npy').unlink()
    (one / 'x.txt').write_text(''); refused(lambda: read_asl_mediapipe(at), 'word/sequence/frame.npy'); (one / 'x.txt').unlink()
    (at / 'MP_Data' / '3').mkdir(); np.save(at / 'MP_Data' / '3' / '0.npy', np.zeros(258)); refused(lambda: read_asl_mediapipe(at), 'word/sequence/frame.npy'); shutil.rmtree(at / 'MP_Data' / '3')
    for rows, says in (('-,0,R1\neat,2,R1\n', '1 lacking'), ('-,0,R1\neat,2,R1\neat,10,R1\neat,11,R1\n', '1 of no sequence'), ('-,0,R1\neat,2,R1\neat,10,\n', 'recorder'), ('-,0,R1\n-,0,R2\n', '1 again'), ('-,x,R1\n', 'sequence')):
        (at / 'signers.csv').write_text('word,sequence,recorder\n' + rows); refused(lambda: read_asl_mediapipe(at), 'signers.csv', says)
    (at / 'signers.csv').unlink(); assert set(read_asl_mediapipe(at).frame['signer']) == {''}


# ---- .pose

def test_pose_folders(tmp_path):
    c = read_pose_folder(pose_folder(tmp_path / 'p'))
    assert c.frame[['name', 'gloss', 'signer', 'split', 'frames']].values.tolist() == [['a', 'None', 'S1', 'train', 2], ['x/b', 'N/A', 'S2', 'test', 3]] and (c.joint_set, c.fps) == ('mediapipe75', 25)
    lazy = read_pose_folder(tmp_path / 'p', check=False); assert all((a == b).all() for a, b in zip(c.clips, lazy.clips))
    at = pose_folder(tmp_path / 'q', None); assert read_pose_folder(at).frame['gloss'].tolist() == ['', '']
    poses_in(at, ['c'], fps=30); assert read_pose_folder(at).fps is None and read_pose_folder(at).frame['fps'].tolist() == [25, 30, 25]
    lazy = read_pose_folder(at, check=False); assert lazy.fps is None and [len(x) for x in lazy.clips] == [2, 2, 3]
    for index, says in (('name\na\n', '2 without'), ('name\na\nx/b\nc\nd\n', '1 rows without (d)'), ('name\n../a\n', 'name'), ('gloss\nA\n', 'name: expected a column'), ('name,gloss\na,\n', 'gloss'), ('name\na\na\n', 'a again'), ('name\n', 'rows')):
        (at / 'index.csv').write_text(index); refused(lambda: read_pose_folder(at), says)
    (at / 'index.csv').write_text('name\na\nx/b\nc\nd\n'); assert len(read_pose_folder(at, missing='drop')) == 3 and read_pose_folder(at, missing='keep').frame['has_clip'].tolist() == [True] * 3 + [False]
    assert [len(x) for x in read_pose_folder(at, missing='keep').clips[:3]] == [2, 3, 2]
    (at / 'index.csv').unlink(); poses_in(at, ['c'], 'openhands27'); refused(lambda: read_pose_folder(at), 'joints')
    (at / 'c.pose').write_bytes(b'x'); refused(lambda: read_pose_folder(at), 'c.pose')


def test_fingerspelling_refuses(tmp_path):
    at = letters(tmp_path / 'f'); assert read_fingerspelling(at).frame['gloss'].tolist() == ['A', 'None']
    refused(lambda: read_fingerspelling(at, 'ars'), '1 rows without')
    with pytest.raises(InputError): read_fingerspelling(at, 'gsl')
    (at / 'ase' / 'r.pose').unlink(); refused(lambda: read_fingerspelling(at), 'ase/r'); assert len(read_fingerspelling(at, missing='drop')) == 1
    (at / 'ase' / 'q.pose').unlink(); refused(lambda: read_fingerspelling(at, missing='drop'), 'f: clips: expected at least one .pose, found 0')
    (at / 'index.csv').write_text('path,signed_language,glosses\nars/z.pose,ars,C\nase/q.pose,ase,\n'); refused(lambda: read_fingerspelling(at), 'index.csv: row 2: glosses')
    for row in ('../x.pose,ase,A', 'x.txt,ase,A', 'ase/q.pose,ase,', 'ase/q.pose,ase,A\nase/q.pose,ase,B'): (at / 'index.csv').write_text('path,signed_language,glosses\n' + row + '\n'); refused(lambda: read_fingerspelling(at), 'index.csv')


# ---- splits

def corpus_of(rows): return IsolatedCorpus(Card('made'), pd.DataFrame(rows, columns=['name', 'gloss', 'signer', 'split']))


def random_corpus(seed, n=200, signers=9, classes=7):
    rng = np.random.default_rng(seed); p = rng.dirichlet(np.ones(signers))
    return corpus_of([(f'c{i}', f'g{rng.integers(classes)}', f's{rng.choice(signers, p=p)}', '') for i in range(n)])


@pytest.mark.parametrize('seed', range(20))
def test_signers_stay_in_one_part(seed):
    c = random_corpus(seed); part = signer_disjoint(c, .25, .1, seed)
    assert (part == signer_disjoint(c, .25, .1, seed)).all() and set(part) == set(SPLITS)
    assert all(len(set(part[c.frame['signer'] == s])) == 1 for s in set(c.frame['signer']))
    assert set(signer_disjoint(c, .3, 0, seed)) == {'train', 'test'} and set(signer_disjoint(c, 0, 0)) == {'train'}
    folds = leave_one_signer_out(c)
    assert sorted(np.concatenate([t for _, _, t in folds])) == list(range(200)) and all(set(c.frame['signer'][t]) == {s} and s not in set(c.frame['signer'][tr]) and len(tr) + len(t) == 200 for s, tr, t in folds)


@pytest.mark.parametrize('seed', range(20))
def test_folds_and_shots(seed):
    c = random_corpus(seed); k = 3
    train, test = few_shot(c, k, seed); again = few_shot(c, k, seed)
    assert (train == again[0]).all() and not set(train) & set(test) and len(train) + len(test) == 200 and set(c.frame['gloss'][train].value_counts()) == {k}
    assert seed == 0 or (few_shot(c, k, 0)[0] != train).any()
    for n in (2, 5, 7):
        fold = stratified_folds(c, n, seed); table = pd.crosstab(c.frame['gloss'], fold).to_numpy()
        assert (fold == stratified_folds(c, n, seed)).all() and np.ptp(table, 1).max() <= 1 and np.ptp(np.bincount(fold)) <= 1 and set(fold) == set(range(n))


def test_splits_refuse():
    c = corpus_of([('a', 'x', 'S', ''), ('b', 'x', 'T', ''), ('c', 'y', 'S', '')]); unknown = corpus_of([('a', '', '', ''), ('b', 'x', 'S', '')]); twice = corpus_of([('a', 'x', 'S', ''), ('a', 'y', 'S', '')])
    for call, says in ((lambda: signer_disjoint(c), 'signers: expected at least 3'), (lambda: signer_disjoint(c, .6, .5), 'shares'), (lambda: signer_disjoint(c, -1), 'shares'), (lambda: signer_disjoint(unknown), 'signer: expected known'),
                       (lambda: leave_one_signer_out(unknown), 'signer: expected known'), (lambda: leave_one_signer_out(twice), 'signers: expected at least 2'), (lambda: few_shot(c, 1), 'classes'), (lambda: few_shot(c, 0), 'k: '), (lambda: few_shot(c, 1.5), 'k: '),
                       (lambda: few_shot(c, True), 'k: '), (lambda: few_shot(unknown, 1), 'gloss'), (lambda: few_shot(twice, 1), 'a again'), (lambda: few_shot(c, 5, short='drop'), 'classes'), (lambda: few_shot(c, 1, short='x'), 'treatment'),
                       (lambda: stratified_folds(c, 1), 'n: '), (lambda: stratified_folds(c, 4), 'n: '), (lambda: stratified_folds(twice, 2), 'a again'), (lambda: stratified_folds(unknown, 2), 'gloss')):
        with pytest.raises(InputError) as e: call()
        assert '\n' not in str(e.value) and says in str(e.value), str(e.value)
    assert c.frame['gloss'][few_shot(c, 1, short='drop')[0]].tolist() == ['x'] and set(signer_disjoint(c, .2, 0)) == {'train', 'test'}


# ---- the real files

def test_real_wlasl_asllex(real, tmp_path):
    c = read_wlasl_asllex(real / 'wlasl-asllex')
    known = (c.codes >= 0).any(1)
    assert (len(c), c.frame['gloss'].nunique(), c.frame['signer'].nunique(), c.frame['split'].value_counts().to_dict()) == (21083, 2000, 119, {'train': 14289, 'val': 3916, 'test': 2878})
    assert (c.frame['gloss'][known].nunique(), known.sum(), c.frame['split'][known].value_counts().to_dict()) == (754, 9438, {'train': 6439, 'val': 1695, 'test': 1304})
    assert pd.DataFrame(c.codes).groupby(c.frame['gloss'].to_numpy()).nunique().max().max() == 1
    train, test = (set(c.frame['signer'][c.frame['split'] == s]) for s in ('train', 'test')); assert (len(test), len(test & train)) == (105, 104)
    c = read_wlasl_asllex(real / 'wlasl-asllex', poses=True)
    assert len(c) == 22 and c.frame['gloss'].value_counts().to_dict() == {'before': 8, 'son': 7, 'book': 6, 'about': 1} and (min(map(len, c.clips)), max(map(len, c.clips))) == (26, 105)
    hands = np.array([[np.isnan(x[:, i:i + 21]).all((1, 2)).mean() for i in (33, 54)] for x in c.clips]); assert (hands.min(), hands.max()) == (0, 1)


def test_real_asl_lex(real):
    c = read_asl_lex(real / 'asl-lex'); small = read_asl_lex(real / 'asl-lex', 'asllex2_phonology_compact.csv')
    assert (len(c), c.frame['name'].nunique(), len(np.unique(c.codes, axis=0))) == (2723, 2719, 2178) and (small.codes == c.codes).all() and small.frame['name'].equals(c.frame['name'])
    assert (decode(c.codes)['Path Movement'] == 'None').sum() == 417 and set(c.frame['name'][c.frame['name'].duplicated()]) == {'bite', 'drag', 'take_off', 'type'}


def test_real_autsl(real):
    c = read_autsl(real / 'autsl-scores')
    assert (len(c), c.frame['gloss'].nunique(), set(c.frame['split'])) == (3742, 226, {'test'}) and c.frame['signer'].value_counts().to_dict() == {'signer14': 441, 'signer27': 639, 'signer30': 662, 'signer34': 657, 'signer39': 665, 'signer6': 678}
    assert dict(zip(c.frame['name'], map(int, c.frame['gloss']))) == load_clip_labels(real / 'autsl-scores' / 'autsl_test_labels.csv')


def test_real_isl30(real, tmp_path):
    files = read_tar(real / 'isl30' / 'RawDataset.tar.xz'); raw = tmp_path / 'RawDataset'; raw.mkdir()
    for n, b in files.items(): (tmp_path / n).write_bytes(b)
    c = read_isl30(tmp_path, cache=tmp_path / 'cache')
    assert (len(c), c.frame['gloss'].value_counts().to_dict(), c.frame['signer'].value_counts().to_dict()) == (2700, dict.fromkeys(set(c.frame['gloss']), 90), {f'S{i:02d}': 270 for i in range(1, 11)})
    assert c.frame['gloss'].nunique() == 30 and (c.frame['frames'].min(), c.frame['frames'].median(), c.frame['frames'].max(), c.frame['frames'].sum()) == (18, 71, 189, 201054)
    assert len({x.tobytes() for x in c.clips}) == 2700 and sum('__' in n for n in files) == 18
    firsts = {n.split('/')[1].replace('__', '_').split('_')[1] for n in files}; assert len(firsts) == 10 and not any(f in c.frame.to_csv() for f in firsts)
    paths = sorted(raw.iterdir()); best = dict.fromkeys(('loadtxt', 'texts', 'cached'), np.inf)
    for _ in range(3):
        for k, f in (('loadtxt', lambda: [np.loadtxt(p) for p in paths]), ('texts', lambda: read_isl30(tmp_path, cache=False)), ('cached', lambda: read_isl30(tmp_path, cache=tmp_path / 'cache'))):
            started = time.perf_counter(); out = f(); best[k] = min(best[k], time.perf_counter() - started)
            if k == 'loadtxt': loop = {p.stem.replace('__', '_'): x for p, x in zip(paths, out)}
    print(f"\nISL30: loadtxt {best['loadtxt']:.2f} s, texts {best['texts']:.2f} s ({best['loadtxt'] / best['texts']:.1f}x), cached {best['cached']:.3f} s ({best['loadtxt'] / best['cached']:.1f}x)")
    assert best['loadtxt'] / best['cached'] >= 5
    order = {s: f'S{i:02d}' for i, s in enumerate(sorted(firsts), 1)}; clips = dict(zip(c.frame['name'], c.clips))
    for n, x in loop.items(): g, s, r = n.split('_'); np.testing.assert_array_equal(clips[f'{g}_{order[s]}_{r}'].reshape(len(x), 60), x.astype(np.float32))
    packed = read_isl30(real / 'isl30', cache=tmp_path / 'cache'); assert packed.frame.equals(c.frame) and all(np.array_equal(a, b) for a, b in zip(packed.clips, c.clips))


def test_real_asl_mediapipe(real):
    c = read_asl_mediapipe(real / 'asl-mediapipe')
    assert len(c) == 760 and c.frame['signer'].value_counts().to_dict() == {'R1': 320, 'R2': 320, 'R3': 120} and c.frame['gloss'].nunique() == 16 and '-' in set(c.frame['gloss'])
    x = np.stack(c.clips); assert x.shape == (760, 20, 75, 3) and x.dtype == np.float32
    assert np.round([np.isfinite(x[:, :, i, 0]).mean() for i in (33, 54)], 3).tolist() == [.561, .915]


def test_real_poses(real):
    c = read_fingerspelling(real / 'fingerspelling'); touch(c)
    assert ''.join(c.frame['gloss']) == 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' and (c.joint_set, c.fps) == ('mediapipe586', 25) and {x.shape[1:] for x in c.clips} == {(586, 3)}
    c = read_pose_samples(real / 'pose-samples'); touch(c)
    assert c.frame[['name', 'signer', 'frames', 'fps']].values.tolist() == [['25October_2010_Monday_tagesschau-17', '', 86, 25], ['signer0_sample1000', 'signer0', 43, 30]] and c.joint_set == 'mediapipe543' and c.fps is None
    assert len(read_pose_folder(real / 'pose-samples')) == 2
