"""The solved head: an optimum of the problem it says, in the features as they are."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from hf_transfer.training.head_solver import STRENGTHS, solve_head


def problem(num_labels: int, rows: int = 300, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % num_labels
    centres = torch.randn(num_labels, 6, generator=generator)
    features = centres[labels] + torch.randn(rows, 6, generator=generator)
    # Far from standard, and one feature that says nothing.
    return torch.cat([features * torch.tensor([1e-2, 1, 1, 10, 100, 1]) + 5, torch.full((rows, 1), 3.0)], 1), labels


def accuracy(features, labels):
    return lambda weight, bias: float(((features @ weight.T + bias).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("num_labels", [2, 4])
def test_it_is_the_optimum_of_the_penalised_loss(num_labels: int):
    features, labels = problem(num_labels)
    held_out = problem(num_labels, seed=0)
    found = solve_head(features, labels, 1, num_labels, accuracy(*held_out))
    assert found.weight.shape == (num_labels, 7)
    assert found.strength in STRENGTHS
    mean, spread = features.double().mean(0), features.double().std(0)
    spread[-1] = 1
    standard = (features.double() - mean) / spread
    weight = (found.weight.double() * spread).requires_grad_()
    bias = (found.bias.double() + found.weight.double() @ mean).requires_grad_()
    penalty = weight.square().sum() / 2
    loss = F.cross_entropy(standard @ weight.T + bias, labels, reduction="sum") * found.strength + penalty
    loss.backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) < 1e-2
    start = F.cross_entropy(torch.zeros(len(labels), num_labels), labels, reduction="sum") * found.strength
    assert float(loss.detach()) < float(start)


def test_the_strength_is_chosen_by_the_score():
    features, labels = problem(3)
    seen = []

    def score(weight, bias):
        seen.append(float(weight.norm()))
        return -abs(len(seen) - 4)

    found = solve_head(features, labels, 1, 3, score)
    assert found.strength == STRENGTHS[3]
    assert len(seen) == 6, "two falls in a row end the search"
    assert seen == sorted(seen), "from strong to weak"


def test_views_count_once():
    """Each picture shown twice at half the strength is the same problem."""
    features, labels = problem(3)
    one = solve_head(features, labels, 1, 3, accuracy(features, labels))
    two = solve_head(torch.cat([features] * 2), torch.cat([labels] * 2), 2, 3, accuracy(features, labels))
    assert one.strength == two.strength
    torch.testing.assert_close(one.weight * features.std(0), two.weight * features.std(0), rtol=0.02, atol=2e-3)


def test_class_weights_move_the_border():
    features, labels = problem(2)
    rare = torch.cat([torch.arange(0, 300, 2), torch.arange(1, 30, 2)])
    features, labels = features[rare], labels[rare]
    recall = []
    for weights in (None, torch.tensor([0.55, 5.5])):
        found = solve_head(features, labels, 1, 2, accuracy(features, labels), weights)
        predicted = (features @ found.weight.T + found.bias).argmax(1)
        recall.append(float((predicted[labels == 1] == 1).float().mean()))
    assert recall[1] > recall[0]


def test_ties_go_to_the_lower_loss():
    features, labels = problem(3)
    losses = iter([5.0, 3.0, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0])
    found = solve_head(features, labels, 1, 3, lambda *head: 0.5, loss=lambda *head: next(losses))
    assert found.strength == STRENGTHS[2]
    assert solve_head(features, labels, 1, 3, lambda *head: 0.5).strength == STRENGTHS[0]


def test_the_features_stay_as_they_are():
    features, labels = problem(3)
    before = features.clone()
    solve_head(features, labels, 1, 3, accuracy(features, labels))
    assert torch.equal(features, before)


@pytest.mark.parametrize("num_labels", [3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_scikit_learn_finds(num_labels: int, weighted: bool):
    features, labels = problem(num_labels)
    class_weights = torch.arange(1.0, num_labels + 1) if weighted else None
    found = solve_head(features, labels, 1, num_labels, accuracy(features, labels), class_weights)
    mean, spread = features.mean(0), features.std(0)
    spread[-1] = 1
    weights = None if class_weights is None else dict(enumerate(class_weights.tolist()))
    theirs = LogisticRegression(C=found.strength, class_weight=weights, max_iter=5000, tol=1e-8)
    theirs.fit(((features - mean) / spread).double().numpy(), labels.numpy())
    expected = torch.from_numpy(theirs.predict_proba(((features - mean) / spread).double().numpy()))
    shares = (features @ found.weight.T + found.bias).softmax(1).double()
    torch.testing.assert_close(shares, expected, rtol=0.0, atol=2e-3)
