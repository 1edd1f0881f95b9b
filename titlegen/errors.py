"""The exceptions that titlegen raises; ``console.run`` alone catches them."""


class TitlegenError(Exception):
    """Base of all expected failures: says what failed, the value received and what to do next."""


class ConfigError(TitlegenError):
    """A profile, environment variable or option is unknown or has a value that cannot be used."""


class DataError(TitlegenError):
    """A data set cannot be read, or nothing usable is left of it."""


class MissingDependencyError(TitlegenError):
    """A package or program is missing; the message holds the command that installs it."""


class TrainError(TitlegenError):
    """Training cannot start, or stopped before it was done."""


class ExportError(TitlegenError):
    """The merged model or the GGUF file cannot be written."""


class VerifyError(TitlegenError):
    """An artefact differs from its manifest, its base model or its adapter."""


class GateError(TitlegenError):
    """A gate failed, and the command stopped; exit code 1."""


class HubError(TitlegenError):
    """The Hub refused, cannot be reached, or does not hold what was sent."""


class ServeError(TitlegenError):
    """The model server cannot be reached, refused, or answered something unusable."""
