import pytest
import torch
from torch import nn

from engine.models._sample_dropout import SampleDropout, set_sample_seeds


def dropped(shape, *, rate=0.3, layer=0, seeds=None):
    module = SampleDropout(rate, layer=layer).train()
    module.seeds_B = torch.arange(shape[0]) if seeds is None else seeds
    return module(torch.ones(shape))


def test_the_share_dropped_and_the_mean_are_as_asked_for():
    made = dropped((40, 50, 60))
    assert made.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    share = (made == 0).float()
    assert share.mean().item() == pytest.approx(0.3, abs=0.01)  # 5 standard deviations of 120,000 draws: 0.007
    for dim in ((0, 1), (0, 2), (1, 2)):  # no place, channel or sample is favoured
        assert (share.mean(dim=dim) - 0.3).abs().max() < 0.06


def test_layers_samples_and_neighbours_draw_apart():
    one, other = dropped((20, 30, 10)), dropped((20, 30, 10), layer=1)
    for a, b in ((one, other), (one[:-1], one[1:]), (one[:, :-1], one[:, 1:]), (one[..., :-1], one[..., 1:])):
        pair = torch.stack([(a == 0).flatten().float(), (b == 0).flatten().float()])
        assert torch.corrcoef(pair)[0, 1].abs() < 0.08


def test_padding_leaves_a_letter_its_fate():
    assert torch.equal(dropped((3, 5, 9))[..., :4], dropped((3, 5, 4)))


def test_it_rests_in_eval_mode_and_at_rate_zero():
    module = SampleDropout(0.5, layer=0).eval()
    assert module(torch.ones(2, 3)).tolist() == [[1, 1, 1]] * 2
    assert SampleDropout(0.0, layer=0).train()(torch.ones(2)).tolist() == [1, 1]


def test_seeds_must_be_those_of_the_batch():
    model = nn.Sequential(nn.Linear(3, 3), SampleDropout(0.5, layer=0)).train()
    with pytest.raises(ValueError, match="needs the seeds of its 2 samples"):
        model(torch.ones(2, 3))
    set_sample_seeds(model, torch.tensor([1, 2]))
    assert model(torch.ones(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="needs the seeds of its 4 samples"):
        model(torch.ones(4, 3))


def test_splitmix64_by_its_reference_numbers():
    """First outputs of SplitMix64 from state 0 and 1234567, as its authors' reference code gives them."""
    from engine.models import _sample_dropout

    state = torch.tensor([0, 1234567]) + _sample_dropout._GAMMA
    found = [value % (1 << 64) for value in _sample_dropout._mixed(state).tolist()]
    assert found == [0xE220A8397B1DCDAF, 6457827717110365317]
