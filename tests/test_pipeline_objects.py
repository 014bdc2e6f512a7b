"""Long objects: slices arrive in any order, some never, some twice; what arrives whole is what was sent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.codec.sections import Part, PartKind
from streamgc.pipeline.objects import ObjectReceiver, ObjectSender


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=900),
    slice_bytes=st.integers(20, 300),
    losses=st.lists(st.booleans(), min_size=400, max_size=400),
)
def test_an_object_arrives_whole_over_a_lossy_link(data: bytes, slice_bytes: int, losses: list[bool]) -> None:
    sender, receiver = ObjectSender(), ObjectReceiver()
    sender.add(PartKind.KEY, 3, data, slice_bytes)
    lost = iter(losses)
    done = None
    for frame in range(0, 2000, 2):
        for part in sender.take(500, frame):
            if not next(lost, False):
                done = receiver.accept(part) or done
        sender.confirm(receiver.held())
        if not sender.pending(PartKind.KEY):
            break
    assert done is not None
    assert (done.kind, done.number, done.data) == (PartKind.KEY, 3, data)
    assert not sender.take(500, 3000)


def test_a_finished_object_is_not_started_again_by_late_slices() -> None:
    receiver = ObjectReceiver()
    parts = [Part(PartKind.KEY, 1, i, 2, bytes([i])) for i in range(2)]
    assert receiver.accept(parts[0]) is None
    assert receiver.accept(parts[1]) is not None
    assert receiver.accept(parts[0]) is None
    assert [entry.object_id for entry in receiver.held()] == [1]
    assert receiver.accept(Part(PartKind.KEY, 2, 0, 1, b"x")) is not None


def test_numbers_wrap() -> None:
    receiver = ObjectReceiver()
    for turn in range(20):
        assert receiver.accept(Part(PartKind.KEY, turn % 8, 0, 1, bytes([turn]))) is not None


def test_what_was_given_up_does_not_mix_with_the_next_of_its_number() -> None:
    receiver = ObjectReceiver()
    assert receiver.accept(Part(PartKind.KEY, 1, 0, 2, b"old")) is None  # its sender begins anew
    for number in range(2, 9):
        assert receiver.accept(Part(PartKind.KEY, number % 8, 0, 1, b"x")) is not None
    assert [(entry.object_id, entry.first) for entry in receiver.held()] == [(0, 1)]
    assert receiver.accept(Part(PartKind.KEY, 1, 1, 2, b"new")) is None
    done = receiver.accept(Part(PartKind.KEY, 1, 0, 2, b"all "))
    assert done is not None
    assert done.data == b"all new"


def test_slices_of_a_kind_can_be_forgotten() -> None:
    receiver = ObjectReceiver()
    for kind in (PartKind.ROOM, PartKind.KEY):
        assert receiver.accept(Part(kind, 1, 0, 2, b"a")) is None
    receiver.forget(PartKind.ROOM)
    assert [entry.kind for entry in receiver.held()] == [PartKind.KEY]


def test_an_endless_object_is_dropped() -> None:
    receiver = ObjectReceiver()
    for index in range(200):
        assert receiver.accept(Part(PartKind.ROOM, 1, index, 4096, bytes(1000))) is None
    assert sum(entry.first for entry in receiver.held()) < 100


def test_slices_keep_to_the_budget_and_are_repeated_when_unconfirmed() -> None:
    sender = ObjectSender()
    sender.add(PartKind.KEY, 0, bytes(1000), 100)
    assert sum(len(p.payload) for p in sender.take(250, 0)) == 200
    sent = [p.slice_index for frame in range(1, 5) for p in sender.take(250, frame)]
    assert sent == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [p.slice_index for p in sender.take(250, 5)] == [0, 1]


def test_a_coarse_key_rides_in_every_message_until_confirmed() -> None:
    sender = ObjectSender()
    sender.add(PartKind.COARSE_KEY, 0, bytes(390), 390)
    assert [len(sender.take(0, frame)) for frame in range(3)] == [1, 1, 1]
    sender.complete(PartKind.COARSE_KEY, 0)
    assert not sender.take(1000, 4)
