"SignWorld's calibration and sanity measurements: the list is complete, the statistics are what they say, the baselines learn and repeat."
import json
from collections import Counter
import numpy as np, pytest
import torch
import signbook.signworld as sw
from signbook.core import InputError

@pytest.fixture(scope='module')
def world(): return sw.make_world(0, 'smoke')

@pytest.fixture(scope='module')
def table(world): return sw.calibration(world, 96)

def test_every_constant_and_target_has_a_line(table):
    listed = set(zip(table['part'], table['quantity']))
    wanted = {(part, c.name) for part, t in sw.CONSTANT_TABLES.items() for c in t} | {('sentences', c.name) for c in sw.SENTENCE_TARGETS} | {('motion', c.name) for c in sw.MOTION_TARGETS} | {('signers', c.name) for c in sw.SIGNER_TARGETS}
    assert wanted <= listed and not table.duplicated(['kind', 'part', 'quantity']).any()
    assert table['source'].str.len().gt(0).all() and not table.isna().any().any()

def test_baselines_have_no_number_here(table):
    ours = table.columns[4]
    assert ours == 'SignWorld smoke, seed 0'
    assert (table.loc[table['part'] == 'baselines', ours] == 'not run here').all()
    assert not (table.loc[(table['kind'] == 'statistic') & (table['part'] != 'baselines'), ours].map(type) == str).any()

def test_motion_is_counted_from_segments(world):
    said = sw.sentence_motions(world)[:40]; found = sw.motion_measures(world, 40)
    lengths = [n for m in said for _, _, n in m.segments.tolist()]
    assert found['segment: mean, frames'] == pytest.approx(sum(lengths)/len(lengths)) and found['segment_least'] == min(lengths)
    assert found['frames per gloss'] == pytest.approx(sum(len(m.pose) for m in said)/len(lengths))
    gap = [b[1] - a[1] - a[2] for m in said for a, b in zip(m.segments.tolist(), m.segments.tolist()[1:])]
    assert found['pause_share'] == pytest.approx(np.mean(np.array(gap) > 0))

def test_shoulder_units_ignore_place_scale_and_angle():
    rng = np.random.default_rng(0); clip = rng.normal(size=(20, 75, 3)); clip[:, 11], clip[:, 12] = [.5, 0, 0], [-.5, 0, 0]; a = .6
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    np.testing.assert_allclose(sw.shoulder_units(3*(clip @ turn.T) + [1, 2, 3], (15, 16), (11, 12)), sw.shoulder_units(clip, (15, 16), (11, 12)), atol=1e-9)
    np.testing.assert_allclose(np.abs(sw.shoulder_units(clip, (15, 16), (11, 12))), np.abs(clip[:, [15, 16], :2]), atol=1e-9)

def test_spread_finds_what_was_put_in():
    rng = np.random.default_rng(0); sign, signer = np.repeat(np.arange(20), 200), np.tile(np.repeat(np.arange(20), 10), 20)
    own = rng.normal(0, .5, (20, 20, 2, 2)); parts = [np.tile(own[i, j] + rng.normal(0, .1, (2, 2)), (3, 1, 1)) for i, j in zip(sign, signer)]
    between, within = sw.wrist_spread(parts, sign, signer)
    assert np.median(between) == pytest.approx(.5, abs=.06) and np.median(within) == pytest.approx(.1, abs=.015)

def test_ks_against_the_definition():
    rng = np.random.default_rng(1); a, b = rng.normal(size=57), rng.normal(.5, 1, size=40)
    slow = max(abs((a <= v).mean() - (b <= v).mean()) for v in np.r_[a, b])
    assert sw.ks_distance(a, np.r_[b, np.nan]) == pytest.approx(slow)

def test_linear_baseline_learns_and_does_not_peek():
    rng = np.random.default_rng(0); y = np.arange(200) % 4; out = np.arange(200) >= 150; x = rng.normal(size=(200, 30))
    assert sw.linear_baseline(x + 5*np.eye(4, 30)[y], y, out, 10) > .95
    assert sw.linear_baseline(x, y, out, 10) < .6
    with pytest.raises(InputError, match='held_out'): sw.linear_baseline(x, y, np.ones(200, bool))

def test_features_have_no_nan(world):
    clips = [m.pose for m in sw.clip_motions(world)[:30]]
    for x, d in ((sw.arm_features(clips, 'mediapipe75'), 32*14), (sw.hand_features(clips), 20*54)): assert x.shape == (30, d) and np.isfinite(x).all()
    with pytest.raises(InputError, match='right-handed'): sw.designed_clips(world, signers=40)

def test_gloss_to_text_repeats_and_leaves_chance_alone():
    said = list(sw.sentences(0, 0, 48, 40)); torch.manual_seed(5); before = torch.get_rng_state()
    first = sw.gloss_to_text(said, said[:5], 40, 1, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert sw.gloss_to_text(said, said[:5], 40, 1, seed=3) == first and len(first) == 5

def test_gloss_to_text_learns_a_code():
    rng = np.random.default_rng(0); words = 'alpha beta gamma delta epsilon zeta eta theta'.split()
    glosses = [tuple(int(g) for g in rng.integers(0, 8, rng.integers(4, 8))) for _ in range(400)]; said = [sw.Sentence(g, ' '.join(words[i] for i in g)) for g in glosses]
    told, blind = (sw.text_scores(sw.gloss_to_text(said[:360], said[360:], 8, 12, blind=b), said[:360], said[360:])['all'][0] for b in (False, True))
    assert told > 2*blind + 10

def test_new_texts_are_those_that_training_lacks():
    train, test = [sw.Sentence((0,), 'rain in the north today')], [sw.Sentence((0,), 'rain in the north today'), sw.Sentence((1,), 'sun in the far south')]
    found = sw.text_scores(['rain in the north today', 'fog on the coast now'], train, test)
    assert found['all'][1] == 2 and found['new'][1] == 1 and found['all'][0] > found['new'][0]

def test_measure_sanity_writes_a_record(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    out = sw.measure_sanity(tmp_path/'s.json', sizes=('smoke',), seeds=(0,), jobs=1, isl30=False)
    assert json.loads((tmp_path/'s.json').read_text()) == json.loads(json.dumps(out))
    t = sw.sanity_table(sw.sanity_record(tmp_path/'s.json'))
    assert ('gloss to text', 'SignWorld smoke', 'new') in t.index and (t['mean'] >= 0).all() and (t['mean'] <= 100).all()
    assert out['provenance']['parameters'] == {'sizes': ['smoke'], 'seeds': [0], 'jobs': 1, 'epochs': {'smoke': {'gloss to text': 3, 'blind': 1}}}

def test_the_packaged_record():
    rows, at = (sw.sanity_record()[k] for k in ('rows', 'provenance'))
    for size in ('SignWorld cpu', 'SignWorld gpu'): assert {r['seed'] for r in rows if r['corpus'] == size and r['measure'] == 'gloss to text'} == {0, 1, 2}
    assert at['date'] and at['device'] and at['packages']['torch'] and all(r['n'] > 0 for r in rows)

@pytest.mark.parametrize('size, seed', [('cpu', 0), ('cpu', 1), ('cpu', 2), ('gpu', 0)])
def test_the_packaged_record_is_of_this_world(size, seed):
    train, test = sw._said(sw.make_world(seed, size)); text = max(Counter(s.text for s in train).items(), key=lambda x: x[1])[0]
    kept = {(r['subset'], round(r['value'], 6), r['n']) for r in sw.sanity_record()['rows'] if (r['measure'], r['corpus'], r['seed']) == ('most common text', f'SignWorld {size}', seed)}
    assert {(k, round(v, 6), n) for k, (v, n) in sw.text_scores([text]*len(test), train, test).items()} == kept
