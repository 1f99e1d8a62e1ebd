"""What a config is refused for: each mistake by its path, its rule and what was received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.config_loading import load_config, parse_config
from mmoe_ranker.errors import InputError
from tests.configs import small_config
from tests.refusals import refusal


@pytest.mark.parametrize(
    ("override", "path", "allowed", "received"),
    [
        ("training.epoch=3", "`training.epoch`", "did you mean `epochs`?", "'epoch'"),
        ("modle.hidden=[3]", "`modle`", "allowed: combined_score, evaluation", "'modle'"),
        ("features.user_id.dims=3", "`features.0.dims`", "allowed: buckets, column, dim, hashes, kind", "'dims'"),
        ("model.sharing.exprts=3", "`model.sharing.exprts`", "allowed: experts, gate_dropout, kind, units", "'exprts'"),
        ("model.sharing.kind=moe", "`model.sharing.kind`", "one of 'mmoe', 'shared_bottom', 'ple'", "'moe'"),
        ("model.sharing={experts: 2}", "`model.sharing.kind`", "must be given", "nothing"),
        ("features.0.kind=foo", "`features.0.kind`", "'categorical', 'numeric', 'sequence', 'vector'", "'foo'"),
        ("features.0.side=user", "`features.0.side`", "'context', 'candidate' or 'bias'", "'user'"),
        ("features.0.name=9x", "`features.0.name`", "match pattern", "'9x'"),
        ("features.0.name=device", "`features.1.name`", "not used before", "'device'"),
        ("features.0.name=ranking", "`features.0.name`", "must not be one of request_id", "'ranking'"),
        ("objectives.0.name=video_id", "`objectives.0.name`", "not used before", "'video_id'"),
        (
            "features.device.buckets=4",
            "`features.1`",
            "exactly one of `vocabulary`, `buckets`",
            "['vocabulary', 'buckets']",
        ),
        ("features.user_id.min_count=4", "`features.0`", "only with `vocabulary`", "['min_count']"),
        ("features.duration.quantiles=null", "`features.4`", "takes `dim` only with `quantiles`", "2"),
        ("features.watch_history.dim=4", "`features.2`", "takes none of `dim`", "['dim']"),
        ("features.watch_history.buckets=4", "`features.2`", "exactly one of `embedding`", "['buckets', 'embedding']"),
        (
            "features.watch_history.embedding=video",
            "`features.2.embedding`",
            "allowed: user_id, device, video_id",
            "'video'",
        ),
        ("features.watch_history.side=bias", "`features.2.kind`", "must be categorical", "'sequence'"),
        ("features.position.size=-1", "`features.6.size`", "greater than 0", "-1"),
        ("item_key=duration", "`item_key`", "a categorical feature of side candidate", "'duration'"),
        ("objectives.watch_time.given=watch", "`objectives.1.given`", "allowed: click, like, dismiss", "'watch'"),
        ("objectives.click.given=click", "`objectives.0.given`", "another binary objective", "'click'"),
        ("model.bias.features=[positon]", "`model.bias.features.0`", "allowed: user_id, device, position", "'positon'"),
        ("model.bias.cross=[[position, devic]]", "`model.bias.cross.0.1`", "allowed: position, device", "'devic'"),
        (
            "model.bias.cross=[[position, position]]",
            "`model.bias.cross.0`",
            "name each once",
            "['position', 'position']",
        ),
        (
            "model.bias.cross=[[position, device], [device, position]]",
            "`model.bias.cross.1`",
            "another cross than those before it",
            "['device', 'position']",
        ),
        ("model.bias.dropout=0.0", "`model.bias.dropout`", "above 0", "0.0"),
        ("features.device.vocabulary=[tv, tv]", "`features.1.vocabulary`", "each once", "['tv', 'tv']"),
        ("features.device.vocabulary=[]", "`features.1.vocabulary`", "at least one value", "[]"),
        ("objectives.0.name=gates", "`objectives.0.name`", "must not be one of request_id", "'gates'"),
        ("objectives.0.name=a_logit", "`objectives.0.name`", "nor end in _label or _logit", "'a_logit'"),
        ("model.bias.objectives=[clik]", "`model.bias.objectives.0`", "allowed: click, watch_time", "'clik'"),
        ("model.bias.objectives=[click, click]", "`model.bias.objectives`", "name each once", "['click', 'click']"),
        ("model.bias.dropout=1.0", "`model.bias.dropout`", "less than 1", "1.0"),
        ("combined_score.terms.clik={weight: 1}", "`combined_score.terms.clik`", "must name an objective", "'clik'"),
        ("combined_score.terms.click.weight=.inf", "`combined_score.terms.click.weight`", "finite number", "inf"),
        ("combined_score.terms.dismiss.weight=-1", "`combined_score.terms.dismiss`", "at least 0", "-1.0"),
        (
            "combined_score.terms.watch_time.complement=true",
            "`combined_score.terms.watch_time.complement`",
            "false for a regression",
            "True",
        ),
        ("combined_score.terms={}", "`combined_score.terms`", "at least 1 item", "{}"),
        ("split.test=0.95", "`split`", "leave a share for training", "1.05"),
        ("split.test_start=2022-05-05T00:00:00Z", "`split`", "both `validation_start` and `test_start`", "one of them"),
        ("split={by: user_id, test: 0.95}", "`split`", "leave a share for training", "1.05"),
        ("split.by=duration", "`split.by`", "side context; allowed: user_id, device", "'duration'"),
        ("split.by=video_id", "`split.by`", "a categorical feature of side context", "'video_id'"),
        (
            "split={by: user_id, validation_start: 2022-05-05T00:00:00Z, test_start: 2022-05-05T00:00:00Z}",
            "`split`",
            "takes `by` only without `validation_start` and `test_start`",
            "user_id",
        ),
        ("objectives.like.window=0", "`objectives.2.window`", "greater than 0", "0"),
        ("objectives.like.aggregate=mean", "`objectives.2.aggregate`", "'any', 'first', 'last' or 'sum'", "'mean'"),
        ("objectives.like.aggregate=sum", "`objectives.2`", "takes `aggregate: sum` only with `at_least`", "sum"),
        ("objectives.watch_time.aggregate=any", "`objectives.1.aggregate`", "'sum', 'first' or 'last'", "'any'"),
        ("objectives.watch_time.at_least=3", "`objectives.1.at_least`", "is not a key here", "'at_least'"),
        ("join.clock_skew=-1", "`join.clock_skew`", "greater than or equal to 0", "-1"),
        ("join.skew=1", "`join.skew`", "allowed: clock_skew", "'skew'"),
        ("evaluation.slices=[content]", "`evaluation.slices.0`", "a feature that is no vector", "'content'"),
        ("evaluation.group_by=[duration]", "`evaluation.group_by.0`", "a categorical feature", "'duration'"),
        ("evaluation.bootstrap.by=video_id", "`evaluation.bootstrap.by`", "request_id, or a categorical", "'video_id'"),
        ("evaluation.bootstrap.level=1.0", "`evaluation.bootstrap.level`", "less than 1", "1.0"),
        ("features.user_id.oov_dropout=0.1", "`features.0`", "only with `vocabulary`", "['oov_dropout']"),
        ("features.video_id.hashes=2", "`features.3`", "takes `hashes` only with `buckets`", "2"),
        ("features.user_id.hashes=3", "`features.0.hashes`", "1 or 2", "3"),
        ("features.watch_history.hashes=2", "`features.2`", "takes none of `dim`", "['hashes']"),
        ("features.content.projection=0", "`features.5.projection`", "greater than 0", "0"),
        ("objectives.like.space=entire", "`objectives.2`", "only with `given`", "entire"),
        ("objectives.watch_time.loss=weighted_logistic", "`objectives.1`", "only with `transform: none`", "log1p"),
        ("objectives.watch_time.loss=mse", "`objectives.1.loss`", "'squared_error', 'huber'", "'mse'"),
        ("training.sample_weight=duration", "`training.sample_weight`", "allowed: nothing", "'duration'"),
        ("training.precision=float16", "`training.precision`", "'mixed_bfloat16' or 'mixed_float16'", "'float16'"),
        ("training.distribution.kind=horovod", "`training.distribution.kind`", "'parameter_server'", "'horovod'"),
        ("training.early_stopping={patience: 0}", "`training.early_stopping.patience`", "greater than 0", "0"),
        (
            "training={early_stopping: {patience: 1}, distribution: {kind: multi_worker}}",
            "`training.early_stopping`",
            "must be null where `training.distribution` is of kind multi_worker",
            "{'patience': 1, 'min_delta': 0.0}",
        ),
        (
            "training.distribution={kind: parameter_server, min_shard_bytes: 16}",
            "`training.distribution.min_shard_bytes`",
            "greater than or equal to 1024",
            "16",
        ),
        ("sampling={negatives: 1.0}", "`sampling.negatives`", "less than 1", "1.0"),
        ("training.batch_size=many", "`training.batch_size`", "valid integer", "'many'"),
    ],
)
def test_mistakes_name_path_rule_and_received(
    config_file: Path, override: str, path: str, allowed: str, received: str
) -> None:
    message = refusal(config_file, override)
    assert path in message
    assert allowed in message
    assert message.endswith(f"Received: {received}.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("bias", "path", "allowed", "received"),
    [
        ("{kind: input_feature, features: [device]}", "features.0", "side bias; allowed: position", "'device'"),
        ("{kind: adversarial, features: [device]}", "features.0", "side bias; allowed: position", "'device'"),
        ("{kind: input_feature, features: [position], dropout: 0}", "dropout", "above 0", "0.0"),
        ("{kind: input_feature, features: [position, position]}", "features", "each once", "['position', 'position']"),
        ("{kind: adversarial, features: [position], weight: 0}", "weight", "greater than 0", "0"),
        (
            "{kind: shallow_tower, features: [user_id], objectives: [click]}",
            "features.0",
            "one row a value",
            "'user_id'",
        ),
        (
            "{kind: anchored, features: [position], objectives: [click], random_order: device}",
            "random_order",
            "not among `model.bias.features`; allowed: nothing",
            "'device'",
        ),
        (
            "{kind: anchored, features: [position], objectives: [click], random_order: position}",
            "random_order",
            "not among `model.bias.features`; allowed: nothing",
            "'position'",
        ),
        (
            "{kind: anchored, features: [device], objectives: [click]}",
            "features",
            "a feature of side bias, which is missing at serving; allowed: position",
            "['device']",
        ),
        (
            "{kind: anchored, features: [position], objectives: [watch_time]}",
            "objectives.0",
            "a binary objective of `space: conditional`; allowed: click, like, dismiss",
            "'watch_time'",
        ),
    ],
)
def test_mistakes_of_bias_kinds(config_file: Path, bias: str, path: str, allowed: str, received: str) -> None:
    message = refusal(config_file, f"model.bias={bias}", "features.user_id.hashes=2")
    assert f"`model.bias.{path}`" in message
    assert allowed in message
    assert message.endswith(f"Received: {received}.")


def test_an_anchor_trains_on_one_device(config_file: Path) -> None:
    bias = "model.bias={kind: anchored, features: [position], objectives: [click]}"
    assert load_config(config_file, [bias]).model.bias.kind == "anchored"
    message = refusal(config_file, bias, "training.distribution={kind: mirrored}")
    assert "`training.distribution.kind` must be none where `model.bias` is of kind anchored" in message
    assert message.endswith("Received: 'mirrored'.")


def test_attention_is_from_the_candidate(config_file: Path) -> None:
    message = refusal(
        config_file, "features.watch_history.pooling=attention", "features.watch_history.embedding=user_id"
    )
    assert "`features.2.embedding` must be 'video_id', the item key" in message
    assert message.endswith("Received: 'user_id'.")


def test_a_number_of_side_bias_is_the_sample_weight_alone(config_file: Path) -> None:
    importance = "features.content={name: importance, side: bias, kind: numeric}"
    assert load_config(config_file, [importance, "training.sample_weight=importance"]).training.sample_weight
    assert "side bias and not `training.sample_weight`" in refusal(config_file, importance)
    logged = "features.content={name: importance, side: bias, kind: numeric, transform: log1p}"
    message = refusal(config_file, logged, "training.sample_weight=importance")
    assert "`training.sample_weight` must name a feature that is used as it stands" in message
    assert message.endswith("Received: 'importance'.")


def test_dropped_zeros_cannot_be_brought_back_in_the_export(config_file: Path) -> None:
    overrides = ["sampling={negatives: 0.1}", "objectives.watch_time.without_event=zero"]
    message = refusal(config_file, *overrides)
    assert "`objectives.1.without_event` must be missing where `sampling.correction` is export" in message
    assert message.endswith("Received: 'zero'.")
    assert load_config(config_file, [*overrides, "sampling.correction=weights"]).sampling is not None


def test_every_mistake_is_named(config_file: Path) -> None:
    message = refusal(config_file, "training.epochs=0", "model.hiden=[3]")
    assert "`training.epochs`" in message
    assert "`model.hiden`" in message
    assert len(message.splitlines()) == 2


def test_given_must_not_go_in_a_circle(config_file: Path) -> None:
    message = refusal(config_file, "objectives.click.given=like", "objectives.like.given=click")
    assert "must not lead back" in message
    assert message.endswith("Received: 'click -> like -> click'.")


@pytest.mark.parametrize("section", ["features", "objectives", "combined_score", "name", "item_key"])
def test_missing_sections(section: str) -> None:
    raw: dict[str, Any] = small_config()
    del raw[section]
    with pytest.raises(InputError, match=f"`{section}` must be given. Received: nothing"):
        parse_config(raw)
