"""The few messages of TensorFlow and TensorFlow Serving that ranking over gRPC needs, without either package.

The generated modules of `tensorflow-serving-api` import all of TensorFlow (seconds and hundreds of megabytes). gRPC
does not look at a message's full name, only at field numbers, so the same numbers in a package of our own speak to any
TF Serving. The descriptors are built when this module is imported: there is no generated code whose protobuf version
could disagree with the installed one, and no full name that could clash with TensorFlow's in one process. Fields that
are not listed survive as unknown fields when a message is parsed and serialized again.

Sources of the field numbers: tensorflow/core/framework/{tensor,tensor_shape,graph,node_def}.proto,
tensorflow/core/protobuf/{meta_graph,config}.proto, tensorflow_serving/apis/{model,predict,prediction_log,
get_model_metadata}.proto.
"""

from __future__ import annotations

from typing import Any

from serving.protos.schema import build_messages

_TENSOR_FIELDS: list[tuple[str, int, str]] = [
    ("dtype", 1, "int32"),  # DataType; an enum and an int32 are the same on the wire
    ("tensor_shape", 2, "TensorShapeProto"),
    ("tensor_content", 4, "bytes"),
    ("float_val", 5, "repeated float"),
    ("double_val", 6, "repeated double"),
    ("int_val", 7, "repeated int32"),
    ("string_val", 8, "repeated bytes"),
    ("scomplex_val", 9, "repeated float"),
    ("int64_val", 10, "repeated int64"),
    ("bool_val", 11, "repeated bool"),
    ("dcomplex_val", 12, "repeated double"),
    ("half_val", 13, "repeated int32"),
    ("uint32_val", 16, "repeated uint32"),
    ("uint64_val", 17, "repeated uint64"),
]

_messages = build_messages(
    "mmoe_ranker.serving",
    {
        "Dim": [("size", 1, "int64"), ("name", 2, "string")],
        "TensorShapeProto": [("dim", 2, "repeated Dim"), ("unknown_rank", 3, "bool")],
        "TensorProto": _TENSOR_FIELDS,
        "TextTensorProto": [*_TENSOR_FIELDS[:3], ("string_val", 8, "repeated string")],
        "TensorInfo": [("name", 1, "string"), ("dtype", 2, "int32"), ("tensor_shape", 3, "TensorShapeProto")],
        "SignatureDef": [
            ("inputs", 1, "map TensorInfo"),
            ("outputs", 2, "map TensorInfo"),
            ("method_name", 3, "string"),
            ("defaults", 4, "map TensorProto"),
        ],
        "SignatureDefMap": [("signature_def", 1, "map SignatureDef")],
        "NodeDef": [("op", 2, "string")],
        "GraphDef": [("node", 1, "repeated NodeDef")],
        "MetaGraphDef": [("graph_def", 2, "GraphDef"), ("signature_def", 5, "map SignatureDef")],
        "RunOptions": [("timeout_in_ms", 2, "int64"), ("inter_op_thread_pool", 3, "int32")],
        "ModelSpec": [
            ("name", 1, "string"),
            ("version", 2, "google.protobuf.Int64Value"),
            ("signature_name", 3, "string"),
            ("version_label", 4, "string"),
        ],
        "PredictRequest": [
            ("model_spec", 1, "ModelSpec"),
            ("inputs", 2, "map TensorProto"),
            ("output_filter", 3, "repeated string"),
        ],
        # A PredictRequest as a client of this package writes it: what it sends is numbers or Unicode, and protobuf
        # turns strings into bytes faster than Python does.
        "RankRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "map TextTensorProto")],
        "PredictResponse": [("outputs", 1, "map TensorProto"), ("model_spec", 2, "ModelSpec")],
        # Of a log's kinds one is set; those that this server does not serve are told apart by their names alone.
        "PredictionLog": [
            ("classify_log", 2, "UnservedLog"),
            ("regress_log", 3, "UnservedLog"),
            ("multi_inference_log", 4, "UnservedLog"),
            ("session_run_log", 5, "UnservedLog"),
            ("predict_log", 6, "PredictLog"),
            ("predict_streamed_log", 7, "UnservedLog"),
        ],
        "PredictLog": [("request", 1, "PredictRequest"), ("response", 2, "PredictResponse")],
        "UnservedLog": [],
        "GetModelMetadataRequest": [("model_spec", 1, "ModelSpec"), ("metadata_field", 2, "repeated string")],
        "GetModelMetadataResponse": [
            ("model_spec", 1, "ModelSpec"),
            ("metadata", 2, "map google.protobuf.Any"),
        ],
    },
)

TensorProto: Any = _messages["TensorProto"]
SignatureDef: Any = _messages["SignatureDef"]
SignatureDefMap: Any = _messages["SignatureDefMap"]
PredictionLog: Any = _messages["PredictionLog"]
MetaGraphDef: Any = _messages["MetaGraphDef"]
RunOptions: Any = _messages["RunOptions"]
RankRequest: Any = _messages["RankRequest"]
PredictRequest: Any = _messages["PredictRequest"]
PredictResponse: Any = _messages["PredictResponse"]
GetModelMetadataRequest: Any = _messages["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _messages["GetModelMetadataResponse"]

# DataType numbers of tensorflow/core/framework/types.proto, by which a signature says what an input is.
DT_FLOAT = 1
DT_STRING = 7
DT_INT64 = 9
