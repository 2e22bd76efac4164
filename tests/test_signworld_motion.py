"SignWorld's lexicon and motion: slow checks of the fast code, independence of batch and process, promises about bodies and rates."
import os, subprocess, sys
import numpy as np, pytest
import signbook.signworld as sw
from signbook.core import InputError
from signbook.phonology import FEATURES, feature_names
from signbook.pose import JOINT_SETS

HANDS = {'left': slice(33, 54), 'right': slice(54, 75)}

@pytest.fixture(scope='module')
def world(): return sw.World(0, 'cpu')

@pytest.fixture(scope='module')
def sentences():
    u = sw.draws(5, 'test sentences', np.arange(24), n=12); n = 1 + (u[:, 0]*9).astype(int)
    return [tuple((u[i, 1:1 + k]*120).astype(int)) for i, k in enumerate(n)]

def same(a, b):
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x, y, strict=True): np.testing.assert_array_equal(p, q)

# slow and obvious, in float64

def slow_spline(times, values, stop, t):
    "Cubic Hermite through (times, values) at t; slopes from the neighbours times stop, zero at both ends, ends hold."
    if t <= times[0]: return values[0]
    if t >= times[-1]: return values[-1]
    j = max(k for k in range(len(times) - 1) if times[k] <= t); dt = times[j + 1] - times[j]; u = (t - times[j])/dt
    slope = lambda k: 0. if k in (0, len(times) - 1) else stop[k]*(values[k + 1] - values[k - 1])/(times[k + 1] - times[k - 1])
    return (2*u**3 - 3*u**2 + 1)*values[j] + (u**3 - 2*u**2 + u)*dt*slope(j) + (3*u**2 - 2*u**3)*values[j + 1] + (u**3 - u**2)*dt*slope(j + 1)

def test_frames_are_splines_through_keys(world, sentences):
    signer, index = np.arange(24) % 9, np.arange(24)
    plan = sw.plan_sentences(world, sentences, signer, index); camera = np.tile([1., 0, 0], (24, 1))
    keys = sw.key_landmarks(world, plan, camera).astype(float); x, face, at = sw.perform(world, plan, True, camera)
    of_clip = plan.clip[plan.item]
    for c in (0, 7, 23):
        k = np.flatnonzero(of_clip == c); rows = x[at[c]:at[c + 1]]
        for t in range(0, len(rows), 3):
            slow = slow_spline(plan.when[k], keys[k].reshape(len(k), -1), plan.stop[k].astype(float), t).reshape(75, 3)
            np.testing.assert_allclose(rows[t, 11:], slow[11:], atol=2e-5)
            if not face[at[c] + t].any(): np.testing.assert_allclose(rows[t, :11], slow[:11], atol=2e-5)

def slow_keys(world, g, signer):
    "Landmarks of a sign's keys for a signer without token variation, one key and one joint at a time."
    k, s, G = world.keys, world.signers, world.size.glosses; out = []
    f = s.body[signer].astype(float); B = {c.name: c.value for c in sw.BODY_CONSTANTS}; S = {c.name: c.value for c in sw.SIGNER_CONSTANTS}
    upper, fore, size = B['upper_arm']*f[0], B['forearm']*f[1], B['hand']*f[2]
    nose = np.array([0, -.22*f[4], -.08]) + (np.array([0, -B['nose_height'], -.30]) - [0, -.22, -.08])*f[3]
    sd = [S['place_idiolect']]*3 + [S['amplitude_idiolect']] + [S['turn_idiolect']]*6
    own = np.array(sd)*sw.normals(world.seed, 'idiolect', signer, g, n=10)[0]; own += np.concatenate([s.place[signer], [s.amplitude[signer]], s.turn[signer].ravel()])
    for row in range(k.first[g], k.first[g + 1]):
        x = np.full((75, 3), np.nan); x[0] = nose
        for n, side in enumerate((-1, 1)): # dominant on the left of the picture
            w = k.anchor[row, n] + np.exp(own[3])*k.path[row, n] + k.head[row, n]*(nose - [0, -B['nose_height'], -.30])
            w = w + (own[:3] if k.active[row, n] else s.rest[signer]); w[2] = min(w[2], -.24)
            shoulder = np.array([-.5, 0, 0]); reach = w - shoulder; d = np.linalg.norm(reach); e = reach/d; d = min(max(d, .28*(upper + fore)), .985*(upper + fore)); w = shoulder + d*e
            up = np.clip((.35 - reach[1])/.7, 0, 1); pole = sw._POLES[0] + up*(sw._POLES[1] - sw._POLES[0]); across = pole - (pole @ e)*e; across /= np.linalg.norm(across)
            angle = np.arccos((upper**2 + d**2 - fore**2)/(2*upper*d)); elbow = shoulder + upper*(np.cos(angle)*e + np.sin(angle)*across)
            turn = k.turn[row, n].astype(float); turn = turn + np.cross(own[4 + 3*n:7 + 3*n], turn.T).T
            hand = k.hand[row, n].astype(float); hand = hand + s.lax[signer]*(k.hand[-1, 0] - hand) + s.shape[signer, k.shape[row, n]]
            points = np.array([w + size*(turn @ hand[:, j]) for j in range(21)]); flip = np.array([-side, 1, 1])
            x[14 - n], x[16 - n] = elbow*flip, w*flip; x[HANDS['right' if n == 0 else 'left']] = points*flip
        if s.left[signer]:
            m = x.copy(); m[[13, 15]], m[[14, 16]], m[33:54], m[54:] = x[[14, 16]], x[[13, 15]], x[54:], x[33:54]; x = m*[-1, 1, 1]
        out.append(x)
    return np.array(out)

def test_keys_match_slow_articulation(world):
    lefty = int(np.flatnonzero(world.signers.left)[0]); P = world.size.signers
    for g, signer in ((0, 0), (3, lefty), (11, 5), (40, 17), (77, lefty)):
        n = np.array([1]); plan = sw._with_keys(world, np.zeros(1, int), np.array([g]), np.zeros(1, int), 24*n, 24*n, np.array([signer]), np.array([0]), '', (0, 1), 0)
        two = world.keys.active[world.keys.first[g], 1]
        x, slow = sw.key_landmarks(world, plan, np.array([[1., 0, 0]])), slow_keys(world, g, signer)
        seen = np.isfinite(slow); np.testing.assert_allclose(x[seen], slow[seen], atol=3e-5, err_msg=f'{g} {signer} {two}')

def slow_finger(knuckle, bones, bend, spread):
    at, angle, out = np.array([*knuckle, 0.]), 0., [np.array([*knuckle, 0.])]
    for b, a in zip(bones, bend):
        angle += a; at = at + b*np.array([np.cos(angle)*np.sin(spread), np.cos(angle)*np.cos(spread), np.sin(angle)]); out.append(at)
    return np.array(out)

def test_fingers_bend_in_a_plane():
    rng = np.random.default_rng(0); bend, spread = rng.uniform(0, 1.5, (4, 3)), rng.uniform(-.4, .4, 4)
    slow = np.stack([slow_finger(sw._KNUCKLES[f], sw._BONES[f], bend[f], spread[f]) for f in range(4)])
    np.testing.assert_allclose(sw.finger_joints(bend, spread), slow, atol=1e-12)

# chance

def test_a_clip_does_not_depend_on_its_batch(world, sentences):
    signer, index = np.arange(24) % 41, 1000 + np.arange(24)
    together = sw.sentence_motion(world, sentences, signer, index)
    same(together, [sw.sentence_motion(world, [s], [p], [i])[0] for s, p, i in zip(sentences, signer, index)])
    order = np.arange(24)[::-1]; same(together, sw.sentence_motion(world, [sentences[i] for i in order], signer[order], index[order])[::-1])
    g = np.arange(300) % 240; many = sw.sign_clips(world, g, g % 41, np.arange(300)); same(many[200:260], sw.sign_clips(world, g[200:260], g[200:260] % 41, np.arange(200, 260)))

DIGEST = '''
import hashlib, numpy as np
from signbook.signworld import World, sentence_motion, sign_clips
w = World(3, 'smoke'); h = hashlib.sha256()
for m in sentence_motion(w, [(1, 2, 3), (5, 9), (30,)*7], [0, 4, 11], [0, 1, 2]) + sign_clips(w, np.arange(60), np.arange(60) % 12, np.arange(60)):
    for a in m: h.update(np.ascontiguousarray(a).tobytes())
print(h.hexdigest())
'''

def test_same_bytes_in_other_processes_and_with_other_threads():
    digest = lambda n: subprocess.run([sys.executable, '-c', DIGEST], env={**os.environ, 'OMP_NUM_THREADS': n, 'OPENBLAS_NUM_THREADS': n, 'PYTHONHASHSEED': n}, capture_output=True, text=True, check=True).stdout
    assert digest('1') == digest('4') != ''

def test_draws_are_uniform_and_streams_differ():
    u = sw.draws(0, 'x', np.arange(4000), n=3); v = sw.draws(0, 'y', np.arange(4000), n=3)
    assert abs(u.mean() - .5) < .01 and abs(np.corrcoef(u.ravel(), v.ravel())[0, 1]) < .03 and ((0 < u) & (u < 1)).all()
    assert not (sw.draws(1, 'x', np.arange(9)) == sw.draws(0, 'x', np.arange(9))).any()
    np.testing.assert_array_equal(sw.draws(0, 'x', [3], [4])[0], sw.draws(0, 'x', 3, [1, 4])[1])

def test_world_survives_pickling(world):
    import pickle
    made = {'lexicon', 'keys', 'tape', 'signers', 'bodies', 'key_counts'}
    for k in made: getattr(world, k)
    w = pickle.loads(pickle.dumps(world)); assert made <= world.__dict__.keys() and not made & w.__dict__.keys()
    same(sw.sign_clips(w, [1], [2], [3]), sw.sign_clips(world, [1], [2], [3]))

# lexicon

def test_lexicon_keeps_the_frequencies_of_its_statistics():
    stats = sw._packaged_statistics(); t = sw._tables(stats); codes = np.concatenate([sw.sample_codes(stats, 2723, s) for s in range(4)])
    for k, f in enumerate(FEATURES):
        counted = t[f.name][1].sum(0); counted = counted/counted.sum(); drawn = np.bincount(np.where(codes[:, k] < 0, len(f.values), codes[:, k]), minlength=len(f.values) + 1)/len(codes)
        assert np.abs(drawn - counted).max() < .02, f.name

def test_lexicon_shares_and_look_alikes():
    stats, shares = sw._packaged_statistics(), []
    for seed in range(3):
        lexicon = sw.make_lexicon(seed, [f'S{i}' for i in range(400)], [f'c{i % 20}' for i in range(400)])
        twin, repeats, pairs = sw._twins(lexicon.codes); shares.append((twin.mean(), repeats/400, len(np.unique(pairs))/400))
        for i, j, kind in lexicon.look_alikes:
            assert i < j and (lexicon.codes[i] != lexicon.codes[j]).sum() == (kind == 'subtle') and (lexicon.nonmanual[i] != lexicon.nonmanual[j]) == (kind == 'non-manual') and (lexicon.manner[i] == lexicon.manner[j]).all()
        assert {k for *_, k in lexicon.look_alikes} == {'subtle', 'non-manual'}
        assert all((lexicon.codes[i] != lexicon.codes[j]).sum() == 1 for i, j in lexicon.minimal_pairs)
        whole = np.concatenate([lexicon.codes, lexicon.manner[:, :1], lexicon.nonmanual[:, None]], 1); assert len(np.unique(whole, axis=0)) == 400
    np.testing.assert_allclose(np.mean(shares, 0), [stats['twin_share'], stats['repeat_share'], stats['minimal_pair_share']], atol=.08)

def test_signs_do_not_depend_on_how_many_follow():
    a, b = sw.make_lexicon(0, ['']*80), sw.make_lexicon(0, ['']*40)
    np.testing.assert_array_equal(a.codes[:40], b.codes); np.testing.assert_array_equal(a.manner[:40], b.manner)

# bodies

def test_every_sign_of_a_large_lexicon_can_be_signed():
    w = sw.World(1, sw.Size('large', 900, 100, 10, 12, 3, (1, 1, 1))); x, face = sw.articulate(w, np.arange(900), 12)
    assert x.dtype == np.float32 and np.isfinite(x).all() and np.abs(x[:, :, 33:]).max() < 2.6
    d = sw.articulation_distance(w); np.fill_diagonal(d, 9); assert d.min() > .002
    forearm = np.linalg.norm(x[:, :, 14] - x[:, :, 16], axis=-1); assert .45 < forearm.min() and forearm.max() < .85

def test_left_handed_signers_are_mirrored(world):
    P = world.size.signers; lefty = int(np.flatnonzero(world.signers.left)[0]); right = int(np.flatnonzero(~world.signers.left[:P])[0])
    one = [g for g in range(240) if not world.keys.active[world.keys.first[g], 1]][:6]
    for signer, hand in ((right, 'right'), (lefty, 'left')):
        for m in sw.sign_clips(world, one, [signer]*6, np.arange(6), clean=True):
            _, a, n = m.segments[0]; top = {h: m.pose[a:a + n, s.start, 1].min() for h, s in HANDS.items()}
            assert top[hand] == min(top.values())

def test_segments_lie_in_their_clip_and_touch(world, sentences):
    for s, m in zip(sentences, sw.sentence_motion(world, sentences, np.zeros(24, int), np.arange(24))):
        g, a, n = m.segments.T; assert tuple(g) == s and a[0] >= 0 and (a[1:] >= (a + n)[:-1]).all() and a[-1] + n[-1] <= len(m.pose) == len(m.face) and n.min() >= 4
    for m in sw.sign_clips(world, np.arange(50), np.zeros(50, int), np.arange(50)): assert m.segments.shape == (1, 3) and 0 <= m.segments[0, 1] and m.segments[0, 1:].sum() <= len(m.pose)

def test_keys_lie_in_the_segment_of_their_sign(world, sentences):
    index, G = np.arange(24), world.size.glosses; gloss, signer, _ = sw.isolated_labels(world, np.arange(60))
    for plan, (lo, hi) in ((sw.plan_sentences(world, sentences, index, index), (.26, .88)), (sw.plan_clips(world, gloss, signer, np.arange(60)), (.04, .96))):
        sign = plan.gloss[plan.item] < G; start, length = plan.start[plan.item][sign], plan.length[plan.item][sign]; share = (plan.when[sign] - start)/length
        assert (share >= lo - 1e-3).all() and (share <= hi + 1e-3).all()
        first = np.r_[True, np.diff(plan.item[sign]) > 0]; last = np.r_[first[1:], True]
        np.testing.assert_allclose(share[first], lo, atol=2e-3); np.testing.assert_allclose(share[last], hi, atol=2e-3)
        for m, c in zip(sw._motions(world, plan, True), range(len(plan.frames))): np.testing.assert_array_equal(m.segments, np.stack([plan.gloss, plan.start, plan.length], 1)[(plan.clip == c) & (plan.gloss < G)])

def test_a_marker_lies_in_its_segment(world):
    marked = np.flatnonzero(world.lexicon.nonmanual)[:12]
    for m in sw.sign_clips(world, marked, np.zeros(12, int), np.arange(12), clean=True):
        _, a, n = m.segments[0]; on = np.flatnonzero(m.face.any(1)); assert len(on) and a - 2 <= on[0] and on[-1] <= a + n + 1
    plain = np.flatnonzero(world.lexicon.nonmanual == 0)[:12]
    assert not any(m.face.any() for m in sw.sign_clips(world, plain, np.zeros(12, int), np.arange(12)))

def test_one_clip_in_eight_begins_or_ends_on_the_way(world):
    plan = sw.plan_clips(world, *sw.isolated_labels(world, np.arange(8000))[:2], np.arange(8000)); rest = plan.start[plan.gloss == world.size.glosses].reshape(-1, 2)
    assert .10 < ((rest[:, 0] < 0) | (rest[:, 1] >= plan.frames)).mean() < .15

def test_bones_in_sentences(world):
    u = sw.draws(0, 'bones', np.arange(100), n=8); i = np.arange(100); plan = sw.plan_sentences(world, (u*120).astype(int), i % 41, i); camera = np.tile([1., 0, 0], (100, 1))
    x, _, at = sw.perform(world, plan, True, camera); own = world.bodies[2][np.repeat(i % 41, np.diff(at))]; keys, who = sw.key_landmarks(world, plan, camera), plan.signer[plan.clip][plan.item]
    for k, ends in enumerate((((11, 13), (12, 14)), ((13, 15), (14, 16)))):
        for a, b in ends:
            d = np.linalg.norm(x[:, a] - x[:, b], axis=-1)/own[:, k]; assert .3 < d.min() and np.quantile(d, .05) > .85 and d.max() < 1.1
            np.testing.assert_allclose(np.linalg.norm(keys[:, a] - keys[:, b], axis=-1), world.bodies[2][who, k], rtol=1e-4)

# the estimator

def test_hands_are_lost_by_speed_in_runs_and_below_the_picture(world):
    N = {c.name: c.value for c in sw.NOISE_CONSTANTS}; n, T = 400, 100; i = np.arange(n)
    plan = sw.plan_sentences(world, [(1,)]*n, np.zeros(n, int), i); clip, t = np.repeat(i, T), np.tile(np.arange(T), n); x = np.zeros((n*T, 75, 3), np.float32)
    x[:, 33:54, 1] = .5; x[:, 54:, 1] = 1.01; x[:, 33:54, 0] = .36*.1*t[:, None] # a tenth of a shoulder width a frame; the right hand below
    lost = sw._lost(world, plan, clip, t, x, np.full(n, .36)); assert lost[:, 1].all()
    left = lost[:, 0].reshape(n, T); onset = N['lost_still'] + .1*N['lost_speed']
    assert left[:, 0].mean() < .03 # the first frame has no speed
    run = N['lost_frames']; covered = 1 - np.prod([1 - onset*(1 - 1/run)**k for k in range(12)])
    assert left[:, 20:].mean() == pytest.approx(covered, abs=.01)
    x[:, 33:54, 0] = 5*t[:, None]; fast = sw._lost(world, plan, clip, t, x, np.full(n, .36))[:, 0].reshape(n, T)
    assert fast[:, 1].mean() == pytest.approx(N['lost_most'], abs=.08)

def test_neighbours_pull_at_each_other(world):
    G = world.size.glosses; plan = sw.plan_sentences(world, [(3, 4)], [0], [0]); x = np.zeros((len(plan.key), 1)); before = [plan.gloss[i] for i in plan.item]
    x[np.array(before) == 4] = 1.; sw._coarticulate(plan, G, x); T = {c.name: c.value for c in sw.TIME_CONSTANTS}
    a, b = (np.flatnonzero(np.array(before) == g) for g in (3, 4)); pull = [T['undershoot']*np.clip(T['segment_median']/plan.length[plan.gloss == g][0], .5, 2) for g in (3, 4)]
    np.testing.assert_allclose((x[a[-1], 0], x[b[0], 0]), (pull[0], 1 - pull[1]), atol=1e-6); x[a[-1]], x[b[0]] = 0, 1
    assert (x[a] == 0).all() and (x[b] == 1).all()

def test_edges_pauses_and_cameras(world):
    T, N = ({c.name: c.value for c in t} for t in (sw.TIME_CONSTANTS, sw.NOISE_CONSTANTS)); i = np.arange(20000); edge = sw._edges(world, i, 'test'); pause = sw._pauses(world, i, i, np.zeros(20000, int), 'test')
    for x, k in ((edge, 'edge'), (pause, 'pause')): assert (x > 0).mean() == pytest.approx(T[f'{k}_share'], abs=.01) and x[x > 0].mean() == pytest.approx(T[f'{k}_mean'] + .5, rel=.06)
    plan = sw.plan_clips(world, np.zeros(3000, int), np.zeros(3000, int), np.arange(3000)); camera, scale, row = sw._cameras(world, plan)
    np.testing.assert_allclose(camera.mean(0), [N['scale'], *N['centre']], atol=.003); np.testing.assert_allclose(camera.std(0), [N['scale_sd'], N['centre_sd'], N['centre_sd']], rtol=.06)
    assert np.log(scale/camera[:, 0]).std() == pytest.approx(N['quality'], rel=.06) and row.min() >= 0 and (row + plan.frames <= 2048).all()

def test_an_idle_hand_stays_up_beside_two_handed_signs(world):
    two = world.keys.active[world.keys.first[:-1], 1]; one, both = int(np.flatnonzero(~two[:-1])[0]), int(np.flatnonzero(two[:-1])[0]); shift = world.bodies[1]
    def left(signs):
        plan = sw.plan_sentences(world, [signs], [41], [0]); token = np.zeros((len(plan.gloss), 10), np.float32)
        return sw._wrists(world, plan, token, shift)[np.flatnonzero(plan.item == 2), 1, 1].min()
    high, half, low = left((both, one, both)), left((both, one, one)), left((one, one, one)); assert high < half < low and low - half == pytest.approx(half - high, abs=1e-5)

def test_time_follows_the_published_statistics(world):
    s = [tuple((r*120).astype(int)) for r in sw.draws(0, 'time', np.arange(400), n=8)]; ms = sw.sentence_motion(world, s, np.arange(400) % 9, np.arange(400))
    n = np.concatenate([m.segments[:, 2] for m in ms]); assert 12 < n.mean() < 14.2 and abs(np.median(n) - 11) <= 1 and 7 <= np.bincount(n).argmax() <= 10
    assert 105 < np.mean([len(m.pose) for m in ms]) < 130
    clips = sw.sign_clips(world, np.arange(1000) % 240, np.arange(1000) % 41, np.arange(1000)); T = np.array([len(m.pose) for m in clips])/25*1000
    np.testing.assert_allclose(np.percentile(T, [10, 50, 90]), [1220, 1936, 3250], rtol=.1)
    hand = np.concatenate([np.isfinite(m.pose[:, [33, 54], 0]).any(1) for m in clips]); assert .45 < 1 - hand.mean() < .7

def test_truth_has_no_gaps_and_estimates_have(world, sentences):
    index = np.arange(24); true, seen = (sw.sentence_motion(world, sentences, index, index, clean=c) for c in (True, False))
    lost = 0
    for a, b in zip(true, seen):
        assert np.isfinite(a.pose).all() and a.pose.shape == b.pose.shape; np.testing.assert_array_equal(a.face, b.face); np.testing.assert_array_equal(a.segments, b.segments)
        ok = np.isfinite(b.pose); lost += (~ok[:, 33:]).mean(); assert np.abs(a.pose - b.pose)[..., :2][ok[..., :2]].max() < .12
        for h in HANDS.values(): assert (ok[:, h].all((1, 2)) == ok[:, h].any((1, 2))).all()
    assert .03 < lost/24 < .6

def test_markers_move_face_and_head(world):
    kinds = world.lexicon.nonmanual; rest = sw.articulate(world, [int(np.flatnonzero(kinds == 0)[0])])[1]; assert not rest.any()
    for k in range(1, 6): assert np.abs(sw.articulate(world, [int(np.flatnonzero(kinds == k)[0])])[1]).max() > .1

def test_signers_and_labels(world):
    s = world.signers; P = world.size.signers
    assert len(s.weight) == P + 1 and s.unseen.sum() == 9 and abs(s.weight[s.unseen].sum() - .2) < .02 and s.weight[P] == 0
    top = np.sort(s.weight[:P])[::-1]; assert abs(top[:10].sum() - .58) < .01 and 300 < top[0]/top[-1] < 360
    gloss, signer, split = sw.isolated_labels(world, np.arange(8000)); assert np.ptp(np.bincount(gloss)) <= 1
    assert not set(signer[split == 'test']) & set(signer[split != 'test'])
    np.testing.assert_allclose([(split == k).mean() for k in ('train', 'dev', 'test')], [.6, .2, .2], atol=.03)

@pytest.mark.parametrize('call, says', [
    (lambda w: sw.World(0, 'big'), 'size'), (lambda w: sw.sign_clips(w, [], [], []), 'at least one'), (lambda w: sw.sign_clips(w, [-1], [0], [0]), 'gloss'),
    (lambda w: sw.sign_clips(w, [1.5], [0], [0]), 'gloss'), (lambda w: sw.sign_clips(w, [1], [42], [0]), 'signer'), (lambda w: sw.sentence_motion(w, [(1, 2), ()], [0, 0], [0, 1]), 'at least one sign'),
    (lambda w: sw.sentence_motion(w, [(1, 240)], [0], [0]), 'gloss'), (lambda w: sw.sentence_motion(w, [(1,)], [0], [0, 1]), 'index'), (lambda w: sw.articulate(w, []), 'at least one'),
    (lambda w: sw.articulate(w, [1.5]), 'gloss'), (lambda w: sw.articulate(w, [1], 0), 'frames'), (lambda w: sw.articulate(w, [1], 1), 'frames'), (lambda w: sw.sign_clips(w, [1], [0], [.5]), 'index'), (lambda w: sw.sign_clips(w, 1, 0, 0), 'gloss'),
    (lambda w: sw.perform(w, sw.plan_clips(w, [1], [0], [0]), camera=np.ones((1, 3))), 'clean'), (lambda w: sw.hand_shape('1', 'i', 'Wobbly', 'N/A', 'Open', '0'), 'flexion'), (lambda w: sw.number_words(-1), 'number_words'), (lambda w: sw.number_words(40), '0 to 39'),
    (lambda w: sw.draw_sentences(w, 0, 1, every=0), 'every'), (lambda w: sw.draw_sentences(w, 0, 1, every=-1), 'every'), (lambda w: sw.draw_sentences(w, 0, 0), 'count'), (lambda w: sw.rendered(w, every=0), 'every'), (lambda w: sw.rendered(w, n=0), 'n: '),
    (lambda w: sw.Size('x', 60, 40, 1, 12, 3, (4, 1)), 'sentences'), (lambda w: sw.Size('x', 60, 40, -1, 12, 3, (1, 1, 1)), 'clips'), (lambda w: sw.Size('x', 60, 40, 1, 12, 3, (0, 0, 0)), 'sentences'), (lambda w: sw.make_world(0, sw.Size('x', 600, 400, 1, 12, 3, (1, 1, 1))), 'concepts'),
    (lambda w: sw.signworld('smoke', joints='kinect20'), 'kinect20'), (lambda w: sw.sentence_statistics([sw.sentence(0, 0)], []), 'test')])
def test_bad_input_is_one_line(world, call, says):
    with pytest.raises(InputError, match=says) as e: call(world)
    assert '\n' not in str(e.value)
