"""Small SavedModels whose answers can be computed by hand."""

from __future__ import annotations

import json
import pathlib

import tensorflow as tf

FLOATS = tf.TensorSpec([None], tf.float32)


class HalfPlusTwo(tf.Module):
    """y = 0.5 x + `offset`, as in TF Serving's own tests, and signatures of every shape that its checks speak of."""

    def __init__(self, offset: float = 2.0) -> None:
        super().__init__()
        self.slope = tf.Variable(0.5)
        self.offset = tf.Variable(offset)
        self.calls = tf.Variable(0, dtype=tf.int64)

    def export(self, folder: pathlib.Path) -> pathlib.Path:
        signatures = {
            "serving_default": tf.function(self.predict, input_signature=[tf.TensorSpec([None], tf.float32, "x")]),
            "two": tf.function(
                self.two, input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec(None, tf.float32, "z")]
            ),
            "scaled": tf.function(self.scaled, input_signature=[FLOATS, tf.TensorSpec([], tf.float32, "scale")]),
            "constant": tf.function(self.constant, input_signature=[]),
            "count": tf.function(self.count, input_signature=[]),
            "spell": tf.function(self.spell, input_signature=[tf.TensorSpec(None, tf.string, "text")]),
            "types": tf.function(self.types, input_signature=[tf.TensorSpec([None], tf.int64, "x")]),
            "slow": tf.function(self.slow, input_signature=[tf.TensorSpec([], tf.int64, "steps")]),
            "positive": tf.function(self.positive, input_signature=[FLOATS]),
            "long_message": tf.function(self.long_message, input_signature=[FLOATS]),
            "regress_x_to_y": tf.function(self.regress, input_signature=[tf.TensorSpec([None], tf.string, "inputs")]),
            "classify_x_to_y": tf.function(self.classify, input_signature=[tf.TensorSpec([None], tf.string, "inputs")]),
        }
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder

    def predict(self, x):
        return {"y": self.slope * x + self.offset}

    def regress(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        return {"outputs": self.slope * x + self.offset}

    def classify(self, inputs):
        return {"scores": self.regress(inputs)["outputs"]}

    def two(self, x, z):
        return {"total": x + z, "product": x * z}

    def scaled(self, x, scale=tf.constant(3.0)):  # noqa: B008 (TF writes a tensor default to SignatureDef.defaults)
        return {"y": x * scale}

    def constant(self):
        return {"answer": tf.constant(42)}

    def count(self):
        return {"calls": self.calls.assign_add(1)}

    def spell(self, text):
        return {"upper": tf.strings.upper(text), "length": tf.strings.length(text)}

    def types(self, x):
        dtypes = (tf.float16, tf.float32, tf.float64, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16)
        dtypes += (tf.uint32, tf.uint64, tf.bool, tf.complex64, tf.complex128)
        return {dtype.name: tf.cast(x, dtype) for dtype in dtypes}

    def slow(self, steps):
        return {"steps": tf.while_loop(lambda i: i < steps, lambda i: (i + 1,), [tf.constant(0, tf.int64)])[0]}

    def positive(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="x must be positive")]):
            return {"root": tf.sqrt(x)}

    def long_message(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="m" * 2000)]):
            return {"root": tf.sqrt(x)}


class Ranker(tf.Module):
    """Every kind of feature on both sides; click = duration / 100, like = (1 + first number of the vector) / 10.

    The two other outputs follow the ranker's contract: combined_score = click^w0 * like^w1 and ranking, best first.
    """

    def __init__(self, scale: float = 1.0, contract: bool = False) -> None:
        super().__init__()
        self.scale = tf.Variable(scale)
        self.has_contract = contract

    def export(self, folder: pathlib.Path) -> pathlib.Path:
        spec = tf.TensorSpec
        signatures = {
            "rank": tf.function(
                self.rank,
                input_signature=[
                    spec([1], tf.string, "device"),
                    spec([1], tf.int64, "hour"),
                    spec([1], tf.float32, "age"),
                    spec([1, None], tf.string, "watch_history"),
                    spec([None], tf.string, "video_id"),
                    spec([None], tf.float32, "duration"),
                    spec([None, 2], tf.float32, "content"),
                    spec([None, 3], tf.string, "tags"),
                    spec([None, None], tf.int64, "levels"),
                    spec([2], tf.float32, "score_weights"),
                ],
            ),
            "seen": tf.function(
                self.seen,
                input_signature=[
                    spec([1], tf.string, "device"),
                    spec([1, None], tf.string, "watch_history"),
                    spec([None, 3], tf.string, "tags"),
                ],
            ),
        }
        if self.has_contract:
            signatures["contract"] = tf.function(self.contract, input_signature=[])
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder

    def rank(
        self,
        device,
        hour,
        age,
        watch_history,
        video_id,
        duration,
        content,
        tags,
        levels,
        score_weights=tf.constant([1.0, 0.5]),  # noqa: B008
    ):
        # Everything that was sent moves a score, so that a test notices what did not arrive.
        history = tf.cast(tf.reduce_sum(tf.strings.length(watch_history)), tf.float32)
        once = tf.cast(tf.strings.length(device), tf.float32) + tf.cast(hour, tf.float32) + history
        once += tf.where(tf.math.is_nan(age), -1.0, age)
        each = tf.cast(tf.strings.length(video_id), tf.float32)
        each += tf.cast(tf.reduce_sum(tf.strings.length(tags), axis=1), tf.float32)
        each += tf.cast(tf.reduce_sum(levels, axis=1), tf.float32)
        click = self.scale * tf.where(tf.math.is_nan(duration), 0.5, duration) / 100.0
        like = (1.0 + content[:, 0]) / 10.0 + 0.0 * content[:, 1]
        score = tf.exp(score_weights[0] * tf.math.log(click) + score_weights[1] * tf.math.log(like))
        # A copy of the sum of all features lies in an objective of its own.
        return {
            "click": click,
            "like": like,
            "combined_score": score + 1e-4 * (each + once),
            "ranking": tf.argsort(score + 1e-4 * (each + once), direction="DESCENDING"),
        }

    def seen(self, device, watch_history, tags):
        return {"device": device, "watch_history": watch_history, "tags": tags}

    def contract(self):
        contract = {"item_key": "video_id", "objectives": [{"name": "like"}, {"name": "click"}]}
        return {"contract": tf.constant(json.dumps(contract))}
