"""signbook.pose against slow float64 versions, published graphs, pose-format itself and real files."""
import ast
import csv
import importlib.util
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from signbook import pose as P
from signbook.core import InputError

NAMES = sorted(P.JOINT_SETS)
SIZES = {'openhands27': 27, 'samslr27': 27, 'kinect20': 20, 'mediapipe75': 75, 'mediapipe543': 543, 'mediapipe553': 553, 'mediapipe553_pose_first': 553,
         'mediapipe586': 586, 'body25_hands': 67, 'openpose137': 137, 'coco_wholebody133': 133}
OPENHANDS = [(2, 0), (1, 0), (0, 3), (0, 4), (3, 5), (4, 6), (5, 7), (6, 17), (7, 8), (7, 9), (9, 10), (7, 11), (11, 12), (7, 13), (13, 14), (7, 15), (15, 16),
             (17, 18), (17, 19), (19, 20), (17, 21), (21, 22), (17, 23), (23, 24), (17, 25), (25, 26)]
SAMSLR = [(5, 6), (5, 7), (6, 8), (8, 10), (7, 9), (9, 11), (12, 13), (12, 14), (12, 16), (12, 18), (12, 20), (14, 15), (16, 17), (18, 19), (20, 21),
          (22, 23), (22, 24), (22, 26), (22, 28), (22, 30), (24, 25), (26, 27), (28, 29), (30, 31), (10, 12), (11, 22)]


def make(T, V, C=2, missing=.3, seed=0):
    "A random clip in which whole joints are unseen."
    rng = np.random.default_rng(seed)
    x = rng.normal(250, 80, (T, V, C)).astype(np.float32)
    x[rng.random((T, V)) < missing] = np.nan
    return x


def same(a, b, tol=1e-5):
    "Equal NaN pattern, and equal values relative to the largest."
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert a.shape == b.shape
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    scale = max(np.nanmax(np.abs(b)), 1e-30) if np.isfinite(b).any() else 1
    assert not np.isfinite(b).any() or np.nanmax(np.abs(a - b)) <= tol * scale


# joint sets and graphs

@pytest.mark.parametrize('name', NAMES)
def test_sets_are_sound(name):
    js = P.joint_set(name)
    assert len(js) == SIZES[name] and js.name == name
    assert sorted(sum(js.parts.values(), ())) == list(range(len(js)))
    for l, r in js.pairs:
        a, b = js.joints[l], js.joints[r]
        assert a.replace('left', 'right') == b if 'left' in a else a.startswith('face')
    assert len({frozenset(e) for e in js.edges}) == len(js.edges)
    again = pickle.loads(pickle.dumps(js))
    assert again == js and hash(again) == hash(js) and again.parts == js.parts and again.root == js.root
    with pytest.raises(AttributeError): js.name = 'other'
    with pytest.raises(TypeError): js.parts['body'] = ()


def test_every_set_is_tested(): assert set(SIZES) == set(NAMES)


def test_published_graphs():
    assert P.joint_set('openhands27').edges == tuple(OPENHANDS)
    assert P.joint_set('samslr27').edges == tuple((a - 5, b - 5) for a, b in SAMSLR)
    flip = [0, 2, 1, 4, 3, 6, 5, *range(17, 27), *range(7, 17)]
    x = make(2, 27, missing=0)
    np.testing.assert_array_equal(P.mirror(x, 'samslr27', 512)[..., 1], x[:, flip, 1])
    np.testing.assert_array_equal(P.mirror(x, 'samslr27', 512)[..., 0], 512 - x[:, flip, 0])


@pytest.mark.parametrize('name', NAMES)
def test_adjacency_slow(name):
    js = P.joint_set(name); V = len(js)
    want = np.zeros((3, V, V))
    for i in range(V): want[0, i, i] = 1
    for a, b in js.edges: want[1, b, a] = 1; want[2, a, b] = 1
    for k in (1, 2):
        for j in range(V):
            if (s := want[k, :, j].sum()) > 0: want[k, :, j] /= s
    np.testing.assert_allclose(P.adjacency(name), want, rtol=1e-6)


def test_adjacency_golden(golden):
    z, a = np.load(golden / 'slgcn_openhands.npz'), P.adjacency('openhands27')
    for layer in range(1, 11):
        official = z[f'enc/l{layer}.gcn1.decoupled_A'].astype(float)
        for group in range(official.shape[1]): np.testing.assert_array_equal(a.astype(np.float16), official[:, group].astype(np.float16))
        np.testing.assert_array_equal(a.sum(0) > 0, z[f'enc/l{layer}.A'] > 0)


@pytest.mark.parametrize('name', NAMES)
def test_parents_are_a_forest(name):
    js, up = P.joint_set(name), P.parents(name)
    assert up[js.root] == -1
    undirected = {frozenset(e) for e in js.edges}
    for i, p in enumerate(up):
        if p >= 0: assert frozenset((i, p)) in undirected
        steps, j = 0, i
        while up[j] >= 0: j, steps = up[j], steps + 1; assert steps <= len(js)
    if name in ('openhands27', 'samslr27', 'kinect20', 'body25_hands'): assert (up == -1).sum() == 1


def test_unknown_names():
    with pytest.raises(InputError, match='nearest: openhands27'): P.joint_set('openhand27')
    with pytest.raises(InputError, match='joint set'): P.select(np.zeros((1, 27, 2)), 'openhands27', 'nothing')
    with pytest.raises(InputError, match='parts'): P.JointSet('x', 'ab', parts={'body': [0, 1], 'face': [1]})
    with pytest.raises(InputError, match='pairs'): P.JointSet('x', 'abc', pairs=[(0, 1), (1, 2)])
    with pytest.raises(InputError, match='root'): P.JointSet('x', 'abc', root=3)


def _package(name): return Path(importlib.util.find_spec('pose_format').submodule_search_locations[0], *name.split('/'))


def test_face_mirror_is_pose_formats():
    "pose-format's list sits in a module that needs mediapipe; its source is read as data."
    tree = ast.parse(_package('utils/holistic.py').read_text())
    flipped = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == 'FLIPPED_FACE_POINTS')
    x = np.zeros((1, 553, 2)); x[0, :, 1] = np.arange(553)
    ours = P.mirror(x, 'mediapipe553')[0, :478, 1].astype(int).tolist()
    assert ours == flipped


def test_layouts_are_pose_formats():
    from pose_format.utils.cocowholebody133_header import cocowholebody_components
    from pose_format.utils.openpose import OpenPose_Components
    for name, theirs in (('coco_wholebody133', cocowholebody_components()), ('openpose137', OpenPose_Components)):
        assert P._joint_set_of(theirs, 'x') == name
    camel = lambda n: ''.join({'right': 'R', 'left': 'L'}.get(w, w.title()) for w in n.split('_'))
    assert [camel(n) for n in P.joint_set('openpose137').joints[:25]] == OpenPose_Components[0].points
    assert list(P.joint_set('coco_wholebody133').joints[:23]) == cocowholebody_components()[0].points
    ours = {frozenset(e) for e in P.joint_set('coco_wholebody133').edges if max(e) < 23}
    assert ours == {frozenset(e) for e in cocowholebody_components()[0].limbs}


# selection

def test_select_slow():
    for a in NAMES:
        for b in NAMES:
            A, B = P.joint_set(a), P.joint_set(b)
            x = make(2, len(A))
            if set(B.joints) <= set(A.joints):
                np.testing.assert_array_equal(P.select(x, a, b), np.stack([x[:, A.joints.index(n)] for n in B.joints], 1))
            else:
                with pytest.raises(InputError, match=f'{a} to {b}'): P.select(x, a, b)


def test_conversions():
    path = [('mediapipe586', 'mediapipe543', 'mediapipe75', 'openhands27'), ('mediapipe553', 'mediapipe75', 'samslr27'),
            ('mediapipe586', 'mediapipe553_pose_first', 'mediapipe553', 'mediapipe543'), ('coco_wholebody133', 'samslr27'), ('openpose137', 'body25_hands', 'openhands27')]
    for names in path:
        x = y = make(2, SIZES[names[0]], 3)
        for a, b in zip(names, names[1:]): y = P.select(y, a, b)
        np.testing.assert_array_equal(y, P.select(x, names[0], names[-1]))
    x = make(1, 586)
    np.testing.assert_array_equal(P.select(x, 'mediapipe586', 'mediapipe543'), x[:, [*range(33), *range(33, 33 + 468), *range(511, 553)]])
    np.testing.assert_array_equal(P.select(x[:, :553], 'mediapipe553', 'mediapipe75'), x[:, 478:553])
    np.testing.assert_array_equal(P.select(x[:, :137], 'openpose137', 'body25_hands'), x[:, [*range(25), *range(95, 137)]])
    np.testing.assert_array_equal(P.select(x[:, :553], 'mediapipe553', 'mediapipe553_pose_first'), x[:, [*range(478, 511), *range(478), *range(511, 553)]])


# transforms against slow versions

def slow_interpolate(x, max_gap=None, ends='hold'):
    x = x.astype(float); out = x.copy(); T = len(x)
    for v in range(x.shape[1]):
        for c in range(x.shape[2]):
            for t in range(T):
                if np.isfinite(x[t, v, c]): continue
                lo, hi = t, t
                while lo >= 0 and not np.isfinite(x[lo, v, c]): lo -= 1
                while hi < T and not np.isfinite(x[hi, v, c]): hi += 1
                if max_gap is not None and hi - lo - 1 > max_gap: continue
                if lo >= 0 and hi < T: out[t, v, c] = x[lo, v, c] + (x[hi, v, c] - x[lo, v, c]) * (t - lo) / (hi - lo)
                elif ends == 'hold' and lo >= 0: out[t, v, c] = x[lo, v, c]
                elif ends == 'hold' and hi < T: out[t, v, c] = x[hi, v, c]
    return out


@pytest.mark.parametrize('T', [1, 2, 17])
@pytest.mark.parametrize('max_gap', [None, 0, 1, 3])
@pytest.mark.parametrize('ends', ['hold', 'nan'])
def test_interpolate(T, max_gap, ends):
    for missing in (0, .4, .9, 1):
        x = make(T, 5, 3, missing, seed=T)
        x[0, 0, 2] = np.nan
        same(P.interpolate(x, max_gap, ends), slow_interpolate(x, max_gap, ends))


def slow_normalise(x, js, level):
    x = x.astype(float); l, r = js.at['left_shoulder'], js.at['right_shoulder']
    mids, dists = {}, {}
    for t in range(len(x)):
        if np.isfinite(x[t, [l, r]]).all(): mids[t] = (x[t, l] + x[t, r]) / 2; dists[t] = np.sqrt(((x[t, l] - x[t, r]) ** 2).sum())
    out = np.empty_like(x); ts = sorted(mids)
    for t in range(len(x)):
        if level == 'clip': centre, d = np.mean([mids[k] for k in ts], 0), np.mean([dists[k] for k in ts])
        else:
            below, above = [k for k in ts if k <= t], [k for k in ts if k >= t]
            a, b = (below or above)[-1 if below else 0], (above or below)[0 if above else -1]
            w = (t - a) / (b - a) if a != b else 0
            centre, d = mids[a] + (mids[b] - mids[a]) * w, dists[a] + (dists[b] - dists[a]) * w
        for v in range(x.shape[1]): out[t, v] = (x[t, v] - centre) / d
    return out


@pytest.mark.parametrize('name', ['openhands27', 'kinect20', 'mediapipe553', 'openpose137'])
@pytest.mark.parametrize('level', ['clip', 'frame'])
@pytest.mark.parametrize('C', [2, 3])
def test_normalise(name, level, C):
    js = P.joint_set(name); x = make(12, len(js), C)
    x[[3, 9], js.at['left_shoulder']] = 5; x[[3, 9], js.at['right_shoulder']] = 40
    y = P.normalise_shoulders(x, name, level)
    assert y.dtype == np.float32
    same(y, slow_normalise(x, js, level))
    np.testing.assert_allclose(P.normalise_shoulders(y, name, level), y, atol=2e-4)


def test_normalise_errors():
    x = np.zeros((3, 27, 2)); x[:, 3] = 1
    assert np.isfinite(P.normalise_shoulders(x, 'openhands27')).all()
    x[1, 3] = 0
    with pytest.raises(InputError, match='shoulder distance: .* 0 in frame 1'): P.normalise_shoulders(x, 'openhands27', 'frame')
    x[:, 3] = np.nan
    with pytest.raises(InputError, match='shoulders'): P.normalise_shoulders(x, 'openhands27')
    with pytest.raises(InputError, match='left_shoulder and right_shoulder'): P.normalise_shoulders(x[:, :2], P.JointSet('ab', 'ab'))
    with pytest.raises(InputError, match='level'): P.normalise_shoulders(x, 'openhands27', 'video')


@pytest.mark.parametrize('name', NAMES)
def test_mirror(name):
    js = P.joint_set(name); x = make(4, len(js), 3)
    np.testing.assert_array_equal(P.mirror(P.mirror(x, name), name), x)
    same(P.mirror(P.mirror(x, name, 500), name, 500), x, 1e-6)
    partner = {**dict(js.pairs), **{r: l for l, r in js.pairs}}
    y = P.mirror(x, name, 640)
    for v in range(len(js)):
        np.testing.assert_array_equal(y[:, v, 0], np.float32(0 if v in js.parts.get('world', ()) else 640) - x[:, partner.get(v, v), 0])
        np.testing.assert_array_equal(y[:, v, 1:], x[:, partner.get(v, v), 1:])


def test_mirror_commutes_with_bones():
    x = make(3, 27)
    same(P.bones(P.mirror(x, 'samslr27'), 'samslr27'), P.mirror(P.bones(x, 'samslr27'), 'samslr27'))


def test_shear_rotate():
    x = make(5, 27, 3)
    for f, matrix in ((P.shear, lambda s: [[1, s], [0, 1]]), (P.rotate, lambda a: [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])):
        m = np.array(matrix(np.random.default_rng(5).normal(0, .3)))
        want = x.astype(float)
        for t in range(5):
            for v in range(27): want[t, v, :2] = x[t, v, :2].astype(float) @ m
        same(f(x, np.random.default_rng(5), .3), want)
        np.testing.assert_array_equal(f(x, np.random.default_rng(5), 0), x)
        for bad in (None, 0, np.random.RandomState(0)):
            with pytest.raises(InputError, match='rng'): f(x, bad)
        with pytest.raises(InputError, match='std'): f(x, np.random.default_rng(0), -1)
    d = np.linalg.norm(P.rotate(x, np.random.default_rng(1))[..., :2], axis=-1)
    np.testing.assert_allclose(d, np.linalg.norm(x[..., :2], axis=-1), rtol=1e-5)


def slow_resample(x, at, kind):
    out = np.full((len(at), *x.shape[1:]), np.nan)
    for i, (num, den) in enumerate(at):
        lo, rest = divmod(num, den)
        a = x[lo].astype(float)
        out[i] = a if rest == 0 or kind == 'previous' else a + (x[lo + 1].astype(float) - a) * rest / den
    return out


@pytest.mark.parametrize('kind', ['linear', 'previous'])
def test_resample(kind):
    for T in (1, 2, 7, 26):
        x = make(T, 4, 2, .2, seed=T)
        for n in (1, 2, 5, 26, 60):
            same(P.resample(x, n, kind=kind), slow_resample(x, [(i * (T - 1), max(n - 1, 1)) for i in range(n)], kind))
        for old, new in ((25, 50), (30, 25), (50, 25), (25, 30), (7, 3)):
            n = (T - 1) * new // old + 1
            same(P.resample(x, fps=(old, new), kind=kind), slow_resample(x, [(i * old, new) for i in range(n)], kind))
    np.testing.assert_array_equal(P.resample(x, len(x)), x)


@pytest.mark.parametrize('bad', [dict(), dict(n=3, fps=(1, 2)), dict(n=0), dict(n=2.5), dict(n=True), dict(fps=(0, 25)), dict(fps=25), dict(fps=(25, np.nan)), dict(n=2, kind='cubic')])
def test_resample_errors(bad):
    with pytest.raises(InputError, match='resample'): P.resample(make(4, 3), **bad)


@pytest.mark.parametrize('name', NAMES)
def test_streams(name):
    js, up = P.joint_set(name), P.parents(name); x = make(6, len(js), 3)
    bone, move = np.empty(x.shape), np.zeros(x.shape)
    for v in range(len(js)): bone[:, v] = x[:, v] - (x[:, up[v]] if up[v] >= 0 else 0)
    s = P.streams(x, name)
    same(s['bone'], bone)
    for source, key in ((x, 'motion'), (s['bone'], 'bone_motion')):
        move = np.zeros(x.shape)
        for t in range(5): move[t] = source[t + 1].astype(float) - source[t]
        same(s[key], move, 1e-4)
    np.testing.assert_array_equal(s['joint'], x)
    assert s['joint'] is not x


def test_bones_are_samslrs():
    x = make(3, 27, missing=0); want = x.copy()
    for a, b in SAMSLR: want[:, b - 5] = x[:, b - 5] - x[:, a - 5]
    np.testing.assert_array_equal(P.bones(x, 'samslr27'), want)


def test_trim_and_seen():
    js = P.joint_set('openhands27'); x = make(9, 27, missing=0)
    hands = [*js.parts['left_hand'], *js.parts['right_hand']]
    for t in (0, 1, 4, 8): x[t, hands] = np.nan
    x[2, hands[:-1]] = np.nan
    assert P.tracked_span(x, js) == (2, 8)
    np.testing.assert_array_equal(P.trim(x, js), x[2:8])
    np.testing.assert_array_equal(P.trim(x, js, 1), x[1:9])
    np.testing.assert_array_equal(P.trim(x, js, 100), x)
    share = P.missing_share(x, js)
    assert share['body'] == 0 and share['right_hand'] == pytest.approx((40 + 9) / 90) and share['left_hand'] == pytest.approx(50 / 90)
    np.testing.assert_array_equal(P.seen(x), np.isfinite(x).all(-1))
    x[:, hands] = np.nan
    with pytest.raises(InputError, match='trim: hands'): P.trim(x, js)
    assert len(P.trim(x, js, empty='keep')) == 9
    with pytest.raises(InputError, match='left_hand or right_hand'): P.trim(x[:, :2], P.JointSet('ab', 'ab'))
    for bad in (-1, 1.5):
        with pytest.raises(InputError, match='margin'): P.trim(x, js, bad)


def test_inputs_stay_as_they_are():
    x = make(6, 27); keep, rng = x.copy(), np.random.default_rng(0)
    x[:, 3:5] = keep[:, 3:5] = [[1, 2], [3, 4]]
    outs = [P.select(x, 'openhands27', 'openhands27'), P.interpolate(x), P.normalise_shoulders(x, 'openhands27'), P.mirror(x, 'openhands27'), P.shear(x, rng), P.rotate(x, rng),
            P.resample(x, 6), P.trim(x, 'openhands27'), P.zeros_as_missing(x), P.bones(x, 'openhands27'), P.motion(x), *P.streams(x, 'openhands27').values()]
    for o in outs:
        assert o.dtype == np.float32 and not np.shares_memory(o, x)
        o[...] = 7
    np.testing.assert_array_equal(x, keep)


# bad input

CALLS = {'select': lambda x: P.select(x, 'openhands27', 'openhands27'), 'normalise_shoulders': lambda x: P.normalise_shoulders(x, 'openhands27'),
         'mirror': lambda x: P.mirror(x, 'openhands27'), 'bones': lambda x: P.bones(x, 'openhands27'), 'streams': lambda x: P.streams(x, 'openhands27'),
         'tracked_span': lambda x: P.trim(x, 'openhands27'), 'missing_share': lambda x: P.missing_share(x, 'openhands27'), 'plot_strip': lambda x: P.plot_strip(x, 'openhands27'),
         'animate': lambda x: P.animate(x, 'openhands27'), 'write_pose': lambda x: P.write_pose('never.pose', x, 'openhands27', 25),
         'interpolate': P.interpolate, 'resample': lambda x: P.resample(x, 3), 'motion': P.motion, 'seen': P.seen, 'zeros_as_missing': P.zeros_as_missing,
         'shear': lambda x: P.shear(x, np.random.default_rng(0)), 'rotate': lambda x: P.rotate(x, np.random.default_rng(0))}
ANY_V = {'interpolate', 'resample', 'motion', 'seen', 'zeros_as_missing', 'shear', 'rotate'}


@pytest.mark.parametrize('where', CALLS)
def test_bad_clips(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inf = np.zeros((4, 27, 2)); inf[2, 5, 1] = -np.inf
    huge = np.zeros((4, 27, 2)); huge[0, 0, 0] = 1e300
    bad = {'frames': np.zeros((0, 27, 2)), 'axes': np.zeros((27, 2)), '3 axes': np.zeros((1, 4, 27, 2)), 'coordinates': np.zeros((4, 27, 4)), 'frame 2, joint': inf, 'frame 0, joint': huge,
           'real numbers': np.array([[['a', 'b']]]), 'array': [[[1, 2]], [[1]]], 'dtype': np.zeros((4, 27, 2), complex)}
    if where not in ANY_V: bad['27 of openhands27'] = np.zeros((4, 26, 2))
    for field, x in bad.items():
        with pytest.raises(InputError, match=field) as e: CALLS[where](x)
        assert str(e.value).startswith(f'{where}: ') and '\n' not in str(e.value)
    assert not list(tmp_path.iterdir())


# .pose files

@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('C', [2, 3])
def test_round_trip(name, C, tmp_path):
    x, path = make(5, SIZES[name], C), tmp_path / 'a.pose'
    conf = np.random.default_rng(1).uniform(.1, 1, x.shape[:2]).astype(np.float32)
    P.write_pose(path, x, name, 29.97, conf, (640, 480))
    f = P.read_pose(path)
    np.testing.assert_array_equal(f.clip, x)
    assert (f.joint_set, f.people, f.size) == (name, 1, (640, 480)) and f.fps == pytest.approx(29.97, 1e-6) and f.clip.dtype == np.float32
    np.testing.assert_array_equal(f.confidence, np.where(np.isfinite(x).all(-1), conf, 0))
    from pose_format import Pose
    theirs = Pose.read(path.read_bytes())
    np.testing.assert_array_equal(theirs.body.data.filled(np.nan)[:, 0], x)
    assert not list(tmp_path.glob('.*'))


def test_several_people_and_file_nans(tmp_path):
    from pose_format import Pose
    from pose_format.numpy import NumPyPoseBody
    from pose_format.pose_header import PoseHeader, PoseHeaderDimensions
    x = np.stack([make(3, 75, missing=0, seed=s) for s in (1, 2)], 1); x[1, 1, 4] = np.nan
    c = np.ones((3, 2, 75), np.float32); c[2, 0, 7] = 0
    with open(tmp_path / 'two.pose', 'wb') as f: Pose(PoseHeader(.2, PoseHeaderDimensions(9, 9, 0), P._components(P.joint_set('mediapipe75'))), NumPyPoseBody(25, x, c)).write(f)
    a, b = P.read_pose(tmp_path / 'two.pose'), P.read_pose(tmp_path / 'two.pose', person=1)
    assert a.people == b.people == 2 and np.isnan(a.clip[2, 7]).all() and np.isnan(a.clip).sum() == 2
    np.testing.assert_array_equal(b.clip, x[:, 1])
    for bad in (2, -1, 0.5):
        with pytest.raises(InputError, match='person'): P.read_pose(tmp_path / 'two.pose', person=bad)


def test_write_errors(tmp_path):
    x = make(3, 75); write = lambda **k: P.write_pose(tmp_path / 'x.pose', **{'clip': x, 'joint_set': 'mediapipe75', 'fps': 25, **k})
    for field, k in {'fps': dict(fps=0), 'fps:': dict(fps=np.nan), 'confidence': dict(confidence=np.ones((3, 74))), 'confidence:': dict(confidence=np.full((3, 75), np.nan)), 'size': dict(size=(0, 5)), 'size:': dict(size=(70000, 5))}.items():
        with pytest.raises(InputError, match=field): write(**k)
    assert not list(tmp_path.iterdir())
    write(clip=np.full((2, 75, 2), np.nan))
    assert np.isnan(P.read_pose(tmp_path / 'x.pose').clip).all()


def survives(path, data):
    "The damaged file is refused by InputError with its name, or read."
    path.write_bytes(data)
    try: return P.read_pose(path)
    except InputError as e: assert path.name in str(e) and '\n' not in str(e)


def test_truncated_and_flipped(tmp_path):
    P.write_pose(tmp_path / 'a.pose', make(6, 75), 'mediapipe75', 25)
    raw, path, rng = (tmp_path / 'a.pose').read_bytes(), tmp_path / 'b.pose', np.random.default_rng(0)
    for n in [*range(0, 60), *rng.integers(0, len(raw), 300)]: assert survives(path, raw[:n]) is None
    assert survives(path, raw + b'\0') is None
    for _ in range(1500):
        data = bytearray(raw)
        for i in rng.integers(0, 2200 if rng.random() < .8 else len(raw), rng.integers(1, 4)): data[i] = rng.integers(0, 256)
        survives(path, bytes(data))
    for _ in range(500): survives(path, rng.bytes(rng.integers(0, 400)))
    for fill in (b'\0', b'\xff'): assert survives(path, fill * 5000) is None
    assert survives(path, raw) is not None


def test_zero_frames(tmp_path):
    P.write_pose(tmp_path / 'a.pose', make(1, 75), 'mediapipe75', 25)
    raw = (tmp_path / 'a.pose').read_bytes(); body = 75 * 3 * 4
    (tmp_path / 'b.pose').write_bytes(raw[:-body - 6] + (0).to_bytes(4, 'little') + (1).to_bytes(2, 'little'))
    with pytest.raises(InputError, match='b.pose: frames: expected at least 1, found 0'): P.read_pose(tmp_path / 'b.pose')
    (tmp_path / 'c.pose').write_bytes(raw[:-body - 2] + b'\0\0' + raw[-body:])
    with pytest.raises(InputError, match='c.pose: people'): P.read_pose(tmp_path / 'c.pose')
    with pytest.raises(InputError, match='no such file'): P.read_pose(tmp_path)


# pictures

@pytest.mark.parametrize('name', NAMES)
def test_plots(name):
    x = make(5, SIZES[name], 3)
    fig = P.plot_strip(x, name, n=8, fps=25, title='a', everything=True)
    assert len(fig.axes) == 5
    fig.savefig(io.BytesIO(), format='png')
    P.plot_strip(np.full_like(x, np.nan), name).savefig(io.BytesIO(), format='png')


def test_animation():
    from PIL import Image
    x = make(30, 27)
    a, b = P.animate(x, 'openhands27', 25, n=10), P.animate(x, 'openhands27', 25, n=10)
    with Image.open(io.BytesIO(a.data)) as im: assert im.n_frames == 10 and im.info['duration'] == 120
    assert a.data == b.data and len(a.data) < 200_000
    p, q = (P.animate(x, 'openhands27', 25, n=3, how='js').data for _ in range(2))
    assert p == q and p.count('base64') >= 3 and len(p) < 300_000
    for k in (dict(n=0), dict(fps=0), dict(how='gif'), dict(n=1.5)):
        with pytest.raises(InputError, match='animate'): P.animate(x, 'openhands27', **k)


# real files

def letters(real):
    folder = real / 'fingerspelling'
    if not folder.is_dir(): pytest.skip('no real data: fingerspelling')
    with open(folder / 'index.csv', newline='') as f: return [(r['glosses'], folder / r['path']) for r in csv.DictReader(f) if r['signed_language'] == 'ase']


def test_fingerspelling(real):
    from pose_format import Pose
    found = letters(real)
    assert len(found) == 26
    for _, path in found:
        f = P.read_pose(path); theirs = Pose.read(path.read_bytes())
        assert (f.joint_set, f.fps, f.people, f.size) == ('mediapipe586', 25, 1, (500, 500)) and f.clip.shape[1:] == (586, 3) and 20 <= len(f.clip) <= 33
        np.testing.assert_array_equal(f.clip, theirs.body.data.filled(np.nan)[:, 0])
        share = P.missing_share(f.clip, f.joint_set)
        assert share['left_hand'] == 1 and share['right_hand'] == share['face'] == 0 and share['body'] == pytest.approx(1 / 33)
        u = P.normalise_shoulders(P.select(f.clip, f.joint_set, 'mediapipe543'), 'mediapipe543')
        js = P.joint_set('mediapipe543')
        assert u[:, js.at['left_shoulder'], 0].mean() == pytest.approx(.5, abs=.01) and np.abs(u[:, js.at['nose']]).max() < 2
        assert len(P.trim(f.clip, f.joint_set)) == len(f.clip)


def test_face_names_fit_real_faces(real):
    "Mirrored faces lie on themselves; the mesh of the header is symmetric under our pairs (but for a few diagonals); left is the signer's left."
    from pose_format import Pose
    path = letters(real)[0][1]; js, x = P.joint_set('mediapipe586'), P.read_pose(path).clip
    face = np.array(js.parts['face']); f = x[:, face, :2]
    at = lambda n: x[:, js.at[n], :2]
    assert np.linalg.norm(at('face_263') - at('left_eye_outer'), axis=-1).max() < np.linalg.norm(at('face_33') - at('left_eye_outer'), axis=-1).min()
    centre = f[:, :, 0].mean()
    flipped = P.mirror(x, js, 2 * centre)[:, face, :2]
    shift = (f - flipped).mean(1, keepdims=True)
    width = np.ptp(f[0, :, 0])
    assert np.abs(f - flipped - shift).mean() < .05 * width < np.abs(f - np.flip(flipped, 1)).mean()
    mesh = {frozenset(e) for e in Pose.read(path.read_bytes()).header.components[1].limbs if max(e) < 468}
    swap = {**dict(js.pairs), **{r: l for l, r in js.pairs}}
    assert len(mesh & {frozenset(swap.get(i + 33, i + 33) - 33 for i in e) for e in mesh}) > .99 * len(mesh)


def test_pose_samples(real):
    from pose_format import Pose
    folder = real / 'pose-samples'
    if not folder.is_dir(): pytest.skip('no real data: pose-samples')
    for path, frames, fps in ((folder / 'signer0_sample1000.pose', 43, 30), (folder / '25October_2010_Monday_tagesschau-17.pose', 86, 25)):
        f = P.read_pose(path); theirs = Pose.read(path.read_bytes())
        assert (f.joint_set, f.fps, f.clip.shape) == ('mediapipe543', fps, (frames, 543, 3))
        np.testing.assert_array_equal(f.clip, theirs.body.data.filled(np.nan)[:, 0, :, :3])
        js, first = P.joint_set('mediapipe543'), 0
        for c in theirs.header.components:
            inside = {frozenset(i - first for i in e) for e in js.edges if first <= min(e) and max(e) < first + len(c.points)}
            assert inside == {frozenset(e) for e in c.limbs}, c.name
            first += len(c.points)


def test_truncated_old_files_are_refused(real, tmp_path):
    "Version 0.1 takes its length from the file: pose-format reads a cut file without an error, and as other numbers."
    from pose_format import Pose
    path = real / 'pose-samples' / 'signer0_sample1000.pose'
    if not path.is_file(): pytest.skip('no real data: pose-samples')
    raw = path.read_bytes(); frame = 543 * 5 * 4
    (tmp_path / 'cut.pose').write_bytes(raw[:-3 * frame])
    assert Pose.read(raw[:-3 * frame]).body.data.shape[0] == 40
    with pytest.raises(InputError, match='cut.pose: body: expected 43 frames'): P.read_pose(tmp_path / 'cut.pose')
    for n in (len(raw) - 1, len(raw) - frame // 2, 5000, 4400, 300): assert survives(tmp_path / 'cut.pose', raw[:n]) is None


def test_asl_words(real):
    path = real / 'asl-mediapipe' / 'MP_Data_subset.tar.gz'
    if not path.is_file(): pytest.skip('no real data: asl-mediapipe')
    with tarfile.open(path) as t: x = np.stack([np.load(io.BytesIO(t.extractfile(f'MP_Data/hello/0/{i}.npy').read())) for i in range(20)])
    clip = P.zeros_as_missing(np.concatenate([x[:, :132].reshape(20, 33, 4)[..., :3], x[:, 132:].reshape(20, 42, 3)], 1))
    share = P.missing_share(clip, 'mediapipe75')
    assert share['body'] == 0 and 0 < share['right_hand'] < 1
    a, b = P.tracked_span(clip, 'mediapipe75')
    assert np.isfinite(clip[a, 33:]).any() and np.isnan(clip[:a, 33:]).all() and np.isnan(clip[b:, 33:]).all()
    js = P.joint_set('mediapipe75'); near = clip[:, js.at['right_wrist'], :2] - clip[:, js.at['right_hand_wrist'], :2]
    assert np.nanmedian(np.abs(near)) < .05


def test_isl30(real):
    path = real / 'isl30' / 'RawDataset.tar.xz'
    if not path.is_file(): pytest.skip('no real data: isl30')
    with tarfile.open(path, 'r|xz') as t: x = np.loadtxt(t.extractfile(next(m for m in t if m.name.endswith('.txt')))).reshape(-1, 20, 3)
    js = P.joint_set('kinect20'); up = lambda n: x[:, js.at[n], 1].mean()
    assert up('head') > up('neck') > up('spine_mid') > up('spine_base') > up('left_knee') > up('left_foot') and js.y_up
    assert x[:, js.at['left_shoulder'], 0].mean() < x[:, js.at['right_shoulder'], 0].mean()
    bone = P.bones(x, js); length = np.linalg.norm(bone, axis=-1)
    assert P.missing_share(x, js) == {'body': 0, 'left_hand': 0, 'right_hand': 0} and (np.delete(length, js.root, 1).mean(0) < .7).all()


# the notebook without data

def test_notebook_runs_without_data(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    path = Path(__file__).resolve().parent.parent / 'nbs' / '03_pose.ipynb'
    assert path.stat().st_size < 1_500_000
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path / 'none'))
    nb = nbformat.read(path, 4)
    nb.cells = [c for c in nb.cells if 'nbdev_export()' not in c.source]
    nbclient.NotebookClient(nb, timeout=120, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()


@pytest.mark.parametrize('rate', [29.97, 23.976, 59.94, 25, 30, 100/3])
def test_resampling_at_its_own_or_half_its_rate_takes_old_frames(rate):
    for T in range(1, 500, 7):
        x = np.arange(T, dtype=np.float32)[:, None, None].repeat(2, 2)
        for kind in ('linear', 'previous'):
            np.testing.assert_array_equal(P.resample(x, fps=(rate, rate), kind=kind), x)
            np.testing.assert_array_equal(P.resample(x, fps=(rate, rate/2), kind=kind), x[::2])


def test_masks_and_tensors_are_read():
    import torch
    x = np.zeros((4, 75, 2), np.float32); mask = np.zeros(x.shape, bool); mask[1:3, 33:54] = True
    assert np.array_equal(P.seen(np.ma.array(x, mask=mask)), ~mask[..., 0])
    assert np.array_equal(P.seen(np.ma.array(x.astype(int), mask=mask)), ~mask[..., 0])
    assert P.check_clip(torch.zeros(4, 75, 2, requires_grad=True)).shape == (4, 75, 2)
