"Readers of sentence corpora: real files against their counts, written files against their description, and damaged files."
import gzip
import json
import pickle
import random
import warnings

import numpy as np
import pytest

from signbook.core import InputError
from signbook.corpora import CONTINUOUS, CorpusError, fingerprint, hmm_segments, learn_gloss_lexicon, load_corpus, load_csl_daily_texts, load_phoenix14t, recipes

ALL = ('train', 'dev', 'test')


def dump(path, data, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = pickle.dumps(data)
    path.write_bytes(gzip.compress(raw) if packed else raw)


def table(path, *rows, sep=','):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(('\n'.join(sep.join(map(str, r)) for r in rows) + '\n').encode())


# One small valid folder of every format, written as its publishers describe it.

def aligned(name, **more):
    return {'name': name, 'signer': 'Signer01', 'gloss': 'REGEN KOMMEN', 'text': 'regen kommt .', 'num_frames': 8, 'alignments': {'pami0': '0 16 16 17 18 7 8 9'}, **more}


def write_neccam(at, stem='phoenix14t', packed=True):
    for s in ALL: dump(at / f'{stem}.{s}', [aligned(f'{s}/a'), aligned(f'{s}/b', gloss='REGEN', alignments={'pami0': '0 0 16 17 18 3172 3172 0'})], packed)


def label(name, **more):
    return {name: {'name': name, 'gloss': 'REGEN KOMMEN', 'text': 'regen kommt', 'length': 2, 'imgs_path': [f'{name}/images000{i}.png' for i in (1, 2)], **more}}


def write_gfslt(at, packed=True):
    for s in ALL: dump(at / f'labels.{s}', label(f'{s}/a') | label(f'{s}/b'), packed)


def cico(name, **more):
    return {'video_name': name, 'ori_text': 'regen', 'text': 'Rain', 'num_frames': 20, **more}


def write_twostream(at, packed=True):
    write_neccam(at, 'phoenix-2014t', packed)


def write_cleaned(at, packed=True):
    write_neccam(at, 'phoenix-2014t_cleaned', packed)


def write_cico_labels(at, packed=True):
    for s in ALL: dump(at / f'{s}.pkl', {n: cico(n) for n in ('a', 'b')})


PHOENIX_HEAD = 'name video start end speaker orth translation'.split()


def write_csv(at, packed=True):
    for s in ALL: table(at / f'PHOENIX-2014-T.{s}.corpus.csv', PHOENIX_HEAD, [f'{s}-1', f'{s}-1/1/*.png', -1, -1, 'Signer08', 'JETZT WETTER', 'und nun "das wetter'],
                        [f'{s}-2', f'{s}-2/1/*.png', -1, -1, 'Signer01', 'None', 'schönes wetter'], sep='|')


def skel(frames, joints=50):
    x = np.random.default_rng(frames).normal(size=(frames, joints*3)) / 9
    return ' '.join(f'{v:.5f}' for v in np.hstack([x, np.arange(frames)[:, None] / frames]).ravel())


def write_skels(at, packed=True):
    for s in ALL:
        table(at / f'{s}.skels', [skel(3)], [skel(2)])
        for x, lines in (('text', ['regen .', 'wind .']), ('gloss', ['REGEN', 'WIND']), ('files', [f'{s}/a', f'{s}/b'])): table(at / f'{s}.{x}', *([v] for v in lines))


def spoken(name, text, **more):
    return {'name': name, 'length': 30, 'label_gloss': ['他', '好'], 'label_char': list(text), 'label_word': [text], 'label_postag': ['r'], 'signer': 4, 'time': 0, **more}


def write_csl(at, packed=True):
    dump(at / 'csl2020ct_v2.pkl', {'info': [spoken('S000001_P0004_T00', '他好'), spoken('S000002_P0004_T00', '我好'), spoken('S000003_P0004_T00', '好')], 'gloss_map': ['他'], 'char_map': ['他'], 'word_map': ['他'], 'postag_map': ['r']})
    table(at / 'split_1.txt', ['name', 'split'], ['S000001_P0004_T00', 'test'], ['S000002_P0004_T00', 'train'], ['S000003_P0004_T00', 'dev'], sep='|')


def write_csl_labels(at, packed=True):
    for i, s in enumerate(ALL): dump(at / f'labels.{s}', {n: {'name': n, 'gloss': '他 好', 'text': '他好。', 'length': 52} for n in (f'S00002{i}_P0004_T00', f'S00002{i}_P0009_T00')}, packed)


def write_csl_slrt(at, packed=True):
    for i, s in enumerate(ALL): dump(at / f'csl-daily.{s}', [{'name': f'S00002{i}_P000{p}_T00', 'signer': p, 'gloss': '他 好', 'text': '他好。', 'sign': None, 'num_frames': 52} for p in (4, 9)], packed)


H2S_HEAD = 'VIDEO_ID VIDEO_NAME SENTENCE_ID SENTENCE_NAME START_REALIGNED END_REALIGNED SENTENCE'.split()


def write_how2sign(at, packed=True):
    for s in ('train', 'val', 'test'):
        table(at / f'how2sign_realigned_{s}.csv', H2S_HEAD, [f'-{s}', f'-{s}-5-rgb_front', f'-{s}_0', f'-{s}_0-5-rgb_front', .26, 6.79, 'Hi!'],
              [f'-{s}', f'-{s}-10-rgb_front', f'-{s}_0', f'-{s}_0-10-rgb_front', 7, 8.5, '"It is the ""None"" pass."'], sep='\t')


def write_cico(at, packed=True):
    for s in ('train', 'test'):
        for n, k in (('v1', 3), ('v2', 5)): dump(at / s / f'{n}.pkl', {'name': n, 'feature': np.full((k, 1024), k, np.float32)})
        dump(at / f'{s}.pkl', {'S1': [cico('v1'), cico('v2')]})


def write_boston(at, packed=True):
    table(at / 'hands_condensed.csv', 'video frame left-x left-y right-x right-y nose-x nose-y'.split(), *([v, t, 149, 181, 170 + t, 175, 161, 62] for v in (3, 1, 2) for t in range(6)))
    table(at / 'speaker.csv', ['video', 'speaker'], [1, 'woman-1'], [2, 'man-1'], [3, 'woman-1'])
    head = 'video speaker word startframe endframe'.split()
    table(at / 'train_words.csv', head, [1, 'woman-1', 'WRITE', 2, 5], [1, 'woman-1', 'JOHN', 0, 2], [3, 'woman-1', 'N/A', 1, 1])
    table(at / 'test_words.csv', head, [2, 'man-1', 'JOHN', 1, 4])


WRITERS = {'phoenix14t': (write_neccam, {}), 'phoenix14t-gfslt': (write_gfslt, {}), 'phoenix14t-slrt': (write_twostream, {}), 'phoenix14t-slrt cleaned': (write_cleaned, {'labels': 'cleaned'}),
           'phoenix14t-slrt cico': (write_cico_labels, {'labels': 'cico'}), 'phoenix14t-csv': (write_csv, {}), 'phoenix14t-skels': (write_skels, {}), 'csl-daily': (write_csl, {}), 'csl-daily labels': (write_csl_labels, {}),
           'csl-daily slrt': (write_csl_slrt, {}), 'how2sign': (write_how2sign, {}), 'cico-features': (write_cico, {}), 'boston104': (write_boston, {})}


def opened(case, at, **options):
    return load_corpus(case.split()[0], at, **{**WRITERS[case][1], **options})


def everything(corpus):
    "Read all that is lazy, too."
    for x in (corpus.poses, corpus.features, corpus.segments): list(x or ())
    return fingerprint(corpus)


@pytest.fixture
def written(tmp_path):
    def write(case, **options):
        at = tmp_path / case.replace(' ', '-')
        WRITERS[case][0](at, **options)
        return at
    return write


# Every format

@pytest.mark.parametrize('case', WRITERS)
def test_a_written_folder_opens(case, written):
    at = written(case)
    corpus = opened(case, at)
    assert set(corpus.frame.columns) >= {'name', 'text', 'gloss', 'signer', 'split', 'frames'}
    assert all(type(v) is str for c in ('name', 'text', 'gloss', 'signer', 'split') for v in corpus.frame[c])
    assert corpus.frame['frames'].dtype == np.int64 and ((corpus.frame['frames'] > 0) | (corpus.frame['frames'] == -1)).all()
    assert corpus.card.name == case.split()[0] and (corpus.card.defects or case in ('how2sign', 'cico-features')) and corpus.card.source and corpus.card.licence
    assert corpus.card.sha256 and all(len(h) == 64 for h in corpus.card.sha256.values())
    assert everything(corpus) == everything(opened(case, at))
    one = opened(case, at, split='test')
    assert set(one.frame['split']) == {'test'} and 0 < len(one) < len(corpus)
    assert one.frame['name'].tolist() == corpus.frame['name'][corpus.frame['split'] == 'test'].tolist()


@pytest.mark.parametrize('case', WRITERS)
def test_split_names(case, written):
    at = written(case)
    for bad in ('tets', ['test', 'tran']):
        with pytest.raises(InputError, match='nearest: t'): opened(case, at, split=bad)
    with pytest.raises(InputError, match='found none'): opened(case, at, split=[])
    assert set(opened(case, at, split=['test', 'train']).frame['split']) == {'train', 'test'}


@pytest.mark.parametrize('case', WRITERS)
def test_any_absent_or_empty_file_is_refused(case, written):
    at = written(case)
    for path in sorted(p for p in at.rglob('*') if p.is_file()):
        if path.name in ('train.pkl', 'test.pkl') and case == 'cico-features': continue # an annotation may be absent
        raw = path.read_bytes()
        for change in (path.unlink, lambda: path.write_bytes(b''), lambda: path.write_bytes(raw[:len(raw)//2])):
            change()
            with pytest.raises(CorpusError) as e: everything(opened(case, at))
            assert '\n' not in str(e.value) and e.value.where and e.value.field
            path.write_bytes(raw)
    everything(opened(case, at))


@pytest.mark.parametrize('name', CONTINUOUS)
def test_absent_and_empty_folders(name, tmp_path):
    with pytest.raises(CorpusError, match='folder'): load_corpus(name, tmp_path / 'nowhere')
    with pytest.raises(CorpusError): load_corpus(name, tmp_path)
    (tmp_path / 'file').write_text('x')
    with pytest.raises(CorpusError): load_corpus(name, tmp_path / 'file')
    assert name in recipes()


def mutated(raw, rng):
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, kind = rng.randrange(len(raw) + 1), rng.randrange(5)
        if kind == 0 and at < len(raw): raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(raw): raw[at] = rng.choice(b'\x00\xff\n,|\t"0-9. .N\x80\x94')
        elif kind == 2: del raw[at:at + rng.choice((1, 4, 40))]
        elif kind == 3: raw[at:at] = rng.choice((b'nan', b'inf', b'-1', b'../', b'\xff', b'\n\n', b'1e999', b'|', b','))
        else: raw[at:at] = raw[max(0, at - rng.choice((1, 9, 60))):at]
        raw = raw or bytearray(b'\x00')
    return bytes(raw)


@pytest.mark.parametrize('case', WRITERS)
def test_fuzz(case, written):
    at, rng = written(case, packed=False), random.Random(case)
    files = [p for p in sorted(at.rglob('*')) if p.is_file() and p.stat().st_size < 10**5]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(200):
            path = rng.choice(files)
            raw = path.read_bytes()
            path.write_bytes(mutated(raw, rng))
            try: everything(opened(case, at))
            except CorpusError as e:
                refused += 1
                assert '\n' not in str(e) and len(str(e)) < 600 and e.where and e.field
            path.write_bytes(raw)
    assert refused > 20
    everything(opened(case, at))


@pytest.mark.parametrize('case', [c for c in WRITERS if c.split()[0] in ('phoenix14t', 'phoenix14t-gfslt', 'csl-daily', 'phoenix14t-slrt', 'cico-features')])
def test_records_of_other_types(case, written):
    "The same pickles with one value replaced by something of another type or out of range."
    at, rng, refused = written(case), random.Random(case), 0
    odd = [None, True, -1, 0, 10**400, 1.5, float('nan'), '', ' ', '\ud800', '../../x', '/etc', 'a\x00b', b'x', [], [None], {}, {'name': 1}, ['a'] * 3, np.zeros(0), np.zeros((2, 2), np.float64), np.float32(1), (1, 2), {1, 2}]
    for path in [p for p in sorted(at.rglob('*')) if p.suffix != '.txt' and p.is_file()]:
        raw = path.read_bytes()
        for _ in range(30):
            data = pickle.loads(gzip.decompress(raw) if raw[:2] == b'\x1f\x8b' else raw)
            holder = data
            while True:
                key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
                if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < .3: break
                holder = holder[key]
            holder[key] = rng.choice(odd)
            dump(path, data)
            try:
                corpus = opened(case, at); everything(corpus)
                assert all(type(v) is str for c in ('name', 'text', 'gloss', 'signer') for v in corpus.frame[c]) and not corpus.frame['name'].str.contains(r'\.\./|^/').any()
            except InputError: refused += 1
        path.write_bytes(raw)
    assert refused > 0
    everything(opened(case, at))


# PHOENIX-2014T, written

@pytest.mark.parametrize('record, says', [
    (aligned('dev/a', num_frames=9), 'phoenix14t.dev: dev/a: alignments.pami0: expected 9 states, found 8'),
    (aligned('dev/a', alignments={'pami0': '1 x 3'}), 'expected integers separated by spaces'), (aligned('dev/a', alignments={'pami1': ''}), 'expected integers separated by spaces, found None'),
    (aligned('dev/a', alignments={'pami0': '0 16 16 17 18 7 8 99999999999999999999'}), 'expected integers'), (aligned('dev/a', alignments={'pami0': '0 16 16 17 18 7 8 -9'}), 'states >= 0, found -9'),
    (aligned('dev/a', num_frames=0, alignments={'pami0': ''}), 'sentence 0 (dev/a): frames: expected at least one frame, found 0'), (aligned('dev/a', text=' '), 'sentence 0 (dev/a): text: expected a sentence'),
    (aligned('../a'), "sentence 0: name: expected a relative name without \"..\", found '../a'"), (aligned('/etc/a'), 'expected a relative name'), (aligned('dev/a', signer=3), 'record 0 (dev/a): signer: expected str, found int'),
])
def test_one_bad_record(record, says, tmp_path):
    write_neccam(tmp_path)
    dump(tmp_path / 'phoenix14t.dev', [record])
    with pytest.raises(CorpusError) as e: load_corpus('phoenix14t', tmp_path)
    assert says in str(e.value)
    assert len(load_corpus('phoenix14t', tmp_path, split='train')) == 2


def test_zero_sentences_and_doubled_names(tmp_path):
    write_neccam(tmp_path)
    for content, says in (([], 'at least one record'), ({}, 'at least one record'), ([aligned('dev/a'), aligned('dev/a')], 'dev/a again'), ('text', 'a list or dict'), ([[1]], 'record 0: expected a dict')):
        dump(tmp_path / 'phoenix14t.dev', content)
        with pytest.raises(CorpusError) as e: load_corpus('phoenix14t', tmp_path, split='dev')
        assert says in str(e.value)


def test_segments_and_lexicon(tmp_path):
    write_neccam(tmp_path)
    corpus = load_corpus('phoenix14t', tmp_path)
    assert corpus.segments[0].tolist() == [[5, 1, 4], [2, 5, 3]] and corpus.segments[1].tolist() == [[5, 2, 3]]
    assert corpus.gloss_ids == {2: 'KOMMEN', 5: 'REGEN'} == learn_gloss_lexicon(corpus)
    assert learn_gloss_lexicon(corpus, min_votes=4) == {5: 'REGEN'}
    assert load_corpus('phoenix14t', tmp_path, split='test').gloss_ids is None
    assert load_corpus('phoenix14t', tmp_path, split='test', gloss_ids=corpus.gloss_ids).gloss_ids == corpus.gloss_ids
    assert corpus.fps == 25


def test_votes_that_tie_are_deterministic(tmp_path):
    dump(tmp_path / 'phoenix14t.train', [aligned('train/a', gloss='WIND', alignments={'pami0': '16 ' * 8}), aligned('train/b', gloss='REGEN', alignments={'pami0': '16 ' * 8})])
    assert load_corpus('phoenix14t', tmp_path, split='train').gloss_ids == {5: 'REGEN'}


def test_gfslt_says_that_its_gloss_is_recognised(tmp_path):
    write_gfslt(tmp_path)
    corpus = load_corpus('phoenix14t-gfslt', tmp_path)
    assert any('recogniser' in d for d in corpus.card.defects) and corpus.segments is None
    for bad, says in ((label('dev/a', imgs_path=['x']), 'imgs_path: expected as many images'), (label('dev/a', length=True), 'length: expected int, found bool'), ({'dev/z': label('dev/a')['dev/a']}, "'dev/z': expected the name of its record")):
        dump(tmp_path / 'labels.dev', bad)
        with pytest.raises(CorpusError) as e: load_corpus('phoenix14t-gfslt', tmp_path)
        assert says in str(e.value)


def test_csv_columns_by_name(tmp_path):
    write_csv(tmp_path)
    path = tmp_path / 'PHOENIX-2014-T.dev.corpus.csv'
    lines = [line.split('|') for line in path.read_text(encoding='utf-8').splitlines()]
    path.write_text('\ufeff' + '\n'.join('|'.join(r[::-1]) for r in lines), encoding='utf-8')
    frame = load_corpus('phoenix14t-csv', tmp_path, split='dev').frame
    assert frame.iloc[0, :6].tolist() == ['dev-1', 'und nun "das wetter', 'JETZT WETTER', 'Signer08', 'dev', -1] and frame['gloss'][1] == 'None' and frame['text'][1] == 'schönes wetter'
    path.write_bytes('\n'.join('|'.join(r) for r in lines).encode('latin-1'))
    with pytest.raises(CorpusError, match='expected UTF-8 text'): load_corpus('phoenix14t-csv', tmp_path)


@pytest.mark.parametrize('line, says', [(skel(3, 49), 'whole'), (skel(2).replace('0.', 'x.', 1), 'numbers separated by spaces'), ('inf ' + skel(2).split(' ', 1)[1], 'finite numbers, found 301 of 302'),
                                        ('', '0 numbers'), (' '.join(skel(2).split()[:-1] + ['-0.5']), 'a counter that rises'), (' '.join(skel(2).split()[1:] + ['0.1']), 'a counter that rises')])
def test_damaged_skeletons(line, says, tmp_path):
    write_skels(tmp_path)
    table(tmp_path / 'dev.skels', [skel(3)], [line])
    with pytest.raises(CorpusError) as e: everything(load_corpus('phoenix14t-skels', tmp_path))
    assert 'dev.skels' in str(e.value) and (says in str(e.value) or says == 'whole' and '444 numbers' in str(e.value))


# CSL-Daily, How2Sign, CiCo, Boston, written

def test_csl_daily_formats_agree(tmp_path):
    write_csl_labels(tmp_path)
    labels = load_corpus('csl-daily', tmp_path)
    assert labels.frame['signer'].tolist() == ['4', '9'] * 3 and load_csl_daily_texts(tmp_path) == {'S000022_P0004_T00': '他好。', 'S000022_P0009_T00': '他好。'}
    write_csl_slrt(tmp_path)
    with pytest.raises(CorpusError, match='labels and slrt'): load_corpus('csl-daily', tmp_path)
    assert load_corpus('csl-daily', tmp_path, labels='slrt').frame.equals(load_corpus('csl-daily', tmp_path, labels='labels').frame)
    with pytest.raises(InputError, match='nearest'): load_corpus('csl-daily', tmp_path, labels='offical')


def test_csl_daily_official(tmp_path):
    write_csl(tmp_path)
    frame = load_corpus('csl-daily', tmp_path).frame
    assert frame[['name', 'text', 'gloss', 'signer', 'split', 'frames', 'words']].values.tolist()[2] == ['S000001_P0004_T00', '他好', '他 好', '4', 'test', 30, '他好'] and load_csl_daily_texts(tmp_path) == {'S000001_P0004_T00': '他好'}
    table(tmp_path / 'split_1.txt', ['name', 'split'], ['S000001_P0004_T00', 'test'], ['S000005_P0004_T00', 'train'], ['S000002_P0004_T00', 'train'], ['S000003_P0004_T00', 'dev'], sep='|')
    with pytest.raises(CorpusError, match=r"missing=.drop. or .keep..*1 not described \('S000005_P0004_T00'\), 0 in no split"): load_corpus('csl-daily', tmp_path)
    dropped, kept = (load_corpus('csl-daily', tmp_path, missing=m) for m in ('drop', 'keep'))
    assert len(dropped) == 3 and '1 videos of split_1.txt are not described (drop)' in dropped.card.defects
    assert len(kept) == 4 and kept.frame.loc[kept.frame['name'] == 'S000005_P0004_T00', ['text', 'frames', 'split']].values.tolist() == [['', -1, 'train']]
    table(tmp_path / 'split_1.txt', ['name', 'split'], ['S000001_P0004_T00', 'test'], ['S000003_P0004_T00', 'dev'], ['S000005_P0004_T00', 'train'], sep='|')
    assert load_corpus('csl-daily', tmp_path, missing='keep').frame['split'].tolist() == ['train', 'dev', 'test', '']
    for s in ALL: assert load_corpus('csl-daily', tmp_path, split=s, missing='keep').frame['split'].tolist() == [s]
    assert load_corpus('csl-daily', tmp_path, split='test', missing='keep').card.defects[-1] == '1 videos described are in no split (drop)'
    for lines, says in (('a|b', 'train, dev or test'), ('S000001_P0004_T00|test\nS000001_P0004_T00|dev', 'S000001_P0004_T00 again'), ('nothing', 'video|train')):
        (tmp_path / 'split_1.txt').write_text(lines)
        with pytest.raises(CorpusError) as e: load_corpus('csl-daily', tmp_path)
        assert 'split_1.txt: line' in str(e.value) and says in str(e.value)


def test_how2sign_rows(tmp_path):
    write_how2sign(tmp_path)
    frame = load_corpus('how2sign', tmp_path).frame
    assert frame['split'].unique().tolist() == ['train', 'val', 'test'] and frame['signer'].tolist() == ['5', '10'] * 3
    assert frame['text'][1] == 'It is the "None" pass.' and frame['start'].tolist()[:2] == [.26, 7] and frame['sentence_id'].nunique() == 3
    for row, says in ((['v', 'v-1-rgb_front', 'v_0', 'v_0', 'inf', 3, 'Hi'], 'row 1: START_REALIGNED: expected a finite number >= 0'), (['v', 'v-1-rgb_front', 'v_0', 'v_0', 3, 3, 'Hi'], 'END_REALIGNED: expected more than 3'),
                      (['v', '../v', 'v_0', 'v_0', 1, 3, 'Hi'], 'VIDEO_NAME'), (['v', 'v', 'v_0', 'v_0', 1, 3, ''], 'text: expected a sentence'), (['v', 'v', 'v_0', 'v_0', 1, 3], 'line 2: expected 7 fields, found 6')):
        table(tmp_path / 'how2sign_realigned_val.csv', H2S_HEAD, row, sep='\t')
        with pytest.raises(CorpusError) as e: load_corpus('how2sign', tmp_path)
        assert says in str(e.value)


def test_cico_features(tmp_path):
    write_cico(tmp_path)
    corpus = load_corpus('cico-features', tmp_path)
    assert [x.shape for x in corpus.features] == [(3, 1024), (5, 1024)] * 2 and corpus.frame['group'].tolist() == ['S1'] * 4 and corpus.features[1].dtype == np.float32
    assert corpus.frame[['text', 'ori_text', 'frames']].values.tolist()[0] == ['Rain', 'regen', 20]
    for name, data, says in (('v1', {'name': 'v2', 'feature': np.zeros((3, 1024), np.float32)}, 'name: expected v1, found'), ('v1', {'name': 'v1', 'feature': np.zeros((0, 1024), np.float32)}, 'n >= 1'),
                             ('v1', {'name': 'v1', 'feature': np.full((2, 1024), np.inf, np.float32)}, '2048 NaN or infinite'), ('v1', {'name': 'v1', 'feature': np.zeros((2, 1024))}, 'found float64'), ('v1', {'name': 'v1'}, 'found NoneType')):
        dump(tmp_path / 'test' / f'{name}.pkl', data)
        with pytest.raises(CorpusError) as e: list(load_corpus('cico-features', tmp_path).features)
        assert f'test/{name}.pkl' in str(e.value) and says in str(e.value)


def test_cico_missing_extra_and_other_places(tmp_path):
    write_cico(tmp_path)
    (tmp_path / 'train.pkl').rename(tmp_path / 'train/../moved.pkl')
    assert load_corpus('cico-features', tmp_path).frame['text'].tolist() == ['', '', 'Rain', 'Rain']
    dump(tmp_path / 'notes' / 'test.pkl', {'S1': cico('v1'), 'S2': [cico('v9')]})
    with pytest.raises(CorpusError, match=r"1 absent \('v9'\), 1 not annotated \('v2'\)"): load_corpus('cico-features', tmp_path, annotations=tmp_path / 'notes')
    dropped = load_corpus('cico-features', tmp_path, split='test', annotations=tmp_path / 'notes', missing='drop')
    assert dropped.frame['name'].tolist() == ['v1'] and len(dropped.card.defects) == 2
    (tmp_path / 'test' / 'v2.pkl').unlink()
    kept = load_corpus('cico-features', tmp_path, split='test', annotations=tmp_path / 'notes', missing='keep')
    assert kept.frame['name'].tolist() == ['v1', 'v9'] and [len(x) for x in kept.features] == [3, 0]
    with pytest.raises(InputError, match='nearest: drop'): load_corpus('cico-features', tmp_path, missing='dorp')
    dump(tmp_path / 'test.pkl', {'S1': cico('../v1')})
    with pytest.raises(CorpusError): load_corpus('cico-features', tmp_path, split='test', missing='keep')


def test_boston_tables(tmp_path):
    write_boston(tmp_path)
    corpus = load_corpus('boston104', tmp_path)
    assert corpus.frame[['name', 'gloss', 'signer', 'split', 'frames']].values.tolist() == [['1', 'JOHN WRITE', 'woman-1', 'train', 6], ['3', 'N/A', 'woman-1', 'train', 6], ['2', 'JOHN', 'man-1', 'test', 6]]
    assert corpus.segments[0].tolist() == [[0, 0, 3], [2, 2, 4]] and corpus.gloss_ids == {0: 'JOHN', 1: 'N/A', 2: 'WRITE'} and corpus.poses[1][5].tolist() == [[149, 181], [175, 175], [161, 62]]
    for file, row, says in (('hands_condensed', [3, 9, 1, 1, 1, 1, 1, 1], 'video 3: frame'), ('hands_condensed', [4, 0, 1, 1, 1, 1, 1, 'nan'], 'row 19: nose-y'), ('hands_condensed', [4, 0, 1, 1, 1, 1, 1, 1], 'speaker.csv: video: expected each of the 4 videos'),
                            ('speaker', [3, 'man-1'], 'speaker.csv'), ('train_words', [1, 'man-1', 'X', 0, 1], 'speaker: expected woman-1'), ('train_words', [2, 'man-1', 'X', 0, 1], '1 in both'), ('test_words', [2, 'man-1', 'X', 5, 6], '0 <= start <= end < 6'),
                            ('test_words', [2, 'man-1', '', 1, 2], 'one word'), ('test_words', [9, 'man-1', 'X', 1, 2], 'a video with tracks')):
        path = tmp_path / f'{file}.csv'
        raw = path.read_text()
        path.write_text(raw + ','.join(map(str, row)) + '\n')
        with pytest.raises(CorpusError) as e: load_corpus('boston104', tmp_path)
        assert says in str(e.value)
        path.write_text(raw)


# Real files

@pytest.fixture(scope='module')
def phoenix(real):
    return load_corpus('phoenix14t', real / 'phoenix14t')


def test_real_phoenix(phoenix, real):
    frame = phoenix.frame
    assert frame['split'].value_counts(sort=False).to_dict() == {'train': 7096, 'dev': 519, 'test': 642} and frame['name'].is_unique and frame['signer'].nunique() == 9
    assert frame.groupby('split')['frames'].sum().to_dict() == {'train': 827354, 'dev': 55775, 'test': 64627} and (frame['frames'] > 300)[frame['split'] == 'train'].sum() == 23
    glosses = frame['gloss'].str.split().str.len()
    assert glosses[frame['split'] == 'train'].sum() == 55247
    words = frame['text'].str.removesuffix(' .').str.split().str.len()
    assert (words / glosses).groupby(frame['split']).mean().round(3).to_dict() == {'train': 1.9, 'dev': 1.946, 'test': 1.94}
    assert frame.loc[frame['split'] == 'test', 'text'].nunique() == 630
    again = load_phoenix14t(real / 'phoenix14t', 'dev')
    assert again['name'].tolist() == frame.loc[frame['split'] == 'dev', 'name'].tolist()
    assert (hmm_segments(again['states'][0]) == phoenix.subset(frame['split'] == 'dev').segments[0]).all()
    assert all((s[:, 2] > 0).all() and (s[:, 1] + s[:, 2] <= n).all() for s, n in zip(phoenix.segments, frame['frames']))


def test_real_lexicon(phoenix, real):
    "Learned from train alone, it agrees with an independent one, and where words keep the alphabet the ids do too."
    known = {int(k): v for k, v in json.loads((real / 'phoenix14t' / 'pami0_word_lexicon_learned.json').read_text(encoding='utf-8')).items()}
    both = known.keys() & phoenix.gloss_ids.keys()
    assert (len(known), len(phoenix.gloss_ids), len(both), sum(known[i] == phoenix.gloss_ids[i] for i in both)) == (811, 886, 781, 773)
    used = np.concatenate([s[:, 0] for s in phoenix.segments])
    assert np.isin(used, list(phoenix.gloss_ids)).mean() > .99 and max(phoenix.gloss_ids) < 1057
    assert phoenix.gloss_ids == learn_gloss_lexicon(phoenix.subset(phoenix.frame['split'] == 'train'))


def test_real_skeletons(phoenix, real):
    corpus = load_corpus('phoenix14t-skels', real / 'phoenix14t-skels')
    frames = [86, 126, 168, 185, 71, 42, 111, 148, 142, 93, 181, 150, 198, 130, 111]
    assert corpus.frame['frames'].tolist() == frames == [len(x) for x in corpus.poses] and corpus.frame['split'].tolist() == ['train'] * 5 + ['dev'] * 5 + ['test'] * 5
    gold = phoenix.frame.set_index('name').loc[corpus.frame['name']].reset_index()
    assert all(gold[c].tolist() == corpus.frame[c].tolist() for c in ('frames', 'gloss', 'text', 'split'))
    assert all(x.shape[1:] == (50, 3) and x.dtype == np.float32 and (x[:, 1] == 0).all() and np.abs(x).max() < 1 for x in corpus.poses)
    assert np.allclose(load_corpus('phoenix14t-skels', real / 'phoenix14t-skels', split='dev', scale=3).poses[2], corpus.poses[7] * 3)


def test_real_boston(real):
    corpus = load_corpus('boston104', real / 'boston104')
    frame, train = corpus.frame, (corpus.frame['split'] == 'train').to_numpy()
    assert frame['split'].value_counts().to_dict() == {'train': 161, 'test': 40} and frame['signer'].value_counts().to_dict() == {'man-1': 79, 'woman-1': 62, 'woman-2': 60}
    assert frame['frames'].sum() == 15746 and (frame['frames'].min(), frame['frames'].max()) == (41, 162)
    words = frame['gloss'].str.split()
    assert (words[train].str.len().sum(), words[~train].str.len().sum(), words[train].explode().nunique(), words[~train].explode().nunique()) == (710, 178, 112, 66)
    assert [len(s) for s in corpus.segments] == words.str.len().tolist() and [corpus.gloss_ids[i] for i in corpus.segments[0][:, 0]] == words[0]
    assert all(p.shape == (n, 3, 2) and np.isfinite(p).all() for p, n in zip(corpus.poses, frame['frames']))
