"""The message codec agrees with TensorFlow's own classes and refuses truncated data."""

import numpy as np
import pytest
import tensorflow as tf

from tests.contract import messages, wire


@pytest.mark.parametrize("kind", ["f4", "f8", "i4", "u1", "i2", "i1", "i8", "?", "u2", "f2", "u4", "u8", "O"])
def test_the_codec_reads_what_tensorflow_writes_and_the_reverse(kind):
    values = (
        np.array([b"", b"\xff\x00", b"a", b"b", b"bb", b"b"], object)
        if kind == "O"
        else np.arange(6).astype(kind)
    )
    if kind[0] in "fi":
        values -= 3
    for array in (values.reshape(2, 3), np.repeat(values[1:2], 9).reshape(3, 3), values[:0], values[1:2]):
        proto = tf.make_tensor_proto(array)
        np.testing.assert_array_equal(messages.tensor_from_proto(proto.SerializeToString()), array)
        for one_by_one in (False, True):
            proto = type(proto).FromString(messages.tensor_to_proto(array, one_by_one))
            np.testing.assert_array_equal(tf.make_ndarray(proto), array)


def test_the_codec_repeats_the_last_value_and_refuses_truncated_messages():
    short = type(tf.make_tensor_proto(0))(
        dtype=1, tensor_shape=tf.TensorShape([5]).as_proto(), float_val=[1, 2]
    )
    np.testing.assert_array_equal(messages.tensor_from_proto(short.SerializeToString()), [1, 2, 2, 2, 2])
    with pytest.raises(ValueError, match="ends within"):
        messages.tensor_from_proto(short.SerializeToString()[:-1])


def test_a_request_and_a_reply_come_back_as_they_were_sent():
    values = {"a": np.arange(-3, 3, dtype=np.int32).reshape(2, 3), "b": np.array([b"x\x00"], object)}
    request = messages.PredictRequest.decode(
        messages.PredictRequest("m", values, "stylize", 300, ("one", "two")).encode()
    )
    assert (request.model, request.signature, request.version) == ("m", "stylize", 300)
    assert request.outputs == ("one", "two")
    reply = messages.PredictResponse.decode(messages.PredictResponse(values, "m", "s", 2).encode())
    for name, value in values.items():
        np.testing.assert_array_equal(request.inputs[name], value)
        np.testing.assert_array_equal(reply.outputs[name], value)


def test_records_are_those_that_tensorflow_writes(tmp_path):
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (b"", b"123456789", bytes(range(256))):
            writer.write(record)
    assert list(wire.records(path)) == [b"", b"123456789", bytes(range(256))]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="checksum"):
        list(wire.records(path))
