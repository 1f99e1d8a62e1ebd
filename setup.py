"""Package metadata. The core is light on purpose: Beam workers and clients install it without TensorFlow."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent

EXTRAS = {
    # tf-keras is Keras 2, which tensorflow-recommenders needs; its minor version must be TensorFlow's.
    "model": [
        "tensorflow>=2.18,<2.22",
        "tf-keras>=2.18,<2.22",
        "tensorboard>=2.18,<3",
        "tensorflow-recommenders>=0.7.7,<0.8",
        "tensorflow-serving-api>=2.18,<2.22",
        "pyarrow>=17",
    ],
    # Beam fails to import its data frames beside pandas 3, which it does inside notebooks.
    "pipelines": [
        "apache-beam>=2.66,<3",
        "google-crc32c>=1.5,<2",
        "isal>=1.6,<2",
        "pandas>=2.2,<3",
        "pyarrow>=17",
    ],
    "client": ["grpcio>=1.66,<2"],
    "serving": [
        "grpcio>=1.66,<2",
        "grpcio-health-checking>=1.66,<2",
        "prometheus-client>=0.20,<1",
        "tensorflow>=2.18,<2.22",
        "tensorflow-serving-api>=2.18,<2.22",
    ],
    "report": ["Jinja2>=3.1,<4", "matplotlib>=3.9,<4", "pyarrow>=17", "tensorboard>=2.18,<3"],
    "tune": ["optuna>=4.2,<5", "matplotlib>=3.9,<4"],
    "notebooks": ["matplotlib>=3.9,<4", "ipykernel>=6.29", "nbclient>=0.10,<1", "nbformat>=5.10,<6"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# Tables of BigQuery, paths on gs:// and jobs on Dataflow: not in `all`, because Google's clients are large.
EXTRAS["bigquery"] = ["apache-beam[gcp]>=2.66,<3", *EXTRAS["pipelines"]]
EXTRAS["dev"] = EXTRAS["all"] + [
    "hypothesis>=6.100,<7",
    "jsonschema>=4.23,<5",
    "kubernetes-validate>=1.30,<2",
    "mypy>=1.11,<3",
    "playwright>=1.49,<2",
    "pytest>=8.2,<10",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.6,<1",
    "lightgbm>=4.3,<5",
    "scikit-learn>=1.5,<2",
    "scipy>=1.11,<2",
    "types-PyYAML",
    "types-tqdm",
    "types-protobuf",
]

setup(
    name="mmoe_ranker",
    version="0.1.0",
    description="YouTube's multitask ranking system (Zhao et al., RecSys 2019): from logs to a ranked list over gRPC",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["mmoe_ranker*", "pipelines*", "serving*"]),
    package_data={"mmoe_ranker": ["presets/*.yaml", "report/*.jinja", "report/*.css", "report/*.js", "py.typed"]},
    install_requires=[
        "click>=8.1,<9",
        "numpy>=1.26,<3",
        "protobuf>=4.25,<8",
        "pydantic>=2.7,<3",
        "PyYAML>=6,<7",
        "tqdm>=4.66,<5",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmoe-ranker=mmoe_ranker.cli:main"]},
)
