"SignWorld as a corpus: the same bits everywhere, made on demand, drawn once."
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from signbook.core import InputError
from signbook.corpora import load_corpus
from signbook.audit import audit
from signbook.signworld import (SIZES, World, articulation_distance, at_home, clip_motions, draw_sentences, feature_stream, gloss_categories, gloss_names, look_alike_sentences, make_world,
                                phonological_distance, rendered, sentence_motions, signworld, world_fingerprint)

DIGEST = '''
import hashlib
from signbook.signworld import draw_sentences, make_world, signworld
isolated, continuous = signworld('smoke', seed=3)
h = hashlib.sha256()
for i in (0, 7, 100, 479): h.update(isolated.clips[i].tobytes())
for i in (0, 70, 95): h.update(continuous.poses[i].tobytes()); h.update(continuous.segments[i].tobytes())
h.update('|'.join(continuous.frame['text']).encode()); h.update(isolated.frame.to_csv().encode()); h.update(isolated.codes.tobytes())
h.update(draw_sentences(make_world(3), 5, 2)[0].tobytes())
print(h.hexdigest())
'''
BITS = 'c1665d2a6ec2f474530efe6c573fc92f0c0e025cca56f3c0d0fb78ac2f663562' # of every machine and version


def test_bitwise_the_same_across_processes_and_thread_counts():
    envs = ({'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'PYTHONHASHSEED': '1'}, {'OMP_NUM_THREADS': '3', 'OPENBLAS_NUM_THREADS': '3', 'PYTHONHASHSEED': '2'})
    found = {subprocess.run([sys.executable, '-c', DIGEST], env={**os.environ, **e}, capture_output=True, text=True, check=True).stdout for e in envs}
    assert found == {BITS + '\n'}


def test_order_of_asking_does_not_matter():
    a, b = signworld('smoke')[1], signworld('smoke')[1]
    for i in (95, 3, 64, 0): np.testing.assert_array_equal(a.poses[i], b.poses[i])
    np.testing.assert_array_equal(a.poses[63], signworld('smoke')[1].poses[63])


def test_another_seed_is_another_world():
    a, b = (signworld('smoke', seed=s) for s in (0, 1))
    assert a[0].card.sha256 != b[0].card.sha256 and list(a[1].frame['text']) != list(b[1].frame['text'])


def test_load_corpus_gives_the_pair_and_the_audit_finds_no_error():
    isolated, continuous = load_corpus('signworld', scale='smoke', joints='openhands27')
    assert isolated.joint_set == 'openhands27' and isolated.clips[0].shape[1:] == (27, 3)
    for corpus in load_corpus('signworld'): assert not [f for f in audit(corpus).problems if f.severity == 'error']
    with pytest.raises(InputError): load_corpus('signworld', scale='tiny')


@pytest.mark.parametrize('scale', ['smoke', 'cpu'])
def test_unseen_signers_are_in_test_alone(scale):
    f = signworld(scale)[0].frame
    train, test = set(f['signer'][f['split'] == 'train']), set(f['signer'][f['split'] == 'test'])
    assert test and not train & test
    if scale == 'cpu': assert f['signer'].nunique() >= 40 and f['signer'].value_counts().iloc[0] > 20*f['signer'].value_counts().iloc[-1]


def test_labels_agree_with_segments():
    isolated, continuous = signworld('smoke')
    for i in (0, 40, 95):
        assert ' '.join(continuous.gloss_ids[g] for g in continuous.segments[i][:, 0]) == continuous.frame['gloss'][i]
        assert continuous.segments[i][:, 1:].sum(1).max() <= len(continuous.poses[i]) == continuous.frame['frames'][i]


def test_a_long_stream_keeps_little_in_memory():
    code = '''
import resource
from itertools import islice
from signbook.signworld import make_world, stream
world = make_world(0, 'cpu'); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
for _ in islice(stream(world, 0, 500), 500): pass
before, frames = peak(), 0
for said, who, motion in stream(world, 0, 10000): frames += len(motion.pose)
print(frames, peak() - before)
'''
    frames, grown = map(int, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split())
    assert frames > 10**6 and grown < 200


def test_frames_are_drawn_once_and_whole(tmp_path, monkeypatch):
    world = make_world(0)
    a = rendered(world, 16, n=6, folder=tmp_path)
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    b = rendered(world, 16, n=6, folder=tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == files and len(a) == len(b) == 6
    np.testing.assert_array_equal(a[5], draw_sentences(world, 5, 1, 16)[0])
    import signbook.signworld as module
    monkeypatch.setattr(module, 'draw_sentences', lambda *a, **k: 1/0)
    with pytest.raises(ZeroDivisionError): rendered(world, 24, n=6, folder=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(files)


def test_features_have_their_shape():
    world, motions = make_world(0), sentence_motions(make_world(0))
    f = feature_stream(world, 0, motions[0], .5)
    assert f.shape == (len(motions[0].pose), 256) and f.dtype == np.float32
    with pytest.raises(InputError): feature_stream(world, 0, motions[0], 1.)


@pytest.mark.parametrize('density', [.3, .9])
def test_the_density_is_the_ratio_of_distances(density):
    world, motions = make_world(0), sentence_motions(make_world(0)); x, g = [], []
    for i in range(60):
        f = feature_stream(world, i, motions[i], density)
        for gloss, a, n in motions[i].segments.tolist(): x.append(f[a + n//2]); g.append(gloss)
    x, g = np.array(x), np.array(g); d = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (x**2).sum(1) - 2*x @ x.T, 0)); own = g[:, None] == g
    assert d[own & ~np.eye(len(g), dtype=bool)].mean()/d[~own].mean() == pytest.approx(density, abs=.02)


def test_truth():
    world = make_world(0)
    look, sound = articulation_distance(world), phonological_distance(world)
    assert look.shape == sound.shape == (60, 60) and np.allclose(look, look.T)
    alike = [look[i, j] for i, j, _ in world.lexicon.look_alikes]
    assert np.median(alike) < np.quantile(look[np.triu_indices(60, 1)], .05)
    found, pairs = list(look_alike_sentences(world, 0, 200)), {frozenset((i, j)) for i, j, _ in world.lexicon.look_alikes}
    assert found
    for _, position, a, b in found: assert [x != y for x, y in zip(a.gloss, b.gloss)] == [k == position for k in range(len(a.gloss))] and frozenset((a.gloss[position], b.gloss[position])) in pairs


def test_splits_of_sentences():
    frame, size = signworld('smoke')[1].frame, SIZES['smoke'].sentences
    assert tuple(frame['split'].value_counts()[['train', 'dev', 'test']]) == size and list(frame['split']) == ['train']*size[0] + ['dev']*size[1] + ['test']*size[2]


def test_blocks_are_the_same_after_they_were_forgotten():
    clips = clip_motions(make_world(0)); first = clips[3].pose.copy()
    for i in range(0, 480, 64): clips[i]
    assert len(clips.held) == clips.keep and 0 not in clips.held
    np.testing.assert_array_equal(clips[3].pose, first)


def test_a_fingerprint_names_seed_size_names_and_categories():
    names, kinds = gloss_names(40), gloss_categories(40)
    worlds = [World(0, 'smoke', names, kinds), World(1, 'smoke', names, kinds), World(0, replace(SIZES['smoke'], clips=481), names, kinds), World(0, 'smoke', names[::-1], kinds[::-1]), World(0, 'smoke', names), World(0, 'smoke', names, kinds[::-1]), World(0, 'smoke')]
    assert len({world_fingerprint(w) for w in worlds}) == len(worlds) and world_fingerprint(worlds[0]) == world_fingerprint(make_world(0))


def test_frames_are_named_by_their_looks(tmp_path):
    world = make_world(0); draw = lambda dress: np.array(rendered(world, 16, n=1, dress=dress, folder=tmp_path)[0])
    plain, red, home = draw(lambda l: l), draw(lambda l: replace(l, backdrop=(1., 0., 0.))), draw(partial(at_home))
    np.testing.assert_array_equal(plain, home)
    assert (plain != red).any() and len(list(tmp_path.glob('*px.every2.1.npy'))) == 2
    np.testing.assert_array_equal(draw(lambda l: replace(l, backdrop=(1., 0., 0.))), red)


def test_slices_of_frames(tmp_path):
    frames = rendered(make_world(0), 16, n=3, folder=tmp_path)
    assert [len(f) for f in frames[0:2]] == [len(frames[0]), len(frames[1])] and len(frames[5:]) == 0
