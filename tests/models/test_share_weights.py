"""Frozen weights that student and teacher have in common are held once, and nothing else is."""

import copy

import torch

from edgerazor.checkpoint import round_unquantized_
from edgerazor.models.share_weights import share_frozen_weights


def shared(student, teacher):
    own = {parameter.data_ptr() for parameter in student.parameters()}
    return {name for name, parameter in teacher.named_parameters() if parameter.data_ptr() in own}


def test_frozen_weights_are_held_once_and_logits_stay(build_model):
    student = build_model(seed=0, tie_word_embeddings=False)
    teacher = copy.deepcopy(student).requires_grad_(False)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("mlp" in name)
    ids = torch.arange(12).reshape(1, 12)
    expected = teacher(ids).logits
    saved = share_frozen_weights(student, teacher)
    names = {name for name, parameter in student.named_parameters() if not parameter.requires_grad}
    assert "lm_head.weight" in names and shared(student, teacher) == names
    assert saved == sum(parameter.nbytes for parameter in student.parameters() if not parameter.requires_grad)
    assert share_frozen_weights(student, teacher) == 0
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    assert torch.equal(teacher(ids).logits, expected)


def test_rounding_the_finished_student_leaves_the_teacher_alone(build_model):
    student = build_model(seed=0).requires_grad_(False)
    teacher = copy.deepcopy(student)
    ids = torch.arange(12).reshape(1, 12)
    expected = teacher(ids).logits
    assert share_frozen_weights(student, teacher) > 0
    round_unquantized_(student)
    assert torch.equal(teacher(ids).logits, expected)
    assert not torch.equal(student(ids).logits, expected)


def test_a_tied_head_counts_once(build_model):
    student = build_model(seed=0, tie_word_embeddings=True).requires_grad_(False)
    teacher = copy.deepcopy(student)
    assert share_frozen_weights(student, teacher) == sum(parameter.nbytes for parameter in student.parameters())
    assert teacher.lm_head.weight.data_ptr() == student.model.embed_tokens.weight.data_ptr()


def test_what_differs_or_is_trained_stays_apart(build_model):
    student = build_model(seed=0).requires_grad_(False)
    trained = build_model(seed=0)
    assert share_frozen_weights(trained, copy.deepcopy(student)) == 0
    assert share_frozen_weights(student, copy.deepcopy(trained)) == 0
    assert share_frozen_weights(student, copy.deepcopy(student).to(torch.bfloat16)) == 0
    other = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.view(-1)[0] += 1
    assert share_frozen_weights(student, other) == 0 and not shared(student, other)
