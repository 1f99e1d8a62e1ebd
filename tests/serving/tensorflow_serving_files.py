"""What TF Serving says of its own files, which the package tensorflow-serving-api leaves out: configs and flags."""

from __future__ import annotations

from tensorflow_serving.config import model_server_config_pb2

from serving.protos.schema import build_messages

_INT64 = "google.protobuf.Int64Value"
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto, config/{monitoring_config,ssl_config}.proto.
MESSAGES = {"ModelServerConfig": model_server_config_pb2.ModelServerConfig} | build_messages(
    "mmoe_ranker.deploy_test",
    {
        "BatchingParameters": [
            ("max_batch_size", 1, _INT64),
            ("batch_timeout_micros", 2, _INT64),
            ("max_enqueued_batches", 3, _INT64),
            ("num_batch_threads", 4, _INT64),
            ("allowed_batch_sizes", 6, "repeated int64"),
            ("pad_variable_length_inputs", 7, "bool"),
            ("enable_large_batch_splitting", 8, "google.protobuf.BoolValue"),
            ("max_execution_batch_size", 9, _INT64),
        ],
        "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
        "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig")],
        "SSLConfig": [
            ("server_key", 1, "string"),
            ("server_cert", 2, "string"),
            ("custom_ca", 3, "string"),
            ("client_verify", 4, "bool"),
        ],
    },
)

# Those of tensorflow_serving/model_servers/main.cc that a deployment may want.
FLAGS = {
    *("port", "grpc_socket_path", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms"),
    *("enable_batching", "batching_parameters_file", "enable_per_model_batching_parameters"),
    *("model_config_file", "model_config_file_poll_wait_seconds", "model_name", "model_base_path"),
    *("num_load_threads", "num_unload_threads", "max_num_load_retries", "load_retry_interval_micros"),
    *("file_system_poll_wait_seconds", "flush_filesystem_caches", "tensorflow_session_parallelism"),
    *("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "ssl_config_file"),
    *("grpc_channel_arguments", "grpc_max_threads", "enable_model_warmup", "num_request_iterations_for_warmup"),
    *("monitoring_config_file", "allow_version_labels_for_unavailable_models", "enable_grpc_healthcheck_service"),
}
# The names that its health service knows; "" is there too.
HEALTH_SERVICES = {"PredictionService", "ModelService"}
