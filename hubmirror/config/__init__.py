"""
The options of an operator: frozen values, their defaults, their validation, and the configuration
file.
"""

from hubmirror.config.fields import ConfigError, describeDefault, optionName
from hubmirror.config.file import ConfigFileError, readFile
from hubmirror.config.options import MirrorConfig, options
from hubmirror.config.registries import Account, RegistryConfig
from hubmirror.config.values import Rate

__all__ = [
    "Account",
    "ConfigError",
    "ConfigFileError",
    "MirrorConfig",
    "Rate",
    "RegistryConfig",
    "describeDefault",
    "optionName",
    "options",
    "readFile",
]
