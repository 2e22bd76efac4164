"SignWorld as a corpus: the same bits everywhere, made on demand, drawn once."
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from signbook.core import InputError
from signbook.corpora import load_corpus
from signbook.audit import audit
from signbook.signworld import articulation_distance, draw_sentences, feature_stream, look_alike_sentences, make_world, phonological_distance, rendered, sentence_motions, signworld, stream

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


def test_bitwise_the_same_across_processes_and_thread_counts():
    envs = ({'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'PYTHONHASHSEED': '1'}, {'OMP_NUM_THREADS': '3', 'OPENBLAS_NUM_THREADS': '3', 'PYTHONHASHSEED': '2'})
    found = {subprocess.run([sys.executable, '-c', DIGEST], env={**os.environ, **e}, capture_output=True, text=True, check=True).stdout for e in envs}
    assert len(found) == 1


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


def test_features_have_the_density_asked_for():
    world, motions = make_world(0), sentence_motions(make_world(0))
    f = feature_stream(world, 0, motions[0], .5)
    assert f.shape == (len(motions[0].pose), 256) and f.dtype == np.float32
    with pytest.raises(InputError): feature_stream(world, 0, motions[0], 1.)


def test_truth():
    world = make_world(0)
    look, sound = articulation_distance(world), phonological_distance(world)
    assert look.shape == sound.shape == (60, 60) and np.allclose(look, look.T)
    alike = [look[i, j] for i, j, _ in world.lexicon.look_alikes]
    assert np.median(alike) < np.quantile(look[np.triu_indices(60, 1)], .05)
    for _, position, a, b in look_alike_sentences(world, 0, 200): assert [x != y for x, y in zip(a.gloss, b.gloss)] == [k == position for k in range(len(a.gloss))]
