"""What can go wrong. Each message is one sentence, for a person."""


class OpenElmError(Exception):
    """Any error of openelm."""


class ModelFileError(OpenElmError, OSError):
    """A model, tokenizer or adapter is missing, damaged, or of another model."""


class OutOfMemoryError(OpenElmError, MemoryError):
    """The model would not fit into memory; nothing was loaded."""


class InputError(OpenElmError, ValueError):
    """A prompt, an id or an option that does not suit the model."""


class BusyError(OpenElmError, RuntimeError):
    """The session is generating."""
