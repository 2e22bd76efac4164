"SL-GCN: the official features, batch-mates, heads, losses and the nearest phonology."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signbook.core import InputError, set_seed
from signbook.phonology import FEATURES, feature_names
from signbook.pose import adjacency
from signbook.slgcn import (BLOCKS, CURRICULUM, SLGCN, Block, Recogniser, augmented, curriculum, drop_graph, feature_sizes, feature_targets, from_openhands, multitask_loss,
                            phonology_scores, time_conv, used_heads)

SMALL = dict(scale=.125, blocks=BLOCKS[:5])


def small(**changes):
    set_seed(0)
    net = SLGCN(**{**SMALL, **changes})
    for p in net.parameters():
        if p.dim() > 1: torch.nn.init.normal_(p, std=.3)
    return net


def official(golden):
    z = np.load(golden / 'slgcn_openhands.npz')
    return {k: z[k] for k in z.files if k.startswith('enc/')}, torch.tensor(z['x']).float().permute(0, 2, 3, 1), torch.tensor(z['features']).float()


def test_an_official_checkpoint_gives_the_official_features(golden):
    state, x, features = official(golden)
    net = from_openhands(state)
    with torch.no_grad(): ours = net(x)
    assert ((ours - features).abs().max() / features.abs().max()).item() < 1e-4
    with torch.no_grad(): masked = from_openhands(state, masked=True)(x)
    assert ((masked - features).abs().max() / features.abs().max()).item() < 1e-4
    assert sum(p.numel() for p in net.parameters()) == sum(v.size for k, v in state.items() if v.dtype == np.float16 and not k.endswith(('.A', 'running_mean', 'running_var')) and not k.endswith(('conv.bias', 'down.0.bias', 'linear_bias')))


@pytest.mark.parametrize('spoil, says', [(lambda d: d.pop('enc/l3.conv_sa.weight'), 'l3.conv_sa.weight'), (lambda d: d.update({'enc/l1.tcn1.conv.weight': np.zeros((3, 3, 9, 1))}), r'l1.tcn1.conv.weight: expected shape \(64, 64, 9, 1\), found \(3, 3, 9, 1\)'), (lambda d: d.update({'enc/l2.gcn1.bn.bias': np.zeros(300)}), r'l2.gcn1.bn.bias: expected shape \(64,\)'), (lambda d: d.clear(), 'data_bn.weight')])
def test_a_damaged_checkpoint_is_refused_by_name(golden, spoil, says):
    state, _, _ = official(golden)
    spoil(state)
    with pytest.raises(InputError, match=says): from_openhands(state)


def test_a_checkpoint_of_lightning_with_tensors_of_any_kind(golden):
    state, x, _ = official(golden)
    held = {f'model.encoder.{k.removeprefix("enc/")}': torch.nn.Parameter(torch.tensor(v), requires_grad=v.dtype == np.float16) for k, v in state.items()}
    with torch.no_grad(): assert torch.equal(from_openhands({'epoch': 3, 'state_dict': held})(x), from_openhands(state)(x))
    held['model.encoder.l1.A'] = held['model.encoder.l1.A'].bfloat16()
    from_openhands(held)


def test_looking_in_inference_mode_does_not_spoil_training():
    net, x = small(keep=1.), torch.randn(2, 37, 27, 2)
    with torch.inference_mode(): net(x)
    net(x).sum().backward()


def test_double_precision_and_lengths_as_a_list():
    net, x = small().eval(), torch.randn(3, 12, 27, 2)
    with torch.no_grad(): torch.testing.assert_close(net(x, [12, 5, 7]), net(x, torch.tensor([12, 5, 7])))
    with torch.no_grad(): torch.testing.assert_close(net.double()(x.double(), [12, 5, 7]).float(), net.float()(x, [12, 5, 7]), rtol=1e-3, atol=1e-4)
    assert augmented(x.double()).dtype == torch.double
    with pytest.raises(InputError, match='absent'): feature_targets(torch.full((1, 16), -1), 'masked')


@pytest.mark.parametrize('joints', ['openhands27', 'samslr27', 'mediapipe75'])
def test_any_joint_set(joints):
    try: V = adjacency(joints).shape[1]
    except InputError: pytest.skip(f'no joint set {joints}')
    assert SLGCN(joints, **SMALL)(torch.randn(2, 9, V, 2)).shape == (2, 16)


@pytest.mark.parametrize('length', [1, 2, 7, 12])
def test_batch_mates_do_not_matter(length):
    net = small().eval()
    x = torch.randn(3, 12, 27, 2)
    x[1, length:] = torch.nan
    x[1, 0, 4] = torch.nan
    with torch.no_grad():
        alone = net(x[1:2, :length], torch.tensor([length]))
        together = net(x, torch.tensor([12, length, 5]))[1:2]
        x[1, length:] = 1e6
        garbage = net(x, torch.tensor([12, length, 5]))[1:2]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(garbage, alone, rtol=1e-4, atol=1e-5)


def test_as_released_padding_counts():
    net = small(masked=False).eval()
    x = torch.randn(2, 12, 27, 2)
    with torch.no_grad(): assert (net(x) - net(F.pad(x, (0, 0, 0, 0, 0, 8)))).abs().max() > 1e-3


def test_statistics_of_training_are_those_of_real_frames():
    x, a, b = torch.randn(2, 10, 27, 2), small(keep=1.), small(keep=1.)
    ya = a(x)
    yb = b(F.pad(x, (0, 0, 0, 0, 0, 6), value=torch.nan), torch.tensor([10, 10]))
    torch.testing.assert_close(yb, ya, rtol=1e-3, atol=1e-4)
    for (n, u), v in zip(a.named_buffers(), b.buffers()): torch.testing.assert_close(v, u, rtol=1e-3, atol=1e-4, msg=n)


def test_missing_joints_and_padding_never_give_nan():
    net = small()
    x = torch.randn(4, 8, 27, 2)
    x[torch.rand(4, 8, 27) < .5] = torch.nan
    x[0] = torch.nan
    y = net(x, torch.tensor([8, 3, 1, 8]))
    y.square().sum().backward()
    assert torch.isfinite(y).all() and all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize('T, stride', [(1, 1), (2, 2), (9, 1), (30, 1), (31, 2), (64, 2)])
def test_convolution_in_time_and_its_gradient(T, stride):
    x, w = torch.randn(T, 3, 4, requires_grad=True), torch.randn(5, 4, 9, requires_grad=True)
    ours, plain = time_conv(x, w, stride), F.conv1d(x.permute(1, 2, 0), w, stride=stride, padding=4).permute(2, 0, 1)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    g = torch.randn_like(plain)
    for u, v in zip(torch.autograd.grad(ours, (x, w), g), torch.autograd.grad(plain, (x, w), g)): torch.testing.assert_close(u, v, rtol=1e-4, atol=1e-4)


def test_drop_graph_takes_neighbours_and_windows():
    set_seed(0)
    near = torch.as_tensor(adjacency('openhands27').sum(0), dtype=torch.float32)
    m = drop_graph(torch.rand(100, 200, 27, 3), .9, near, 52 / 27)
    assert abs(m.mean().item() - 1) < .02
    gone = (m[..., 0] == 0)
    runs = [len(r) for clip in gone.all(2).T[:50] for r in ''.join('x' if g else ' ' for g in clip.tolist()).split()]
    assert runs and min(runs) >= 21
    assert .04 < (m[:, :, :, 0].amax(0) == 0).float().mean() < .2
    assert torch.equal(Block(4, 8, adjacency('openhands27'), 4, keep=.5).eval().drop(y := torch.randn(6, 27, 8), None), y)


def test_absent_phonology_contributes_nothing():
    set_seed(0)
    logits = [torch.randn(3, n, requires_grad=True) for n in (5, *feature_sizes())]
    gloss, codes = torch.tensor([0, 1, 2]), torch.full((3, 16), -1)
    codes[0] = 0
    loss = multitask_loss(None, logits, gloss, codes)
    slow = F.cross_entropy(logits[0], gloss) + sum(F.cross_entropy(z[:1], torch.tensor([0])) for z in logits[1:])
    torch.testing.assert_close(loss, slow)
    loss.backward()
    assert all((z.grad[1:] == 0).all() for z in logits[1:])
    none = multitask_loss(None, [z.detach().requires_grad_() for z in logits], gloss, torch.full((3, 16), -1), used_heads('features'))
    assert none.item() == 0
    assert feature_targets(codes, 'class')[1].tolist() == [len(f.values) for f in FEATURES]
    with pytest.raises(InputError, match='Handshape'): used_heads('both', 'Handshap')
    with pytest.raises(InputError, match='uncertainty'): multitask_loss(None, logits, gloss, codes, weighting='uncertain')


def test_uncertainty_weights_learn():
    set_seed(0)
    model = Recogniser(small(), 4)
    loss = multitask_loss(model, model(torch.randn(4, 6, 27, 2)), torch.arange(4), torch.zeros(4, 16, dtype=torch.long), weighting='uncertainty')
    loss.backward()
    assert (model.spread.grad != 0).all()


def test_curriculum_adds_one_head_a_stage():
    stages = curriculum(used_heads('both'))
    assert [len(s) for s in stages] == list(range(2, 18)) and all(s[0] == 0 for s in stages)
    assert [feature_names()[(set(b) - set(a)).pop() - 1] for a, b in zip([(0,), *stages], stages)] == list(CURRICULUM)


def test_nearest_phonology_is_the_written_out_distance():
    set_seed(1)
    logits, codes = [torch.randn(3, n) for n in feature_sizes()], np.stack([np.random.default_rng(0).integers(0, n, 7) for n in feature_sizes()], 1)
    slow = np.zeros((3, 7))
    for n in range(3):
        for g in range(7):
            p = [z[n].double().softmax(0) for z in logits]
            slow[n, g] = -(1 - sum(v.max().item() for v, c in zip(p, codes[g]) if v.argmax() == c) / 16)
    np.testing.assert_allclose(phonology_scores(logits, codes), slow, atol=1e-12)


def test_augmentation_keeps_missing_joints_missing_and_shapes():
    x = torch.randn(5, 6, 27, 2)
    x[0, 2, 3] = torch.nan
    y = augmented(x)
    assert y.shape == x.shape and torch.equal(y.isnan(), x.isnan())
    assert math.isclose(augmented(x[1:], turn=0, zoom=0, move=0).sub(x[1:]).abs().max().item(), 0, abs_tol=1e-6)


@pytest.mark.parametrize('bad', [dict(keep=0), dict(keep=1.5)])
def test_bad_arguments(bad):
    with pytest.raises(InputError): SLGCN(**bad)
    with pytest.raises(InputError, match='clips'): small()(torch.zeros(2, 3, 5, 2))


def test_a_step_in_half_precision_has_the_gradient_of_a_full_one():
    set_seed(0)
    net, x, n, found = SLGCN(scale=.25, blocks=((64, 1), (64, 1), (128, 2), (128, 1))), torch.randn(4, 32, 27, 2), torch.tensor([32, 20, 32, 9]), []
    x[0, 3] = torch.nan
    for half in (False, True):
        set_seed(1); net.zero_grad()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=half): z = net(x, n)
        z.float().square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.cosine_similarity(*found, 0) > .98 and not torch.equal(*found)
