import threading

from server.batching import handover


class Written:
    """Counts what is corked and written, by thread."""

    def __init__(self):
        self.steps = []

    def cork(self):
        self.steps.append("cork")

    def uncork(self):
        self.steps.append("uncork")


def test_a_connection_is_corked_once_for_all_answers_of_a_batch():
    connections = [Written(), Written()]
    with handover.answers_together():
        for connection in [*connections, *connections]:
            handover.gather(connection)
        assert [each.steps for each in connections] == [["cork"], ["cork"]]
    assert [each.steps for each in connections] == [["cork", "uncork"]] * 2


def test_answers_outside_of_a_batch_or_of_another_thread_are_not_held_back():
    connection = Written()
    handover.gather(connection)
    with handover.answers_together():
        thread = threading.Thread(target=handover.gather, args=(connection,))
        thread.start()
        thread.join()
    assert connection.steps == []


def test_what_was_gathered_is_written_after_a_failure():
    connection = Written()
    try:
        with handover.answers_together():
            handover.gather(connection)
            raise KeyError
    except KeyError:
        assert connection.steps == ["cork", "uncork"]
