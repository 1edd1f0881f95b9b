"""Places for titles, and the lengths that a model can be asked for: one table."""

from titlegen.slots import LENGTHS, SLOTS, Slot, fill_slots


def test_each_slot_has_the_best_that_fits() -> None:
    titles = ["甲" * 20, "乙" * 13, "丙" * 12, "丁" * 40]
    assert fill_slots(titles) == {"push": 1, "mobile": 1, "web": 0, "print": 0}
    assert fill_slots(titles, [Slot("tiny", 5)]) == {"tiny": None}
    assert fill_slots([]) == dict.fromkeys([slot.name for slot in SLOTS])


def test_every_slot_with_an_end_can_be_asked_for() -> None:
    assert {length.slot: length.max_chars for length in LENGTHS if length.slot} == {
        slot.name: slot.max_chars for slot in SLOTS if slot.max_chars
    }


def test_every_number_of_characters_has_one_length() -> None:
    for chars in range(1, 40):
        assert sum(length.fits("字" * chars) for length in LENGTHS) == (9 <= chars <= 28), chars


def test_the_lengths_are_those_that_models_were_trained_with() -> None:
    assert [(length.min_chars, length.max_chars) for length in LENGTHS] == [(9, 13), (14, 18), (19, 23), (24, 28)]
