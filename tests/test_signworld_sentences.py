"SignWorld's sentences: reproducible, whole at every size, and as the labels of PHOENIX-2014T count them."
import hashlib, os, subprocess, sys
from collections import Counter

import numpy as np
import pytest

from signbook import signworld
from signbook.core import InputError
from signbook.signworld import (ALL_CONCEPTS, CONCEPTS, RULES, SENTENCE_TARGETS, SMALLEST, concepts, gloss_categories, gloss_names, grammar, nearest_overlap, number_words,
                                one_sign_apart, pairs_apart, read_token, sentence, sentence_statistics, sentences, substitutes)

SIZES = (40, 60, 120, 300, None)


def digest(found): return hashlib.sha256(repr(list(found)).encode()).hexdigest()


def test_same_in_any_order():
    whole = list(sentences(3, 0, 200, 120))
    assert [sentence(3, i, 120) for i in (199, 0, 64, 63)] == [whole[i] for i in (199, 0, 64, 63)]
    assert list(sentences(3, 37, 91, 120)) == whole[37:128]
    assert list(sentences(3, 0, 0, 120)) == []


def test_same_in_other_processes():
    code = 'import sys, hashlib; from signbook.signworld import sentences; print(hashlib.sha256(repr(list(sentences(5, 10**6, 150, 300))).encode()).hexdigest())'
    env = {'PYTHONHASHSEED': '7', 'OMP_NUM_THREADS': '1'}
    out = [subprocess.run([sys.executable, '-c', code], env={**os.environ, **e}, capture_output=True, text=True, check=True).stdout.strip() for e in (env, {'PYTHONHASHSEED': '8'})]
    assert out == [digest(sentences(5, 10**6, 150, 300))]*2


def test_seeds_differ():
    a, b = (list(sentences(s, 0, 300)) for s in (0, 1))
    assert np.mean([x == y for x, y in zip(a, b)]) < .05


@pytest.mark.parametrize('n', SIZES)
def test_whole_at_every_size(n):
    names = gloss_names(n)
    assert names == tuple(c.name for c in CONCEPTS)[:len(names)]
    for s in sentences(1, 0, 400, n):
        assert s.gloss and all(type(g) is int and 0 <= g < len(names) for g in s.gloss)
        assert s.text and s.text == ' '.join(s.text.lower().split()) and not any(c in s.text for c in '.,;:@=')


@pytest.mark.parametrize('n', [39, 10**6, 0, -1, 40.5, True, '40'])
def test_bad_sizes(n):
    with pytest.raises(InputError, match='signworld: glosses: expected an integer from 40'): concepts(n)


def test_every_concept_is_used():
    use = signworld._expected(grammar(), len(CONCEPTS))
    assert use.min() > 0 and (np.diff(use[SMALLEST:].round(9)) <= 0).all()
    counts = Counter(g for s in sentences(0, 0, 20000) for g in s.gloss)
    assert np.corrcoef(use, [counts[i]/20000 for i in range(len(use))])[0, 1] > .99
    assert SMALLEST == 40 and len(set(gloss_names())) == len(ALL_CONCEPTS) == len(gloss_categories())


def test_every_size_uses_most_of_its_lexicon():
    for n in (40, 120, 300):
        assert len({g for s in sentences(0, 0, 6000, n) for g in s.gloss}) >= .97*n, n


def test_rules_speak_what_they_sign():
    for r in RULES:
        signed = {read_token(t).key for t in r.signed if read_token(t).kind == 'rule'}
        for alternative in r.spoken: assert signed <= {read_token(t, True).key for t in alternative}, r


def test_words_come_from_the_tables():
    fixed = {t for r in RULES for side in r.spoken for t in side if read_token(t, True).kind == 'word'}
    known = fixed | {w for c in ALL_CONCEPTS for forms in c.forms.values() for f in forms for w in f.split()}
    assert {w for s in sentences(2, 0, 3000) for w in s.text.split()} <= known


def test_gloss_order_is_not_word_order():
    names, at = gloss_names(), []
    for s in sentences(0, 0, 4000):
        n = [names[g] for g in s.gloss]
        if 'NORTH' in n and 'RAIN' in n and 'rain' in s.text.split() and 'north' in s.text.split(): at.append((n.index('NORTH') < n.index('RAIN')) == (s.text.split().index('north') < s.text.split().index('rain')))
    assert len(at) > 50 and .1 < 1 - np.mean(at)


def test_numbers():
    assert [number_words(n) for n in (0, 9, 20, 30, 38)] == ['zero', 'nine', 'twenty', 'thirty', 'thirty eight']
    assert len({number_words(n, o) for n in range(1, 40) for o in (False, True)}) == 78


@pytest.mark.parametrize('n', [40, 300])
def test_one_sign_apart(n):
    seen = 0
    for i in range(120):
        s = sentence(0, i, n)
        for p, able in enumerate(substitutes(0, i, n)):
            assert s.gloss[p] not in able
            for other in able[:2]:
                t = one_sign_apart(0, i, p, other, n); seen += 1
                assert [k for k, (a, b) in enumerate(zip(s.gloss, t.gloss)) if a != b] == [p] and len(s.gloss) == len(t.gloss) and t.gloss[p] == other
                assert t.text != s.text and gloss_categories(n)[other] == gloss_categories(n)[s.gloss[p]]
    assert seen > 300


def test_one_sign_apart_refuses():
    able = substitutes(0, 0); p = next(k for k, a in enumerate(able) if a)
    with pytest.raises(InputError, match='other: expected one of'): one_sign_apart(0, 0, p, sentence(0, 0).gloss[p])
    with pytest.raises(InputError, match='position: expected 0 to'): one_sign_apart(0, 0, -1, able[p][0])


def test_pairs_apart():
    names = gloss_names(120); pairs = [(names.index('RAIN'), names.index('SNOW')), (names.index('RAIN'), names.index('IX'))]
    found = list(pairs_apart(0, pairs, 50, 200, 120))
    assert found and all(50 <= i < 250 and a == sentence(0, i, 120) and {a.gloss[p], b.gloss[p]} == set(pairs[0]) for i, p, a, b in found)


def test_overlap_slowly():
    texts, others = ([s.text for s in sentences(0, f, 60)] for f in (0, 500))
    slow = [max(len(a & b)/len(a | b) for b in map(set, map(str.split, others))) for a in map(set, map(str.split, texts))]
    assert np.allclose(nearest_overlap(texts, others), slow)


@pytest.mark.parametrize('seed', [0, 1])
def test_as_phoenix_counts(seed):
    found = sentence_statistics(list(sentences(seed, 0, 7096, 300)), list(sentences(seed, 7615, 642, 300)))
    real = {c.name: c.value for c in SENTENCE_TARGETS}
    near = {'glosses per sentence, mean': .3, 'glosses per sentence, sd': .4, 'words per sentence, mean': 2, 'share of the 10 most used glosses': .06, 'share of the 100 most used glosses': .04,
            'Zipf slope of glosses, ranks 1-100': .15, 'rows with a repeated text': .02, 'most repeated text': .005, 'test rows that repeat a test text': .02, 'test rows with a training text': .03, 'test rows near a training text': .06}
    for k, tol in near.items(): assert abs(found[k] - real[k]) <= tol, (k, found[k], real[k])
    assert 1.9 <= found['words per gloss, mean of sentences'] <= 2.1
    assert list(found) == list(real)
