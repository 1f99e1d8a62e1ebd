"""Checks of a TF Serving server, with the unmodified stubs of tensorflow-serving-api, at any address.

They restate facts from upstream's own tests (tensorflow_serving/model_servers/tensorflow_model_server_test.py and the
unit tests of predict, metadata, status and version lookup) about the calls that this package's server answers. Without
a target they run against that server; against a real `tensorflow_model_server`:

    python -m tests.conformance model /tmp/half_plus_two
    tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=half_plus_two \\
        --model_base_path=/tmp/half_plus_two --enable_grpc_healthcheck_service --monitoring_config_file=...
    make conformance TARGET=localhost:8500 MODELS=/tmp/half_plus_two METRICS=localhost:8501

MODELS, where the suite can write to it, adds the checks that publish versions; METRICS adds those of the metrics.
"""
