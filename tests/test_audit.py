"Every check of the audit finds what is planted for it, with the right count and example, and nothing else; a clean corpus has no problem."
import json
import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from signbook.audit import CHECKS, SEVERITIES, THRESHOLDS, Audit, audit, audit_text, best_order, block_orders, nearest_clips, plot_audit, similar_texts, text_key
from signbook.core import InputError, plain
from signbook.corpora import Card, ContinuousCorpus, CorpusError, IsolatedCorpus, Lazy
from signbook.metrics import wer
from signbook.pose import joint_set, select

PLACE = {'neck': (0, .55), 'head': (0, 0), 'nose': (0, 0), 'mouth': (.08, .15), 'eye': (.1, -.08), 'ear': (.2, 0), 'shoulder': (.5, .6), 'elbow': (.7, 1.2), 'wrist': (.5, 1.7), 'mid_hip': (0, 1.9), 'spine_base': (0, 1.8), 'spine_mid': (0, 1.2),
         'hip': (.3, 1.9), 'knee': (.3, 2.8), 'ankle': (.3, 3.7), 'heel': (.3, 3.8), 'toe': (.35, 3.9), 'foot': (.35, 3.9), 'pinky': (.5, 1.8), 'index': (.5, 1.8), 'thumb': (.5, 1.8), 'hand': (.5, 1.8)}


def skeleton(name):
    "Places (V, 2) of a person standing upright, for any named joint set; each line of the face is a small oval."
    js, rng = joint_set(name), np.random.default_rng(5)
    place, near = rng.uniform(-.2, .2, (len(js), 2)), {i: [] for i in js.parts.get('face', ())}
    side = lambda n: -1 if 'right' in n else 1
    for p in ('body', 'world'):
        for i in js.parts.get(p, ()): place[i] = np.array(next(v for k, v in PLACE.items() if k in js.joints[i])) * (side(js.joints[i]), 1)
    for s in ('left_hand', 'right_hand'):
        for k, i in enumerate(js.parts.get(s, ())):
            finger, joint, n = (k - 1)//4 if len(js.parts[s]) == 21 else (k + 1)//2, (k - 1) % 4 if len(js.parts[s]) == 21 else 2*(k % 2 == 0), side(s)
            place[i] = np.array([n*.5, 1.7]) + ((.12 + .07*joint)*np.array([np.sin(.3*(finger - 2)), 1]) if k else 0)
    for a, b in js.edges:
        if a in near and b in near: near[a].append(b); near[b].append(a)
    seen = set()
    for i in near:
        if i in seen or not near[i]: continue
        walk = [i]; seen.add(i)
        while (step := next((j for j in near[walk[-1]] if j not in seen), None)) is not None: walk.append(step); seen.add(step)
        turn = np.linspace(0, 2*np.pi, len(walk))[:, None]
        place[walk] = rng.uniform(-.15, .15, 2) + .04*np.hstack([np.cos(turn), np.sin(turn)])
    return place


def clip(seed, js='mediapipe75', T=None):
    "A clip (T, V, 2) float32 whose arms move."
    rng = np.random.default_rng(seed); T = T or int(rng.integers(30, 50)); s = joint_set(js)
    x = np.repeat(skeleton(js)[None], T, 0) + rng.normal(0, .01, (len(s), 2))
    t = np.linspace(0, 1, T)[:, None, None]
    for side in ('left', 'right'):
        a, b, c = rng.uniform(-.4, .4, (3, 1, 2)); path = a*(1 - t) + b*t + c*np.sin(np.pi*t*2)
        x[:, [i for n, i in s.at.items() if n.startswith(side) and ('hand' in n or n.endswith('_wrist')) or n == f'{side}_wrist']] += path
    return (x*100 + 300 + rng.normal(0, .4, x.shape)).astype(np.float32)


def isolated(js='mediapipe75', glosses=5, **more):
    "Clean: train S0 to S5, val S6, test S7."
    rows = [dict(name=f'c{g}_{s}', gloss=f'sign{g}', signer=f'S{s}', split={6: 'val', 7: 'test'}.get(s, 'train')) for g in range(glosses) for s in range(8)]
    return IsolatedCorpus(Card('toy'), pd.DataFrame(rows), [clip(i, js) for i in range(len(rows))], joint_set=js, fps=25., **more)


def continuous(**more):
    "Clean, without clips: 40 train, 10 dev, 10 test."
    rng = np.random.default_rng(3); rows = []
    words = [''.join(rng.choice(list('abcdefghijklmnopqrstuvwxyz'), 7)) for _ in range(60)]
    for split, n, signer in (('train', 40, 'A'), ('dev', 10, 'B'), ('test', 10, 'C')):
        for _ in range(n):
            said = list(rng.choice(words, rng.integers(5, 9), replace=False))
            rows.append(dict(name=f'{split}/v{len(rows):02d}', text=' '.join(said), gloss=' '.join(said).upper(), signer=signer, split=split, frames=int(rng.integers(14, 18))*len(said)))
    return ContinuousCorpus(Card('talk'), pd.DataFrame(rows), **more)


CLEAN, TALK = isolated(), continuous()


def change(corpus, clips=(), rows=(), **more):
    frame, new = corpus.frame.copy(), None if not hasattr(corpus, 'clips') else list(corpus.clips)
    for i, x in dict(clips).items(): new[i] = x
    for i, r in dict(rows).items(): frame.loc[i, list(r)] = list(r.values())
    return replace(corpus, frame=frame, **({'clips': new} if new is not None else {}), **more)


def edited(i, edit):
    x = CLEAN.clips[i].copy(); x = edit(x) if (y := edit(x)) is None else y
    return x


def put(where, value):
    def edit(x): x[where] = value; return x
    return edit


def test_clean_corpora_have_no_problems():
    for corpus in (CLEAN, TALK, continuous(segments=[np.array([[0, 0, 5]])]*60)):
        a = audit(corpus)
        assert a.problems == (), audit_text(a)
        assert {f.check for f in a.findings} == set(CHECKS)
    assert audit(CLEAN, against=CLEAN).problems == () and audit(TALK, against=TALK).problems == ()


SWAPPED = np.array([*range(33), *range(54, 75), *range(33, 54)])
x0 = CLEAN.clips[0]

PLANTED = {
    'repeated names': (change(CLEAN, rows={1: {'name': 'c0_0'}}), 'warning', 1, 40, 'c0_0'),
    'clips in two splits': (change(CLEAN, rows={7: {'name': 'c0_0'}}), 'error', 1, 39, 'c0_0'),
    'clips in two splits: contents': (change(CLEAN, {7: x0}), 'error', 1, 40, 'train/c0_0 = test/c0_7'),
    'shared signers': (change(CLEAN, rows={7: {'signer': 'S2'}, 14: {'signer': 'S7'}}), 'warning', 1, 2, 'S2'),
    'several glosses': (change(CLEAN, rows={9: {'name': 'c0_0'}}), 'warning', 1, 39, 'c0_0: sign0 | sign1'),
    'several glosses: contents': (change(CLEAN, {9: x0}), 'warning', 1, 40, 'c0_0 sign0 = c1_1 sign1'),
    'classes absent from train': (change(CLEAN, rows={7: {'gloss': 'new'}}), 'warning', 1, 5, 'new x1'),
    'empty labels': (change(CLEAN, rows={3: {'gloss': ''}}), 'warning', 1, 40, 'c0_3'),
    'label distribution': (change(CLEAN, rows={3: {'gloss': 'once'}}), 'warning', 1, 6, 'once'),
    'durations': (change(CLEAN, {5: clip(5, T=400)}), 'warning', 1, 40, 'c0_5: 400'),
    'zero frames': (change(CLEAN, {5: x0[:0]}), 'error', 1, 40, 'c0_5'),
    'unreadable clips': (change(CLEAN, {5: x0[:, :74]}), 'error', 1, 40, 'c0_5: shape'),
    'infinite coordinates': (change(CLEAN, {5: edited(5, put((3, 15, 0), np.inf))}), 'error', 1, 40, 'c0_5: 1'),
    'absurd coordinates': (change(CLEAN, {5: edited(5, put((3, 15, 0), 1e6))}), 'error', 1, 40, 'c0_5'),
    'absurd coordinates: scale': (change(CLEAN, {5: CLEAN.clips[5]*1000}), 'error', 1, 40, 'c0_5'),
    'missing keypoints': (change(CLEAN, {i: edited(i, put((slice(None), slice(33, 54)), np.nan)) for i in range(30)}), 'warning', 30, 40, None),
    'missing keypoints: all': (change(CLEAN, {5: x0*np.nan}), 'error', 1, 40, 'c0_5'),
    'zeros for missing': (change(CLEAN, {5: edited(5, put((slice(4, 9), slice(33, 54)), 0))}), 'warning', 1, 40, 'c0_5: left_hand_wrist and 20 more'),
    'zeros for missing: in every clip': (replace(CLEAN, clips=[edited(i, put((slice(4), slice(33, 54)), 0)) for i in range(40)]), 'warning', 40, 40, 'c0_0: left_hand_wrist and 20 more'),
    'zeros for missing: throughout': (change(CLEAN, {5: edited(5, put((slice(None), slice(33, 54)), 0))}), 'warning', 1, 40, 'c0_5: left_hand_wrist and 20 more'),
    'durations: milliseconds': (replace(CLEAN, clips=None, frame=CLEAN.frame.assign(duration_ms=[1936.]*39 + [90000.])), 'warning', 1, 40, 'c4_7: 90000'),
    'constant clips': (change(CLEAN, {5: np.repeat(x0[:1], 30, 0)}), 'warning', 1, 40, 'c0_5'),
    'frozen frames': (change(CLEAN, {5: edited(5, put(slice(3, 23), x0[3]))}), 'warning', 1, 40, 'c0_5: 20 of'),
    'constant joints': (change(CLEAN, {5: edited(5, put((slice(None), 54), 7))}), 'warning', 1, 40, 'c0_5: right_hand_wrist'),
    'frames against clips': (replace(CLEAN, frame=CLEAN.frame.assign(frames=[len(x) + (i == 6) for i, x in enumerate(CLEAN.clips)])), 'warning', 1, 40, 'c0_6'),
    'exact duplicates': (change(CLEAN, {1: x0, 2: x0}), 'warning', 2, 40, 'train/c0_0 = train/c0_1 = train/c0_2'),
    'near duplicates': (change(CLEAN, {1: (x0*.5 + 40 + np.random.default_rng(0).normal(0, .2, x0.shape)).astype(np.float32)}), 'warning', 2, 40, 'c0_0 ~ c0_1'),
    'near duplicates: splits': (change(CLEAN, {7: np.repeat(x0, 2, 0) + 5}), 'error', 2, 40, 'c0_0 ~ c0_7'),
    'landmark order': (replace(CLEAN, clips=[x[:, SWAPPED] for x in CLEAN.clips]), 'error', 40, 40, 'c0_0'),
    'landmark order: of some': (change(CLEAN, {i: CLEAN.clips[i][:, SWAPPED] for i in range(16)}), 'warning', 16, 40, 'c0_0: body, right_hand, left_hand'),
    'landmark order: blocks': (replace(CLEAN, clips=[np.roll(x, 42, 1) for x in CLEAN.clips]), 'error', 40, 40, 'c0_0'),
    'landmark order: upside down': (replace(CLEAN, clips=[-x for x in CLEAN.clips]), 'error', 40, 40, 'c0_0'),
    'empty texts': (change(TALK, rows={50: {'text': ' .'}}), 'warning', 1, 60, 'test/v50'),
    'repeated texts': (change(TALK, rows={51: {'text': TALK.frame['text'][50].upper() + '.'}}), 'warning', 1, 10, 'x2'),
    'texts in two splits': (change(TALK, rows={50: {'text': TALK.frame['text'][3]}}), 'warning', 1, 10, 'test/v50'),
    'similar texts': (change(TALK, rows={3: {'text': 'im norden regnet es den ganzen tag und auch im osten'}, 50: {'text': 'im norden regnet es den ganzen tag und auch im westen'}}), 'warning', 1, 10, 'test/v50'),
    'labels against frames': (change(TALK, rows={50: {'frames': 2}}), 'error', 1, 60, 'test/v50'),
    'labels against frames: outlier': (change(TALK, rows={50: {'frames': 4000}}), 'warning', 1, 60, 'test/v50'),
    'segments': (continuous(segments=[np.array([[0, 0, 5 + 10000*(i == 4)]]) for i in range(60)]), 'error', 1, 60, 'train/v04'),
    'segments: ids': (continuous(segments=[np.array([[0, 0, 5], [7*(i == 4), 5, 5]]) for i in range(60)], gloss_ids={0: 'A'}), 'note', 1, 60, 'train/v04'),
    'zero frames: labels': (change(TALK, rows={50: {'frames': 0}}), 'error', 1, 60, 'test/v50'),
    'durations: labels': (change(TALK, rows={50: {'frames': 4000}}), 'warning', 1, 60, 'test/v50: 4000'),
    'several glosses: texts': (change(TALK, rows={1: {'name': 'train/v00'}}), 'warning', 1, 59, 'train/v00'[6:]),
    'clips in two splits: prefix': (change(TALK, rows={50: {'name': 'test/v00'}}), 'error', 1, 59, 'v00'),
}


@pytest.mark.parametrize('case', PLANTED)
def test_planted(case):
    corpus, severity, count, of, example = PLANTED[case]
    a = audit(corpus); found = [f for f in a.of(case.split(':')[0]) if (f.severity, f.count, f.of) == (severity, count, of)]
    assert found, audit_text(a)
    assert example is None or any(example in e for f in found for e in f.examples), found


def test_hands_written_as_zeros_are_not_taken_for_another_order():
    clips = [edited(i, put((slice(None), slice(33, 54 if i % 3 else 75)), 0)) for i in range(40)]
    clips[0] = CLEAN.clips[0]
    a = audit(replace(CLEAN, clips=clips))
    assert a.of('landmark order')[0].severity == 'ok' and a.of('zeros for missing')[0].count == 39, audit_text(a)


def test_every_check_is_planted():
    assert {c.split(':')[0] for c in PLANTED} | {'other copy'} == set(CHECKS)


def test_nothing_else_is_found():
    "One planted defect raises the checks it must, and no others."
    also = {'clips in two splits': {'repeated names', 'clips in two splits'},
            'infinite coordinates': {'infinite coordinates'}, 'constant joints': {'constant joints'}, 'frozen frames': {'frozen frames'}, 'durations': {'durations'}, 'empty labels': {'empty labels'},
            'shared signers': {'shared signers'}, 'near duplicates': {'near duplicates'}, 'exact duplicates': {'exact duplicates'}, 'unreadable clips': {'unreadable clips'}, 'zero frames': {'zero frames'},
            'landmark order': {'landmark order'}, 'repeated texts': {'repeated texts'}, 'texts in two splits': {'texts in two splits'}, 'similar texts': {'similar texts'}, 'segments': {'segments'}, 'frames against clips': {'frames against clips'}}
    for case, checks in also.items():
        assert {f.check for f in audit(PLANTED[case][0]).problems} == checks, (case, audit_text(audit(PLANTED[case][0])))


def test_face_first():
    "Sem-Lex stores the face first; read as body first, 553 landmarks have the right shape and the wrong names."
    right = isolated('mediapipe553')
    assert audit(right).of('landmark order')[0].severity == 'ok', audit_text(audit(right))
    found, = audit(replace(right, joint_set='mediapipe553_pose_first')).of('landmark order')
    assert (found.severity, found.count, found.of) == ('error', 40, 40) and found.message.endswith('face, body, left_hand, right_hand, as in mediapipe553')
    back = replace(right, clips=[select(x, 'mediapipe553', 'mediapipe553_pose_first') for x in right.clips], joint_set='mediapipe553_pose_first')
    assert audit(back).of('landmark order')[0].severity == 'ok'


def test_face_first_on_real_letters(real):
    from signbook.pose import read_pose
    files = sorted((real / 'fingerspelling').glob('**/*.pose'))[:12]
    x = [select(read_pose(f).clip, 'mediapipe586', 'mediapipe553') for f in files]
    corpus = IsolatedCorpus(Card('letters'), pd.DataFrame(dict(name=[f.stem for f in files], gloss='', signer='', split='')), x, joint_set='mediapipe553')
    assert audit(corpus).of('landmark order')[0].severity == 'ok'
    found, = audit(replace(corpus, joint_set='mediapipe553_pose_first')).of('landmark order')
    assert (found.severity, found.count) == ('error', 12) and 'as in mediapipe553' in found.message


@pytest.mark.parametrize('name', ['mediapipe75', 'mediapipe543', 'mediapipe553', 'mediapipe586', 'body25_hands', 'openpose137', 'coco_wholebody133', 'samslr27', 'kinect20'])
def test_the_claimed_order_does_not_lose(name):
    js = joint_set(name); frames = np.stack([clip(i, name)[10] for i in range(30)])
    assert best_order(frames, js)[0] == tuple(p for p in js.parts if p != 'world')


def test_every_index_of_block_orders_is_a_permutation():
    for name in ('mediapipe75', 'mediapipe586', 'kinect20'):
        for _, index in block_orders(joint_set(name)): assert sorted(index) == list(range(len(joint_set(name))))


def test_copies():
    frame = TALK.frame.copy(); dev = frame['split'] == 'dev'
    frame.loc[dev, 'gloss'] = frame.loc[dev, 'gloss'].map(lambda g: 'ADDED ' + ' '.join(g.split()[:-1]))
    frame.loc[0, 'text'] += ' .'; frame.loc[1, 'text'] = 'etwas anderes'; frame.loc[2, 'frames'] += 1; frame.loc[3, 'signer'] = 'Z'; frame.loc[4, 'split'] = 'test'
    other = replace(TALK, card=Card('first'), frame=TALK.frame.drop(index=[59]))
    a = audit(replace(TALK, frame=frame.drop(index=[58])), against=other)
    said = {(f.severity, f.count, f.of): f for f in a.of('other copy')}
    rate = wer(frame.loc[dev, 'gloss'].tolist(), TALK.frame.loc[dev, 'gloss'].tolist())['wer']
    gloss, = [f for f in a.of('other copy') if 'WER' in f.message]
    assert (gloss.severity, gloss.count, gloss.of) == ('warning', 10, 10) and f'dev differ from those of first: WER {rate:.2f} %' in gloss.message
    messages = ' / '.join(f'{f.count} {f.message}' for f in a.of('other copy'))
    for part in ('1 items are not in first', '1 items of first are not here', '1 items differ in text', '1 items differ in frames', '1 items differ in signer', '1 items differ in split', '1 texts differ from those of first only in'):
        assert part in messages, messages
    assert ('warning', 1, 58) in said and ('warning', 1, 59) in said


def test_copies_of_isolated_corpora():
    found = audit(change(CLEAN, rows={3: {'gloss': 'sign4'}}), against=CLEAN).of('other copy')
    assert [(f.severity, f.count, f.of, f.examples) for f in found] == [('warning', 1, 40, ('c0_3: sign4 | sign0',))]


def test_clips_read_on_demand_are_sampled_and_it_is_said():
    read = []
    lazy = replace(CLEAN, clips=Lazy(range(40), lambda i: read.append(i) or CLEAN.clips[i]))
    a = audit(lazy, clips=10)
    assert len(read) == len(set(read)) == 10 and '[10 of 40 clips read]' in a.of('exact duplicates')[0].message
    assert audit(lazy, clips=10) == a and len(audit(lazy, clips=None).problems) == 0
    for check in ('clips in two splits', 'several glosses', 'zero frames', 'durations', 'landmark order'): assert a.of(check)[0].message.endswith('[10 of 40 clips read]'), check
    for check in ('repeated names', 'shared signers', 'label distribution'): assert 'clips read' not in a.of(check)[0].message
    known = replace(lazy, frame=lazy.frame.assign(frames=[len(x) for x in CLEAN.clips])); assert 'clips read' not in audit(known, clips=10).of('durations')[0].message
    leak = PLANTED['clips in two splits: contents'][0]; found = audit(replace(leak, clips=Lazy(range(40), lambda i: leak.clips[i])), clips=39).of('clips in two splits')
    assert found[0].message.endswith('[39 of 40 clips read]')


def test_a_clip_that_cannot_be_read_is_a_finding():
    def read(i):
        if i == 4: raise CorpusError('c0_4.npy', 'size', '100 bytes', '7')
        if i == 6: raise ValueError('not\nan array')
        return None if i == 5 else CLEAN.clips[i]
    found = audit(replace(CLEAN, clips=Lazy(range(40), read))).of('unreadable clips')
    assert [(f.severity, f.count, f.examples) for f in found] == [('error', 2, ('c0_4: c0_4.npy: size: expected 100 bytes, found 7', 'c0_6: ValueError not an array')), ('warning', 1, ('c0_5',))]


@pytest.mark.parametrize('corpus', [
    IsolatedCorpus(Card('one'), pd.DataFrame(dict(name=['a'], gloss=[''], signer=[''], split=['']))),
    IsolatedCorpus(Card('none'), pd.DataFrame(dict(name=['a', 'b'], gloss=['x', None], signer=[None, np.nan], split=['train', 'test'])), [None, None], joint_set='no_such_set'),
    IsolatedCorpus(Card('odd'), pd.DataFrame(dict(name=['a', 'b', 'c'], gloss='g', signer='s', split='t')), [np.zeros((0, 3, 2)), np.zeros(3), np.full((4, 3, 2), np.nan)]),
    IsolatedCorpus(Card('infinite'), pd.DataFrame(dict(name=['a', 'b'], gloss='g', signer='s', split='t')), [np.full((4, 75, 3), np.inf), np.full((4, 75, 3), -1e38)], joint_set='mediapipe75'),
    IsolatedCorpus(Card('mixed'), pd.DataFrame(dict(name=['a', 'b'], gloss='g', signer='s', split='t')), [np.random.default_rng(0).random((4, 3, 2)), np.random.default_rng(1).random((9, 5, 3))]),
    ContinuousCorpus(Card('empty'), pd.DataFrame(dict(name=['a', 'b'], text='', gloss='', signer='', split='train', frames=-1)), segments=[np.zeros((0, 3), int)]*2),
    ContinuousCorpus(Card('features'), pd.DataFrame(dict(name=['a', 'b'], text=['\ud800', 'x'], gloss='', signer='', split=['train', 'test'], frames=[np.nan, 3])), features=[np.zeros((3, 8), np.float32), np.ones((0, 8), np.float32)]),
])
@pytest.mark.filterwarnings('error')
def test_odd_corpora_are_audited_without_an_error(corpus):
    a = audit(corpus, against=corpus)
    json.dumps(plain(a.to_dict())); a.frame(); a._repr_html_(); plot_audit(a)
    assert audit_text(a).startswith(f'{corpus.card.name}: ') and len(a.findings) >= len(CHECKS)


def test_what_an_audit_gives_back():
    a = audit(PLANTED['exact duplicates'][0])
    assert isinstance(a, Audit) and a.corpus == 'toy' and a.items == 40
    assert list(a.frame().columns) == ['check', 'severity', 'count', 'of', 'message', 'examples'] and len(a.frame()) == len(a.findings)
    assert [SEVERITIES.index(f.severity) for f in a.findings] == sorted(SEVERITIES.index(f.severity) for f in a.findings)
    assert json.loads(json.dumps(plain(a.to_dict())))['findings'][0]['examples'] == list(a.findings[0].examples)
    text = audit_text(a).splitlines()
    assert text[0] == 'toy: 40 items, 0 errors, 1 warning' and text[1].strip().startswith('warning  exact duplicates: 2 of 40:') and '[' not in text[1]
    assert '&lt;' in replace(a, corpus='<b>')._repr_html_()


@pytest.mark.parametrize('threshold, value', [('nera', 1), ('clips', -1), ('clips', 2.5), ('near', 'x'), ('similar', float('nan')), ('examples', None), ('wer', True)])
def test_bad_thresholds(threshold, value):
    with pytest.raises(InputError, match='audit'): audit(CLEAN, **{threshold: value})


def test_bad_corpora():
    with pytest.raises(InputError, match='audit: corpus: expected an IsolatedCorpus or a ContinuousCorpus, found DataFrame'): audit(CLEAN.frame)
    with pytest.raises(InputError, match='audit: against'): audit(CLEAN, against='phoenix14t')


def test_thresholds_move_the_findings():
    near = PLANTED['near duplicates'][0]
    assert audit(near, near=1e-6).of('near duplicates')[0].severity == 'ok'
    assert len(audit(CLEAN, spread=.5).of('durations')[0].examples) == THRESHOLDS['examples'] and len(audit(CLEAN, spread=.5, examples=2).of('durations')[0].examples) == 2


def test_similar_texts_against_a_loop():
    rng = np.random.default_rng(0); words = ['regen', 'wind', 'sonne', 'morgen', 'im', 'norden']
    a, b = ([' '.join(rng.choice(words, rng.integers(1, 6))) for _ in range(n)] for n in (40, 300))
    grams = lambda t: {f' {t} '[i:i + 3] for i in range(len(t))}
    slow = np.array([[len(grams(x) & grams(y))/len(grams(x) | grams(y)) for y in b] for x in a])
    for threshold in (.3, .8):
        best, score = similar_texts(a, b, threshold, block=7)
        hit = slow.max(1) >= threshold
        assert (best >= 0).tolist() == hit.tolist() and np.allclose(score[hit], slow.max(1)[hit])
        assert np.allclose(slow[np.flatnonzero(hit), best[hit]], score[hit])


def test_nearest_clips_against_a_loop():
    rng = np.random.default_rng(0); z, m, g = rng.normal(size=(50, 6)), rng.uniform(.5, 2, 50), rng.integers(0, 2, 50)
    d = np.sqrt(((z[:, None] - z)**2).mean(-1)/((m[:, None]**2 + m**2)/2)); np.fill_diagonal(d, np.inf)
    assert np.allclose(nearest_clips(z, m, block=7)[1], d.min(1), rtol=1e-3)
    assert np.allclose(nearest_clips(z, m, g, block=7)[1], np.where(g[:, None] == g, np.inf, d).min(1), rtol=1e-3)


def test_text_key():
    assert text_key('  Und nun: die WETTERVORHERSAGE . ') == 'und nun die wettervorhersage' and text_key('３０ Grad') == text_key('30 grad') and text_key('') == ''


def test_marks_of_letters_count():
    assert text_key('की') != text_key('के') and text_key('ก้าว') != text_key('กาว') and text_key('वह घर में है।') == 'वह घर में है' and text_key('☀️ Sonne') == 'sonne'
    assert audit(change(TALK, rows={3: {'text': 'वह घर में है'}, 50: {'text': 'वह घर मैं हो'}})).of('texts in two splits')[0].severity == 'ok'


def test_checks_say_why_they_did_not_run():
    said = lambda corpus, check: [(f.severity, f.message) for f in audit(corpus).of(check)]
    assert said(TALK.subset(TALK.frame['split'] == 'train'), 'similar texts') == said(replace(TALK, frame=TALK.frame.assign(split='')), 'similar texts') == [('not run', 'no held-out split')]
    features = replace(TALK, features=[np.random.default_rng(i).random((9, 4), np.float32) for i in range(60)])
    assert said(features, 'frames against clips') == [('not run', 'features have a rate of their own')]
    assert similar_texts([])[0].tolist() == similar_texts([], ['a'])[0].tolist() == []


def test_an_unknown_split_is_not_another_one():
    near = PLANTED['near duplicates: splits'][0]
    assert audit(change(near, rows={7: {'split': ''}})).of('near duplicates')[0].severity == 'warning'


def test_words_named_as_splits_stay_whole():
    frame = CLEAN.frame.assign(name=[f"{'test' if i % 2 else 'train'}/{i//2}" if i < 4 else f'word/{i}' for i in range(40)], split='')
    assert audit(replace(CLEAN, frame=frame)).problems == ()


def test_every_split_is_drawn():
    frame = TALK.frame.assign(split=[f'part{i % 9}' for i in range(60)])
    ax = plot_audit(audit(replace(TALK, frame=frame))).axes[0]; assert len(ax.get_legend().get_texts()) == 9


def test_large_corpora_are_audited_in_seconds():
    n, rng = 90_000, np.random.default_rng(0)
    frame = pd.DataFrame(dict(name=np.arange(n).astype(str), gloss=rng.integers(0, 3000, n).astype(str), signer=rng.integers(0, 40, n).astype(str), split=rng.choice(['train', 'val', 'test'], n), frames=rng.integers(30, 60, n)))
    frame.loc[1000:1994, 'name'] = frame.loc[0:994, 'name'].to_numpy()
    start = time.process_time(); a = audit(IsolatedCorpus(Card('large'), frame)); took = time.process_time() - start
    assert took < 30, took
    assert a.of('repeated names')[0].count == 995
    words = [f'{w:05d}' for w in rng.integers(0, 5000, 300_000)]
    text = [' '.join(words[i:i + 9]) for i in range(0, 270_000, 9)]
    talk = frame[:30_000].assign(text=text, gloss=text, split=np.where(np.arange(30_000) < 28_000, 'train', 'test'))
    start = time.process_time(); audit(ContinuousCorpus(Card('large'), talk)); took = time.process_time() - start
    assert took < 120, took


def corpus_from(real, name):
    if not (real / name).is_dir(): pytest.skip(f'no real data: {name}')
    from signbook.corpora import load_corpus
    return load_corpus(name, root=real / name)


def test_phoenix(real):
    a = audit(corpus_from(real, 'phoenix14t'))
    repeats = {f.message.split('rows of ')[1].split()[0]: f for f in a.of('repeated texts')}
    assert {s: (f.count, f.of) for s, f in repeats.items()} == {'train': (243, 7096), 'dev': (10, 519), 'test': (12, 642)}
    assert '630 distinct' in repeats['test'].message and '285 rows share theirs' in repeats['train'].message
    assert {(f.count, f.of, f.severity) for f in a.of('texts in two splits')} >= {(25, 519, 'warning'), (32, 642, 'warning')}
    assert {(f.count, f.of) for f in a.of('shared signers')} == {(9, 9)}
    assert a.of('clips in two splits')[0].severity == a.of('zero frames')[0].severity == 'ok'


def test_phoenix_glosses_of_the_gfslt_copy(real):
    "The copy is not among the shared data; point SIGNBOOK_GFSLT at a folder of its labels."
    folder = os.environ.get('SIGNBOOK_GFSLT')
    if not folder: pytest.skip('no labels of GFSLT-VLP: set SIGNBOOK_GFSLT')
    from signbook.corpora import load_corpus
    a = audit(load_corpus("phoenix14t-gfslt", root=folder), against=corpus_from(real, 'phoenix14t'))
    rates = {f.message.split('glosses of ')[1].split()[0]: (f.severity, f.message.split('WER ')[1].split()[0]) for f in a.of('other copy') if 'WER' in f.message}
    assert rates == {'train': ('note', '0.85'), 'dev': ('warning', '20.62'), 'test': ('warning', '22.73')}
    assert [(f.count, f.of) for f in a.of('other copy') if 'only in case' in f.message] == [(8257, 8257)]


def test_wlasl_signers(real):
    a = audit(corpus_from(real, 'wlasl-asllex'))
    found = {f.message.split('signers of ')[1].split()[0]: f for f in a.of('shared signers')}
    assert (found['test'].count, found['test'].of) == (104, 105)


def test_isl30(real):
    "2,700 different files, two of which are one recording but for the first two frames."
    a = audit(corpus_from(real, 'isl30'), clips=None)
    near, = a.of('near duplicates')
    assert (near.severity, near.count, near.of) == ('warning', 2, 2700) and near.examples[0].startswith('bye_') and len(near.examples) == 1
    assert {f.check for f in a.problems} == {'near duplicates'}, audit_text(a)


def test_clips_of_real_corpora(real):
    a = audit(corpus_from(real, 'asl-mediapipe'), clips=None)
    assert a.problems == () and len(a.of('missing keypoints')) == 3
    hands = {f.message.split(':')[0]: f.count for f in a.of('missing keypoints')}
    assert hands['left hand'] > 10*hands['body'] and a.of('landmark order')[0].severity == 'ok'
    a = audit(corpus_from(real, 'boston104'))
    assert {f.check: f.count for f in a.problems} == {'shared signers': 3, 'frozen frames': 5, 'constant joints': 25}, audit_text(a)
    a = audit(corpus_from(real, 'phoenix14t-skels'), against=corpus_from(real, 'phoenix14t'))
    assert [(f.count, f.of) for f in a.problems] == [(8242, 8257)] and 'are not here' in a.problems[0].message
    assert a.of('constant joints')[0].examples == ('joint 1',)


def test_wlasl_clips(real):
    from signbook.corpora import load_corpus
    if not list((real / 'wlasl-asllex').glob('*.pkl')): pytest.skip('no clips')
    for zeros in ('missing', 'keep'):
        a = audit(load_corpus('wlasl-asllex', root=real / 'wlasl-asllex', poses=True, zeros=zeros))
        assert a.items == 22 and a.of('landmark order')[0].severity == 'ok', audit_text(a)
        assert a.of('zeros for missing')[0].count == {'missing': 0, 'keep': 21}[zeros]


def test_a_sample_whose_name_is_another_video(real):
    "A .pose file of 86 frames that bears the name of a test clip of 181."
    a = audit(corpus_from(real, 'pose-samples'), against=corpus_from(real, 'phoenix14t'))
    assert any('differ in frames' in f.message and '86 | 181' in f.examples[0] for f in a.of('other copy'))
