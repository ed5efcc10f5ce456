"""The configuration of a model with the labels that it names, as a load uses them."""

import logging
from dataclasses import dataclass

from protos.model_config_pb2 import ModelConfig
from server.loaded_model.labels import Labels
from server.repository.folder import CONFIG, ModelFolder
from server.repository.preflight import model_files
from server.repository.preflight.trials import InServer, Trial

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked configuration, and where it is from, as a text at the beginning of errors."""

    config: ModelConfig
    source: object


def read(trial: Trial | InServer, folder: ModelFolder, override: str | None) -> Configuration:
    """The configuration in the folder, which may have none, or `override`, JSON of a request.

    StartError names what is at fault. Fields without effect are logged.
    """
    if override is not None:
        model_files.check_config_size(model_files.PARAMETER, len(override.encode()))
    elif folder.config_file() is None:
        return Configuration(ModelConfig(), folder.path / CONFIG)
    path = folder.path / CONFIG
    config, warnings = trial.configuration(folder.name, path, override)
    for what in warnings:
        extra = {"model": folder.name, "field": what}
        _log.warning("configuration without effect", extra=extra)
    return Configuration(config, path if override is None else model_files.PARAMETER)


def labels(trial: Trial | InServer, folder: ModelFolder, config: ModelConfig) -> Labels:
    """Labels by output; outputs that name the same file share them. StartError names the file."""
    names = {each.name: each.label_filename for each in config.output if each.label_filename}
    files = folder.label_files(dict.fromkeys(names.values()))
    tables = {name: trial.labels(path) for name, path in files.items()}
    return {output: tables[name] for output, name in names.items()}
