"ASL-LEX codes: counts of the real table, every fast function beside a slow one, damaged files."
import codecs
import csv
import io
import random
import time

import numpy as np
import pandas as pd
import pytest

from signbook.core import InputError
from signbook.phonology import (ALL_FEATURES, FEATURES, code_distance, cooccurrence, decode, duplicate_entries, encode, entropy, feature_names, feature_similarity, feature_stats,
                                fold_nondominant, frequencies, join_glosses, load_asl_lex, majority_baseline, mask, minimal_pairs, mutual_information, recognition_ceiling, shared_codes, soft_distance)

SIZES = np.array([len(f.values) for f in FEATURES])
TABLE = {  # feature: values, n, missing, majority share, entropy in bits
    'Handshape': (58, 2723, 0, .101, 4.96), 'Selected Fingers': (12, 2723, 0, .448, 2.14), 'Flexion': (7, 2567, 156, .409, 2.24), 'Flexion Change': (2, 2541, 182, .791, .74),
    'Spread': (2, 1393, 1330, .603, .97), 'Spread Change': (2, 1585, 1138, .878, .54), 'Thumb Position': (2, 2723, 0, .659, .93), 'Thumb Contact': (2, 2567, 156, .684, .90),
    'Sign Type': (6, 2723, 0, .392, 1.91), 'Path Movement': (8, 2723, 0, .457, 2.14), 'Repeated Movement': (2, 2723, 0, .554, .99), 'Major Location': (6, 2723, 0, .363, 2.00),
    'Minor Location': (37, 2723, 0, .363, 3.79), 'Second Minor Location': (37, 1919, 804, .426, 2.93), 'Contact': (2, 2723, 0, .622, .96), 'Nondominant Handshape': (56, 1656, 1067, .167, 4.61),
    'Wrist Twist': (2, 2723, 0, .835, .65)}


def made_codes(n, seed=0, absent=.2, spread=4, sizes=SIZES):
    "Random codes with few values per feature, so that shared codes and minimal pairs occur."
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, min(spread, s), n) for s in sizes], 1)
    codes[rng.random(codes.shape) < absent] = -1
    near = rng.integers(0, n, n // 2)
    codes[:n // 2] = codes[near]
    codes[np.arange(n // 2), rng.integers(0, len(sizes), n // 2)] = 0
    return codes.astype(np.int16)


def made_lexicon(names, codes=None, seed=1):
    codes = made_codes(len(names), seed, sizes=[len(f.values) for f in ALL_FEATURES]) if codes is None else codes
    path = feature_names(ALL_FEATURES).index('Path Movement')
    codes[:, path] = np.maximum(codes[:, path], 0)
    frame = decode(codes, ALL_FEATURES)
    frame.insert(0, 'Entry ID', names)
    return frame


@pytest.fixture(scope='module')
def lexicon(real):
    path = real / 'asl-lex' / 'asllex_data.csv'
    return load_asl_lex(path) if path.is_file() else pytest.skip('no ASL-LEX table among the real data')


@pytest.fixture(scope='module')
def wlasl(real):
    path = real / 'wlasl-asllex' / 'wlasl_asllex_compact.csv.gz'
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pytest.skip('no WLASL table among the real data')


def one_line(error, *parts):
    assert '\n' not in str(error.value) and all(p in str(error.value) for p in parts), str(error.value)


# the real table

def test_inventory_table(lexicon):
    stats = feature_stats(encode(lexicon, ALL_FEATURES), ALL_FEATURES)
    for name, (values, n, missing, share, bits) in TABLE.items():
        row = stats.loc[name]
        assert (row['values'], row['n'], row['missing']) == (values, n, missing), name
        assert abs(row['majority_share'] - share) <= .0005 + 1e-12 and abs(row['entropy'] - bits) <= .0051, name
    assert list(stats.index) == list(TABLE) and (stats['values'] == [len(f.values) for f in ALL_FEATURES]).all()


@pytest.mark.parametrize('feature, counts', [
    ('Sign Type', {'One Handed': 1067, 'Symmetrical Or Alternating': 939, 'Asymmetrical Different Handshape': 476, 'Asymmetrical Same Handshape': 162, 'Dominance Violation': 63, 'Symmetry Violation': 16}),
    ('Path Movement', {'Straight': 1245, 'Curved': 632, 'None': 417, 'Circular': 208, 'Z-shaped': 93, 'Back And Forth': 72, 'Other': 45, 'X-shaped': 11}),
    ('Major Location', {'Neutral': 988, 'Head': 726, 'Hand': 682, 'Body': 255, 'Arm': 71, 'Other': 1}),
])
def test_value_counts(lexicon, feature, counts):
    f = FEATURES[feature_names().index(feature)]
    share = frequencies(encode(lexicon))[feature]
    assert {v: round(share[k] * 2723) for k, v in enumerate(f.values)} == counts and share[-1] == 0


def test_codes_of_the_real_table(lexicon, real):
    codes, codes17 = encode(lexicon), encode(lexicon, ALL_FEATURES)
    assert codes.shape == (2723, 16) and codes.dtype == np.int16 and lexicon['Entry ID'].nunique() == 2719
    assert sorted(duplicate_entries(lexicon)['Entry ID'].unique()) == ['bite', 'drag', 'take_off', 'type']
    assert (decode(codes17, ALL_FEATURES) == lexicon[feature_names(ALL_FEATURES)]).all(axis=None)
    compact = load_asl_lex(real / 'asl-lex' / 'asllex2_phonology_compact.csv')
    assert (encode(compact, ALL_FEATURES) == codes17).all() and (compact['Entry ID'].to_numpy() == lexicon['Entry ID'].to_numpy()).all()
    with pytest.raises(InputError) as e: load_asl_lex(real / 'asl-lex' / 'asllex_data.csv', unique=True)
    one_line(e, 'asllex_data.csv: Entry ID', 'bite, drag, take_off, type')


def test_shared_codes_of_the_real_table(lexicon):
    for features, distinct, sharing in ((FEATURES, 2178, 867), (ALL_FEATURES, 2225, 797)):
        codes = encode(lexicon, features)
        group, size = shared_codes(codes)
        assert (group.max() + 1, (size > 1).sum()) == (distinct, sharing)
        assert recognition_ceiling(codes) == pytest.approx(distinct / 2723)
    assert np.allclose(majority_baseline(codes), [TABLE[n][3] for n in feature_names(ALL_FEATURES)], atol=.0006)


def test_minimal_pairs_of_the_real_table(lexicon):
    codes = encode(lexicon)
    start = time.process_time(); pairs = minimal_pairs(codes); took = time.process_time() - start
    assert len(pairs) == 3611 and (pairs['i'] < pairs['j']).all() and took < 30
    a, b = codes[pairs['i']], codes[pairs['j']]
    assert ((a != b).sum(1) == 1).all()
    joined = pd.DataFrame(codes).assign(row=range(len(codes)))
    slow = sum(len(m := joined.merge(joined, on=[c for c in range(16) if c != k])) and int(((m[f'{k}_x'] != m[f'{k}_y']) & (m['row_x'] < m['row_y'])).sum()) for k in range(16))
    assert slow == len(pairs)


def test_none_is_a_value(lexicon, real):
    path = real / 'asl-lex' / 'asllex_data.csv'
    with pytest.raises(InputError) as e: encode(pd.read_csv(path))
    one_line(e, 'Path Movement', 'keep_default_na=False', 'nothing, in 417 rows')
    numbers = pd.read_csv(path, keep_default_na=False, na_values=['N/A'], usecols=feature_names())
    numbers['Path Movement'] = lexicon['Path Movement'].to_numpy()
    assert numbers['Spread'].dtype.kind == 'f' and (encode(numbers) == encode(lexicon)).all()


def test_fold_of_the_real_table(lexicon):
    before = lexicon.copy()
    folded, changed = fold_nondominant(lexicon)
    assert changed.to_dict() == {('A', 'a'): 2, ('C', 'c'): 57, ('O', 'o'): 6, ('S', 's'): 27} and lexicon.equals(before)
    assert feature_stats(encode(folded)).loc['Nondominant Handshape', 'values'] == 52
    changed = fold_nondominant(lexicon, b='open_b', remarks=False)[1]
    assert changed['B', 'open_b'] == 277 and changed['Lax', 'N/A'] == 9 and changed.sum() == 92 + 277 + 9 + 70 + 5


def test_wlasl_join(lexicon, wlasl):
    codes = encode(wlasl, where='wlasl')
    has = mask(codes).any(1)
    assert (len(wlasl), wlasl['gloss'].nunique(), has.sum(), wlasl['gloss'][has].nunique()) == (21083, 2000, 9438, 754)
    assert round(100 * (1 - has.mean()), 1) == 55.2
    start = time.process_time(); joined, matched, report = join_glosses(wlasl['gloss'], lexicon); took = time.process_time() - start
    assert len(joined) == len(matched) == len(report) == 21083 and took < 20
    both = has & matched
    assert (joined[both] == codes[both]).all() and set(wlasl['gloss'][has & ~matched]) == {'type'}
    assert report[matched].groupby('gloss')['how'].first().value_counts().to_dict() == {'exact': 1267, 'spelling': 19}
    assert report[~matched].groupby('gloss')['how'].first().value_counts().to_dict() == {'absent': 618, 'variants': 93, 'duplicates': 3}
    assert (report['candidates'][~matched & (report['how'] != 'absent')] != '').all()


def test_semlex_glosses_join_exactly(lexicon):
    entries = lexicon['Entry ID'][~lexicon['Entry ID'].duplicated(keep=False)]
    codes, matched, report = join_glosses(entries, lexicon)
    assert matched.all() and (report['how'] == 'exact').all() and (codes == encode(lexicon)[entries.index]).all()
    assert not join_glosses(['eat', 'light'], lexicon)[1].any()


def test_minus_one_as_a_class(wlasl):
    text = wlasl[feature_names()].replace(r'^-1\.0$', '-1', regex=True)
    assert all(c.value_counts().index[0] == '-1' and round(c.eq('-1').mean(), 3) == .552 for _, c in text.items())
    codes = encode(wlasl)
    slow = [pd.Series(c[c >= 0]).value_counts(normalize=True).iloc[0] for c in codes.T]
    assert np.allclose(majority_baseline(codes), slow)


# fast beside slow

def slow_pair(x, y, weights, absent):
    differ = compared = 0.
    for p, q, w in zip(x, y, weights):
        if (p < 0 or q < 0) if absent == 'skip' else (p < 0 and q < 0): continue
        compared += w; differ += w * (p != q)
    return differ / compared if compared else np.nan


@pytest.mark.parametrize('absent', ['skip', 'differs'])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('n, m', [(60, 45), (1, 700), (600, 3)])
def test_distance(absent, weighted, n, m):
    a, b = made_codes(n + 1, 1)[:n], made_codes(m + 1, 2, absent=.6)[:m]
    b[-1] = -1
    weights = np.random.default_rng(3).random(16) * (np.arange(16) != 4) if weighted else None
    fast = code_distance(a, b, weights, absent)
    slow = [[slow_pair(x, y, np.ones(16) if weights is None else weights, absent) for y in b] for x in a]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    assert fast.shape == (n, m) and fast.dtype == np.float64


def test_distance_is_a_distance():
    codes = made_codes(80, 5)
    d = code_distance(codes, absent='differs')
    assert (np.diag(d) == 0).all() and (d == d.T).all() and ((d == 0) == (shared_codes(codes)[0][:, None] == shared_codes(codes)[0])).all()
    assert np.nanmax(d[:, :, None] - d[:, None, :] - d[None, :, :].transpose(0, 2, 1)) < 1e-12
    assert (code_distance(codes.astype(np.uint8)[codes.min(1) >= 0]) >= 0).all()
    assert code_distance(codes[:0], codes).shape == (0, 80) and code_distance(codes, codes[:0]).shape == (80, 0)


def test_soft_distance():
    a, b = made_codes(30, 6), made_codes(20, 7)
    p = np.random.default_rng(8).random(b.shape)
    slow = [[1 - sum((x[f] == y[f] and x[f] >= 0) * q[f] for f in range(16)) / 16 for y, q in zip(b, p)] for x in a]
    np.testing.assert_allclose(soft_distance(a, b, p), slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize('absent', ['skip', 'differs'])
@pytest.mark.parametrize('most', [1, 3])
def test_minimal_pairs(absent, most):
    codes = made_codes(620, 9, absent=.1, spread=3)
    codes[[5, 600]] = -1
    found = minimal_pairs(codes, most, absent)
    slow = []
    for i in range(len(codes)):
        for j in range(i + 1, len(codes)):
            x, y = codes[i], codes[j]
            differ = (x != y) & ((x >= 0) & (y >= 0) if absent == 'skip' else True)
            if 1 <= differ.sum() <= most and i not in (5, 600) and j not in (5, 600): slow.append([i, j, differ.sum(), ' + '.join(np.array(feature_names())[differ])])
    assert found.values.tolist() == slow and len(slow) > 10


def test_shared_codes_and_ceiling():
    codes, clips = made_codes(300, 10, spread=2, absent=.3), np.random.default_rng(11).integers(0, 9, 300)
    codes[7] = -1
    group, size = shared_codes(codes)
    by = {}
    for i, c in enumerate(map(tuple, codes)): by.setdefault(c, []).append(i)
    gone = by.pop((-1,) * 16)
    assert (group[gone] == -1).all() and (size[gone] == 0).all()
    assert all((size[rows] == len(rows)).all() and len(set(group[rows])) == 1 for rows in by.values()) and group.max() + 1 == len(by)
    for k in (1, 2, 3):
        slow = sum(sorted(clips[rows])[-k:][m] for rows in by.values() for m in range(min(k, len(rows)))) / sum(clips[rows].sum() for rows in by.values())
        assert recognition_ceiling(codes, k, clips) == pytest.approx(slow)
    assert recognition_ceiling(codes, 300) == 1.


def test_information():
    codes = made_codes(500, 12)
    first = [c for c in codes if c[0] >= 0 and c[8] >= 0]
    joint = pd.crosstab([c[0] for c in first], [c[8] for c in first]).to_numpy() / len(first)
    px, py = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    bits = (joint * np.log2(np.where(joint > 0, joint / (px * py), 1))).sum()
    counts = cooccurrence(codes, 'Handshape', 'Path Movement')
    assert mutual_information(counts[:-1, :-1])[0] == pytest.approx(bits)
    assert counts.sum() == 500 and counts[-1].sum() == (codes[:, 0] < 0).sum() and counts[2, 1] == ((codes[:, 0] == 2) & (codes[:, 8] == 1)).sum()
    nmi = feature_similarity(codes)
    assert np.allclose(nmi, nmi.T) and np.allclose(np.diag(nmi), 1) and nmi.loc['Handshape', 'Path Movement'] == pytest.approx(mutual_information(counts[:-1, :-1])[1])
    for name, share in frequencies(codes).items():
        column = codes[:, feature_names().index(name)]
        assert share.sum() == pytest.approx(1) and all(share[c] == pytest.approx((column == c).mean()) for c in set(column))
    assert entropy([]) == 0 and entropy([5]) == 0 and entropy([1] * 8) == 3


# codes and words

def test_round_trip_and_order():
    codes = np.stack([np.arange(60) % (len(f.values) + 1) - 1 for f in ALL_FEATURES], 1)
    codes[:, 9] = np.maximum(codes[:, 9], 0)
    assert (encode(decode(codes, ALL_FEATURES), ALL_FEATURES) == codes).all()
    assert all(list(f.values) == sorted(set(f.values)) and not set(f.values) & set(f.absent) for f in ALL_FEATURES)
    assert 'Flexion Change' not in feature_names() and len(FEATURES) == 16 and 'None' in FEATURES[8].values


@pytest.mark.parametrize('value', ['N/A', 'NA', '', 'nan', '-1', '-1.0', -1, -1., np.nan, None, pd.NA])
def test_absent_is_never_a_class(value):
    frame = made_lexicon(list('abc')).astype(object)
    frame.loc[1, 'Spread'] = value
    assert encode(frame)[1, 3] == -1


@pytest.mark.parametrize('value, code', [('0', 0), ('1.0', 1), (1, 1), (0., 0), (np.int64(1), 1), (' 1 ', 1)])
def test_numbers_as_words(value, code):
    frame = made_lexicon(list('abc')).astype(object)
    frame.loc[1, 'Spread'] = value
    assert encode(frame)[1, 3] == code


@pytest.mark.parametrize('value', ['2', 'none', 'b', 0.5, True, [1], {}, 'N/A?', '1e0', '-2'])
def test_unknown_values(value):
    frame = made_lexicon(['x', 'y', 'z']).astype(object)
    frame.at[1, 'Spread'] = value
    with pytest.raises(InputError) as e: encode(frame, where='w.csv')
    one_line(e, 'w.csv: ', 'Spread')


@pytest.mark.parametrize('call', [
    lambda c: decode(c[:, :3]), lambda c: decode(c + 60), lambda c: code_distance(c, c[:, :4]), lambda c: code_distance(c * 1.), lambda c: code_distance(c[0]), lambda c: code_distance(c - 5),
    lambda c: code_distance(c, weights=np.zeros(16)), lambda c: code_distance(c, weights=[np.nan] * 16), lambda c: code_distance(c, absent='no'), lambda c: code_distance(c.astype(np.int64) + 10**12),
    lambda c: soft_distance(c, c, np.full(c.shape, np.nan)), lambda c: minimal_pairs(c, 17), lambda c: minimal_pairs(c[:, :5]), lambda c: recognition_ceiling(c, 0), lambda c: recognition_ceiling(c * 0 - 1),
    lambda c: recognition_ceiling(c, weights=-np.ones(len(c))), lambda c: recognition_ceiling(c[:0]), lambda c: frequencies(c[:0]), lambda c: cooccurrence(c, 'Handshape', 'Hand'), lambda c: majority_baseline(c, c[:, 1:])])
def test_bad_codes(call):
    with pytest.raises(InputError) as e: call(made_codes(9))
    one_line(e)


# files

def as_csv(frame, **options): return frame.to_csv(index=False, **options)


def as_osf(frame):
    names = {'Entry ID': 'EntryID', **{f.name: f.osf for f in ALL_FEATURES}}
    words = frame.map(lambda w: 'NA' if w == 'N/A' else w.replace(' ', '')).assign(Note='caf\xe9', Again='1').rename(columns=names).rename(columns={'Again': 'Note'})
    return codecs.BOM_UTF8 + as_csv(words, quoting=csv.QUOTE_ALL).encode('latin-1')


def test_both_exports(tmp_path):
    frame = made_lexicon([f'sign_{k}' for k in range(40)])
    frame.loc[0, 'Nondominant Handshape'] = 'Dominance Condition Violation'
    (tmp_path / 'website.csv').write_text(as_csv(frame), encoding='utf-8')
    (tmp_path / 'bom.csv').write_text(as_csv(frame, lineterminator='\r\n'), encoding='utf-8-sig')
    (tmp_path / 'osf.csv').write_bytes(as_osf(frame))
    (tmp_path / 'osf8.csv').write_bytes(as_osf(frame).replace(b'\xe9', b'e').replace(b'DominanceConditionViolation', b'DominanceViolation', 1))
    with pytest.raises(UnicodeDecodeError): (tmp_path / 'osf.csv').read_text(encoding='utf-8')
    for name in ('website', 'bom', 'osf', 'osf8'):
        pd.testing.assert_frame_equal(load_asl_lex(tmp_path / f'{name}.csv').astype(object), frame.astype(object), check_dtype=False)


def test_other_columns_and_order(tmp_path):
    frame = made_lexicon(['a', 'b'])
    (tmp_path / 'x.csv').write_text(as_csv(frame[frame.columns[::-1]].assign(**{'Lemma ID': ['l', 'm'], 'Unknown': '7'})))
    assert list(load_asl_lex(tmp_path / 'x.csv').columns) == ['Entry ID', 'Lemma ID', *feature_names(ALL_FEATURES)]


GOOD = as_csv(made_lexicon(['one', 'two', 'three']))
HEAD, *BODY = GOOD.splitlines()


@pytest.mark.parametrize('content, parts', [
    (b'', ['content', 'empty file']), (b'\xef\xbb\xbf\n', ['content', 'empty file']), (HEAD, ['rows', 'a header alone']), (HEAD + '\n\n\n', ['rows', 'a header alone']),
    (GOOD.replace('two', 'd\xe9j\xe0').encode('latin-1'), ['byte', 'UTF-8']), (GOOD.encode('utf-16'), ['byte', 'UTF-8']), (GOOD.replace('Entry ID', 'Entry'), ['columns', 'no Entry ID']),
    (GOOD.replace('Contact', 'Contacts'), ['no Thumb Contact, Contact']), (GOOD.replace('Wrist Twist', 'Contact'), ['columns', 'no Wrist Twist']),
    ('\n'.join([HEAD + ',Contact', *(r + ',1' for r in BODY)]), ['columns', 'Contact twice']), ('\n'.join([HEAD, BODY[0] + ',1']), ['line 2', '18 cells', 'found 19']),
    ('\n'.join([HEAD, BODY[0], BODY[1][:20]]), ['line 3', '18 cells']), (GOOD + '"', ['line 5', 'valid CSV']), ('\n'.join([HEAD, BODY[0].replace('one', ' ')]), ['row 0', 'Entry ID', 'a name']),
    ('\n'.join([HEAD, BODY[0], ','.join(['four', 'claw', *BODY[1].split(',')[2:]])]), ['row 1 (four): Handshape', "'claw'"]),
    (GOOD.replace('Entry ID', 'EntryID'), ['columns', 'Handshape.2.0']), (b'\x00\x01\x02', ['rows']), ('a,b\n1,2', ['no Entry ID'])])
def test_damaged_files(tmp_path, content, parts):
    (tmp_path / 'lex.csv').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as e: load_asl_lex(tmp_path / 'lex.csv')
    one_line(e, 'lex.csv: ', *parts)


def test_lost_none_in_a_file(tmp_path):
    frame = made_lexicon(['one', 'two'])
    frame['Path Movement'] = ['None', 'Straight']
    as_csv(frame, path_or_buf=tmp_path / 'a.csv')
    pd.read_csv(tmp_path / 'a.csv').to_csv(tmp_path / 'b.csv', index=False)
    with pytest.raises(InputError) as e: load_asl_lex(tmp_path / 'b.csv')
    one_line(e, 'b.csv: row 0 (one): Path Movement', 'keep_default_na=False')


@pytest.mark.parametrize('path', ['none.csv', '.', 'a\0b'])
def test_no_file(tmp_path, path):
    with pytest.raises(InputError) as e: load_asl_lex(f'{tmp_path}/{path}')
    one_line(e, 'file: expected a CSV file')


@pytest.mark.parametrize('seed', range(6))
def test_fuzz(tmp_path, seed):
    rng = random.Random(seed)
    for source in (GOOD.encode(), as_osf(pd.read_csv(io.StringIO(GOOD), dtype=str, keep_default_na=False))):
        for _ in range(60):
            raw = bytearray(source)
            for _ in range(rng.randint(1, 6)):
                at = rng.randrange(len(raw) + 1)
                what = rng.randrange(4)
                if what == 0: del raw[at:at + rng.randint(1, 40)]
                elif what == 1: raw[at:at] = rng.choice([b'"', b',', b'\n', b'\r', b'\0', b'\xff', b'None', b'N/A', b'\xef\xbb\xbf', b'1e99'])
                elif what == 2 and at < len(raw): raw[at] = rng.randrange(256)
                else: del raw[at:]
                if not raw: break
            (tmp_path / 'f.csv').write_bytes(raw)
            try: assert len(load_asl_lex(tmp_path / 'f.csv')) > 0
            except InputError as e: assert '\n' not in str(e) and 'f.csv' in str(e)


# glosses

NAMES = ['eat_1', 'eat_2', 'ice_cream', 'milk', 'milk_2', 'bite', 'bite', 'TV', 'light_2', '1_dollar', 'run_10', 'run_9']


@pytest.mark.parametrize('gloss, how, entry, candidates, others', [
    ('eat_1', 'exact', 'eat_1', 'eat_1', ''), ('eat', 'variants', '', 'eat_1, eat_2', ''), ('ice cream', 'spelling', 'ice_cream', 'ice_cream', ''), ('milk', 'exact', 'milk', 'milk', 'milk_2'),
    ('bite', 'duplicates', '', 'bite, bite', ''), ('tv', 'spelling', 'TV', 'TV', ''), ('light', 'variants', '', 'light_2', ''), ('dollar', 'absent', '', '', ''), ('', 'absent', '', '', ''),
    ('run', 'variants', '', 'run_9, run_10', ''), ('Eat', 'variants', '', 'eat_1, eat_2', '')])
def test_join(gloss, how, entry, candidates, others):
    lexicon = made_lexicon(NAMES)
    codes, matched, report = join_glosses(['milk', gloss], lexicon)
    assert report.iloc[1][['row', 'gloss', 'how', 'entry', 'candidates', 'others']].tolist() == [1, gloss, how, entry, candidates, others]
    assert matched[1] == (entry != '') and (codes[1] == (encode(lexicon)[NAMES.index(entry)] if entry else -1)).all()


def test_join_choices():
    lexicon = made_lexicon(NAMES)
    codes = encode(lexicon)
    first = join_glosses(['run', 'bite', 'no'], lexicon, 'first')
    assert first[2]['entry'].tolist() == ['run_9', 'bite', ''] and (first[0][:2] == codes[[11, 5]]).all()
    got, matched, report = join_glosses(['no', 'bite', 'milk', 'eat'], lexicon, 'all')
    assert report['row'].tolist() == [0, 1, 1, 2, 3, 3] and matched.tolist() == [False] + [True] * 5 and (got[1:] == codes[[5, 6, 3, 0, 1]]).all()
    chosen = join_glosses(['eat', 'bite', 'eat'], lexicon, choose={'eat': 'eat_2', 'bite': 6})
    assert (chosen[0] == codes[[1, 6, 1]]).all() and chosen[1].all() and (chosen[2]['how'] == 'chosen').all()
    empty = join_glosses([], lexicon)
    assert empty[0].shape == (0, 16) and empty[1].shape == (0,) and len(empty[2]) == 0


@pytest.mark.parametrize('options', [{'variants': 'best'}, {'choose': {'eat': 'eat'}}, {'choose': {'bite': 'bite'}}, {'choose': {'eat': 99}}, {'choose': {'eat': None}}, {'choose': {'eat': ['eat_1']}}])
def test_join_refuses(options):
    with pytest.raises(InputError) as e: join_glosses(['eat'], made_lexicon(NAMES), **options)
    one_line(e, 'join_glosses')


@pytest.mark.parametrize('bad', [None, 3, np.nan, b'eat'])
def test_join_wants_words(bad):
    with pytest.raises(InputError) as e: join_glosses(['eat', bad], made_lexicon(NAMES))
    one_line(e, 'join_glosses: glosses')


def test_fold_is_explicit():
    lexicon = made_lexicon(list('abcd'))
    lexicon['Nondominant Handshape'] = ['B', 'C', 'Lax', 'c']
    assert fold_nondominant(lexicon)[0]['Nondominant Handshape'].tolist() == ['B', 'c', 'Lax', 'c']
    assert fold_nondominant(lexicon, 'open_b', False)[0]['Nondominant Handshape'].tolist() == ['open_b', 'c', 'N/A', 'c']
    assert encode(lexicon)[1, 14] != encode(lexicon)[3, 14]
    with pytest.raises(InputError): fold_nondominant(lexicon, 'b')


def test_speed_of_a_large_table():
    frame = pd.concat([made_lexicon([f's{k}' for k in range(1000)])] * 90, ignore_index=True)
    start = time.process_time(); encode(frame); took = time.process_time() - start
    assert took < 20
