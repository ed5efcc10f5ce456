import numpy as np
import pytest
from clear_examples import clear_examples

from client.batch import Batch
from client.client import Client
from client.message_size import LEAST_BYTES, MOST_BYTES, MessageLimit, MessageSize
from client.model_input import ModelInput
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 64, 4096, 300
MIB = 2**20
UNBOUNDED = 2**31


def batch(rows, row_bytes=MIB):
    """Rows that take no memory."""
    array = np.broadcast_to(np.int8(0), (rows, row_bytes))
    return Batch({"x": ModelInput("x", np.dtype(np.int8), (row_bytes,))}, {"x": array})


def sizes(of, limit, seconds=0.001):
    """Rows of the messages of a batch, each of which takes so long to send."""
    size = MessageSize(limit)
    start, found = 0, []
    while start < len(of):
        part = size.next_rows(of, start)
        found.append(part.stop - part.start)
        size.sent(found[-1] * of.row_bytes(), seconds)
        start = part.stop
    return found


def test_the_first_message_has_the_servers_first_rows_and_the_others_a_whole_execution():
    assert sizes(batch(200), MessageLimit(UNBOUNDED, 1024, 64)) == [16, 64, 64, 56]
    assert sizes(batch(64), MessageLimit(UNBOUNDED, 1024, 32)) == [16, 32, 16]


def test_messages_stay_small_where_they_take_long():
    # 16 MiB in a second: 64 MiB would take four.
    assert sizes(batch(50), MessageLimit(UNBOUNDED, 1024, 64), seconds=1.0) == [16, 16, 16, 2]


def test_a_connection_that_became_slow_gets_small_messages_again():
    size = MessageSize(MessageLimit(UNBOUNDED, 1024, 64))
    size.sent(16 * MIB, 0.01)
    assert size.next_rows(batch(500), 16) == slice(16, 80)
    size.sent(64 * MIB, 10.0)
    assert size.next_rows(batch(500), 80) == slice(80, 96)


def test_each_batch_of_several_messages_begins_with_a_small_one():
    size = MessageSize(MessageLimit(UNBOUNDED, 1024, 64))
    size.sent(64 * MIB, 0.01)
    assert size.next_rows(batch(500), 0) == slice(0, 16)
    assert size.next_rows(batch(64), 0) == slice(0, 64)


def test_without_a_group_of_the_server_messages_have_the_least_size():
    assert sizes(batch(20), MessageLimit(UNBOUNDED, None)) == [8, 8, 4]


def test_small_rows_are_sent_in_messages_of_the_least_size():
    rows = batch(3 * 8192, 1024)
    assert sizes(rows, MessageLimit(UNBOUNDED, None, 64)) == [LEAST_BYTES // 1024] * 3


def test_no_message_is_larger_than_what_the_server_takes():
    assert sizes(batch(64), MessageLimit(20 * MIB, 1024, 64)) == [16, 20, 20, 8]
    assert sizes(batch(30), MessageLimit(UNBOUNDED, 10, 64)) == [10, 10, 10]
    assert max(sizes(batch(300), MessageLimit(UNBOUNDED, None, 256))) == MOST_BYTES // MIB


def test_rows_that_belong_together_stay_in_one_message():
    assert sizes(batch(300), MessageLimit(8 * MIB, 0, 64)) == [300]


@pytest.fixture(scope="module")
def server(serve, graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return serve(graphs.folder)


def test_each_message_of_a_stream_is_one_execution(server, monkeypatch):
    # Else rows of 16 KiB would be sent in larger messages.
    monkeypatch.setattr("client.message_size.LEAST_BYTES", 4 * FEATURES)
    x, labels = clear_examples(CLASSES, FEATURES, ROWS)
    with Client(server.address) as client:
        assert list(client.config().dynamic_batching.preferred_batch_size) == [64]
        np.testing.assert_array_equal(client.predict(x), labels)
        batches = client.statistics().batch_stats
    executions = {batch.batch_size: batch.compute_infer.count for batch in batches}
    assert executions == {16: 1, 64: 4, ROWS - 16 - 4 * 64: 1}
