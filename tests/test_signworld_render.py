"Drawing a signer: one stroke against slow arithmetic, and what must not change the bytes."
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from signbook.core import InputError
from signbook.signworld import Look, Strokes, _window, _hand_strokes, _look_table, _over, _paint, in_studio, look_of, render

FLAT = Look(backdrop=(.5, .5, .5), slope=(0., 0.), texture=0., light=(0., 0.))


def figure(right=(-.35, .25, -.55), left=(.4, 1.15, -.35), bend=0.):
    "One frame (75, 3): a person in shoulder widths; hands upright, fingers bent by an angle towards the camera."
    x = np.full((75, 3), np.nan)
    x[0] = 0, -.61, -.3
    for i, p in {1: (.05, -.7), 2: (.1, -.7), 3: (.14, -.69), 7: (.2, -.64), 9: (.08, -.49), 11: (.5, 0), 23: (.33, 1.46)}.items():
        x[i], x[{1: 4, 2: 5, 3: 6, 7: 8, 9: 10, 11: 12, 23: 24}[i]] = (*p, -.05), (-p[0], p[1], -.05)
    for sign, shoulder, wrist, hand in ((1, 11, np.array(left), 33), (-1, 12, np.array(right), 54)):
        x[shoulder + 4], x[shoulder + 2] = wrist, (x[shoulder] + wrist)/2 + (.25*sign, .25, 0)
        x[hand] = wrist
        for f, (side, long) in enumerate([(-.12, .09), (-.09, .13), (-.03, .14), (.03, .13), (.09, .1)]):
            bones, angle = [(0, -.12, -.02)] if f == 0 else [(0, -.27, 0)], 0
            for _ in range(3):
                angle += bend*.6
                bones.append((0, -long*np.cos(angle), -long*np.sin(angle)))
            x[hand + 1 + 4*f:hand + 5 + 4*f] = wrist + (side*sign, 0, 0) + np.cumsum(bones, 0)
    return x.astype(np.float32)


def signing(n=12):
    "Frames (n, 75, 3) in which both hands move and the fingers close."
    u = np.linspace(0, 1, n)
    return np.stack([figure((-.5 + .5*t, .6 - .8*t, -.6), (.5 - .3*t, .9 - .2*t, -.5), 2*t) for t in u])


FACE = np.zeros((12, 4), np.float32)
FACE[:, 0], FACE[:, 1] = np.linspace(-1, 1, 12), np.linspace(0, 1, 12)


def slow(a, b, ra, rb, edge, light, size):
    "Coverage, brightness and depth of one stroke, pixel by pixel in float64."
    out = np.zeros((3, size, size))
    long = np.hypot(b[0] - a[0], b[1] - a[1])
    u = (b[:2] - a[:2])/long
    for i in range(size):
        for j in range(size):
            p = np.array([j + .5, i + .5]) - a[:2]
            t = min(max(p @ u, 0), long)
            off = p - t*u
            r, d = ra + (rb - ra)*t/long + .5, np.hypot(*off)
            side = (p[0]*u[1] - p[1]*u[0])*(light[0]*u[1] - light[1]*u[0])
            out[:, i, j] = min(max(r - d, 0), 1, ra + rb), 1 - edge*(d/r)**2 + side/r, a[2] + (b[2] - a[2])*t/long
    return out


@pytest.mark.parametrize('a, b, ra, rb', [((5, 6, .1), (20, 15, -.4), 3., 1.5), ((22, 3, 0), (22, 30, 1), .3, .2), ((-4, 12, 0), (40, 12.5, 0), 5., 9.), ((16, 16, 0), (16.4, 16, 0), 4., 4.)])
def test_one_stroke_is_what_slow_arithmetic_says(a, b, ra, rb):
    light, a, b = (-.2, -.3), np.array(a, float), np.array(b, float)
    one = lambda v: torch.tensor(np.array(v, np.float32))[None, None]
    s = Strokes(one(a), one(b), one(ra), one(rb), one(.4), one([.5]))
    (ink, depth), free = _paint(s, torch.tensor([light]), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), 32, 32)
    cover, shade, z = slow(a, b, ra, rb, .4, light, 32)
    np.testing.assert_allclose(1 - free[0], cover, atol=1e-5)
    np.testing.assert_allclose(ink[0], cover*shade*.5, atol=1e-5)
    np.testing.assert_allclose(depth[0], cover*z, atol=1e-5)
    x0, y0, h, w = _window(s, 32)
    inside = np.zeros((32, 32), bool)
    inside[y0:y0 + h, x0:x0 + w] = True
    assert not cover[~inside].any()


def test_later_strokes_lie_over_earlier_ones():
    n = lambda *v: torch.tensor(v).float()
    s = Strokes(n([[0, 8, 0], [8, 0, 0]])[0][None], n([[16, 8, 0], [8, 16, 0]])[0][None], n([2, 2]), n([2, 2]), n([0, 0]), n([[[1.], [3.]]])[0])
    (ink, _), free = _paint(s, torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), 16, 16)
    assert ink[0, 8, 2] == 1 and ink[0, 2, 8] == 3 and ink[0, 8, 8] == 3 and free[0, 2, 2] == 1


def test_nearer_windows_hide_farther_ones():
    for z, expected in ((-1., 1.), (1., .25)):
        frame = torch.full((4, 1, 64), .25)
        frame[3] = 0.
        planes = torch.stack([torch.ones(1, 8, 8)]*3 + [torch.full((1, 8, 8), z)])
        _over(frame, (planes, torch.zeros(1, 8, 8)), torch.tensor([0]), torch.tensor([0]), 8)
        assert (frame[:3] == expected).all()


def test_bytes_do_not_depend_on_chunks():
    x, look = signing(), look_of(0, 2)
    a = render(x, FACE, look, 48)
    assert a.shape == (12, 48, 48, 3) and a.dtype == torch.uint8
    for chunk in (1, 5, 7):
        assert torch.equal(a, render(x, FACE, look, 48, chunk=chunk))
    assert torch.equal(a[5:], render(x[5:], FACE[5:], look, 48, first=5))


CODE = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from test_signworld_render import *
print(hashlib.sha256(render(np.concatenate([signing()]*20), np.concatenate([FACE]*20), look_of(0, 5), 65).numpy().tobytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_threads_or_process():
    here = os.path.dirname(os.path.abspath(__file__))
    run = lambda n: subprocess.run([sys.executable, '-c', CODE, str(n)], cwd=here, capture_output=True, text=True, check=True).stdout
    assert run(1) == run(2) == run(3)


def test_recordings_drawn_together_are_those_drawn_alone():
    x, looks = signing(), [look_of(0, s) for s in range(3)]
    alone = torch.cat([render(x, FACE, l, 32) for l in looks])
    together = render(np.concatenate([x]*3), np.concatenate([FACE]*3), looks, 32, clip=np.repeat([0, 1, 2], 12))
    assert torch.equal(alone, together)


def test_missing_joints_are_not_drawn():
    x = signing()
    y, z = x.copy(), x.copy()
    y[:, 54:], z[:] = np.nan, np.nan
    a, b, empty = (render(v, FACE, FLAT, 64).int() for v in (x, y, z))
    assert (empty == empty[0, 0, 0]).all()
    assert (a != b).any((1, 2, 3)).all()
    x[:, 54:, 1] -= 10
    assert torch.equal(render(x, FACE, FLAT, 64).int(), b)


def test_any_one_joint_may_be_missing():
    x = np.repeat(figure()[None], 76, 0)
    x[np.arange(75), np.arange(75)] = np.nan
    a = render(x, np.zeros((76, 4)), FLAT, 64).int()
    changed = (a != a[75]).any(-1).sum((1, 2))
    assert (changed < 64*64/4).all() and (changed[33:75] > 0).all() and (changed[25:33] == 0).all()
    assert (a.float().mean((1, 2, 3)) - a[75].float().mean()).abs().max() < 15


@pytest.mark.parametrize('size, least', [(32, 4), (64, 12), (112, 40)])
def test_a_non_manual_is_visible(size, least):
    "Pixels that differ by more than 10 of 255 between the neutral face, raised and furrowed brows and an open mouth."
    faces = np.zeros((4, 4), np.float32)
    faces[1, 0], faces[2, 0], faces[3, 1] = 1, -1, 1
    for signer in range(6):
        look = look_of(0, signer)
        frames = torch.cat([render(figure()[None], f[None], Look(**{k: getattr(look, k) for k in ('skin', 'hair', 'hair_length', 'cloth')}), size) for f in faces]).int()
        for i in range(4):
            for j in range(i):
                assert ((frames[i] - frames[j]).abs().amax(-1) > 10).sum() >= least, (signer, i, j)


def test_a_hand_in_front_of_the_face_hides_it_and_one_behind_does_not():
    front, behind, away = (render(figure(right=r)[None], FACE[:1], FLAT, 112).int()[0] for r in ((-.02, -.45, -.6), (-.02, -.45, 1.2), (-2.5, 2.5, 1.2)))
    face = slice(25, 38), slice(51, 60)
    assert (front[face] != away[face]).float().mean() > .5
    assert (behind[face] != away[face]).float().mean() < .1


def test_hand_strokes_come_far_first():
    x = torch.tensor(np.stack([figure(bend=b) for b in (0., 1.5)]))
    table = {k: v[[0, 0]] for k, v in _look_table([FLAT], 32, 'cpu').items()}
    s = _hand_strokes(x, torch.tensor([11., 11.]), table)
    assert s.a.shape == (4, 20, 3) and s.ink.shape == (4, 20, 1)
    z = (s.a[..., 2] + s.b[..., 2])/2
    assert (z[:, 1:] - z[:, :-1] < .03).all()


def test_looks_belong_to_signers_and_recordings():
    a, b, c, d = look_of(0, 1, 0), look_of(0, 1, 1), look_of(0, 2, 0), look_of(1, 1, 0)
    assert a == look_of(0, 1, 0) and hash(a) == hash(look_of(0, 1, 0))
    assert a.skin == b.skin and a.backdrop == b.backdrop and a.room == b.room and a.centre != b.centre and a.key != b.key
    assert a.backdrop != c.backdrop != d.backdrop != a.backdrop
    many = [look_of(0, s) for s in range(300)]
    assert all(0 <= v <= 1 for l in many for v in (*l.skin, *l.hair, *l.cloth, *l.vest, *l.backdrop))
    assert all(0 <= l.blur < .02 and 2.3 < l.extent < 3.4 and .4 < l.gain[0] < 2 for l in many)


def test_a_studio_is_the_same_for_all_signers():
    looks = [in_studio(look_of(0, s)) for s in range(4)]
    gone = np.full((4, 75, 3), np.nan)
    a = render(gone, np.zeros((4, 4)), looks, 32, clip=range(4)).float().mean((1, 2))
    assert (a - a.mean(0)).abs().max() < 25 and len({l.skin for l in looks}) > 1 and len({l.room for l in looks}) == 1


def test_pieces_and_empty_recordings():
    assert render(np.zeros((0, 75, 3)), np.zeros((0, 4)), FLAT, 16).shape == (0, 16, 16, 3)
    looks = [look_of(0, 0), look_of(0, 1)]
    assert render(np.zeros((0, 75, 3)), np.zeros((0, 4)), looks, 16, clip=[]).shape == (0, 16, 16, 3)


@pytest.mark.parametrize('change, message', [
    ({'poses': np.zeros((2, 27, 3))}, 'render: poses: expected shape (T, 75, 3), found (2, 27, 3)'),
    ({'face': np.zeros((3, 4))}, 'render: face: expected shape (2, 4), found (3, 4)'),
    ({'size': 0}, 'render: size: expected an integer >= 8, found 0'),
    ({'size': 32.}, 'render: size: expected an integer >= 8, found 32.0'),
    ({'clip': [0, 1]}, 'render: clip: expected 2 numbers from 0 to 0'),
    ({'clip': [0]}, 'render: clip: expected 2 numbers from 0 to 0'),
    ({'chunk': 0}, 'render: chunk: expected an integer >= 1, found 0'),
    ({'look': []}, 'render: look: expected at least one look, found none'),
])
def test_bad_input_is_one_line(change, message):
    with pytest.raises(InputError) as e:
        render(**{'poses': np.zeros((2, 75, 3)), 'face': np.zeros((2, 4)), 'look': FLAT} | change)
    assert str(e.value).startswith(message) and '\n' not in str(e.value)
