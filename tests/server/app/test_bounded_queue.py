from server.app.bounded_queue import BoundedQueue


def test_what_has_no_room_is_dropped_and_counted():
    queue = BoundedQueue(3)
    for item in range(5):
        queue.put(item)
    queue.put_always("last")
    assert queue.dropped == 2
    assert queue.take(2) == [0, 1]
    assert queue.take(10) == [2, "last"]
    assert queue.empty
    queue.put(6)
    assert queue.take(10, 0) == [6]
    assert queue.take(10, 0) == []
    assert queue.dropped == 2
