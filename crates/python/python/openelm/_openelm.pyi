"""The compiled half of the package."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Callable, Literal, Optional, Union, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

_Path = Union[str, "os.PathLike[str]"]
_Cache = Literal["f32", "f16", "int8"]
_Finish = Literal["end_of_text", "stop", "max_tokens", "context_full", "cancelled"]

def version() -> str:
    """The version of the library."""

def available_memory() -> Optional[int]:
    """Bytes that this process can still have; ``None`` where the system does not say."""

def verify_bundle(path: _Path) -> None:
    """Reads all of the bundle at ``path`` and compares it with its hashes, as one does once behind a download.

    Opening looks at everything but the hash of the weights.
    """

def footprint(
    path: _Path,
    *,
    threads: int = 0,
    cache: _Cache = "f32",
    context: Optional[int] = None,
    memory: Optional[int] = None,
    tokenizer: Optional[_Path] = None,
) -> dict[str, int]:
    """Bytes that the model at ``path`` and one session of it would take: ``weights``, ``cache``, ``buffers``, ``total``. Nothing
    is loaded."""

def convert(
    source: _Path,
    target: _Path,
    to: Literal["hf", "corenet", "mlx", "gguf"],
    *,
    dtype: Optional[Literal["float32", "float16", "bfloat16"]] = None,
    bits: Optional[int] = None,
    group_size: int = 64,
    quantisation: Optional[str] = None,
    tokenizer: Optional[_Path] = None,
) -> list[str]:
    """Writes the model at ``source`` to ``target`` in another format. Returns warnings.

    ``dtype`` is for floats (default: as the model has them), ``bits`` (2, 3, 4, 5, 6, 8) and ``group_size`` (32, 64, 128) are for
    mlx, ``quantisation`` (``"q4_0"`` to ``"q6_K"``) is for gguf. Nothing that exists is overwritten; Ctrl-C leaves nothing behind.
    """

def tune(
    model: Union[Model, _Path],
    data: Sequence[str],
    *,
    output: _Path,
    method: str,
    pairs: bool,
    tokenizer: Optional[_Path],
    changes: Sequence[str],
    threads: int,
    on_step: Optional[Callable[[str], object]],
) -> tuple[Path, Path]:
    """What :func:`openelm.tune` calls: ``changes`` are ``dotted.key=value``, an update is a line of the log. Returns the output
    folder and the newest checkpoint."""

def tune_recipe(
    path: _Path,
    *,
    changes: Sequence[str],
    threads: int,
    on_step: Optional[Callable[[str], object]],
) -> tuple[Path, Path]:
    """What :func:`openelm.tune_recipe` calls; see :func:`tune`."""

def evaluate(
    model: Union[Model, _Path],
    tasks: Sequence[str],
    *,
    data: Optional[_Path],
    num_fewshot: int,
    limit: Optional[int],
    adapter: Optional[_Path],
    seed: int,
    harness: str,
    bos: Optional[bool],
    context: Optional[int],
    cache: str,
    exact: bool,
    output: Optional[_Path],
    tokenizer: Optional[_Path],
    threads: int,
    on_progress: Optional[Callable[[str, float], object]],
) -> str:
    """What :func:`openelm.evaluate` calls: the results as ``results.json`` has them."""

@final
class Tokenizer:
    """Text to token ids and back."""

    def encode(self, text: str, is_prompt: bool = True) -> list[int]:
        """The ids of ``text``; unless told otherwise as those of a prompt, behind the token that begins a text if the model
        wants one."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; those beyond the vocabulary are passed over."""

    @property
    def bos_token_id(self) -> Optional[int]:
        """The token that begins a text."""

    @property
    def eos_token_id(self) -> Optional[int]:
        """The token that is put behind a text."""

    @property
    def eos_token_ids(self) -> list[int]:
        """All tokens at which generation ends."""

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""

    def __len__(self) -> int: ...

@final
class Piece:
    """Some text, and the tokens drawn since the piece before."""

    @property
    def text(self) -> str:
        """Whole characters. Only the last piece may be empty."""

    @property
    def tokens(self) -> list[int]:
        """Ids; the text of the last ones may come with the next piece."""

    @property
    def log_probabilities(self) -> Optional[list[float]]:
        """The logarithm of each token's probability by the model's own distribution, if asked for."""

@final
class Generation(Iterator[Piece]):
    """Pieces of a text as they are made; other Python threads run meanwhile.

    A generation that nobody holds any more is cancelled; so is one whose ``with`` block is left. Its session then holds the prompt
    and the tokens that were handed out.
    """

    def __iter__(self) -> Generation: ...
    def __next__(self) -> Piece: ...
    def cancel(self) -> None:
        """Ends the text at once."""

    def pause(self) -> None:
        """Computes no further than the next token until :meth:`resume`."""

    def resume(self) -> None:
        """Goes on after :meth:`pause`."""

    @property
    def finish(self) -> Optional[_Finish]:
        """Why the text ended; ``None`` while it goes on."""

    def __enter__(self) -> Generation: ...
    def __exit__(
        self,
        kind: Optional[type[BaseException]] = None,
        exception: Optional[BaseException] = None,
        traceback: Optional[TracebackType] = None,
    ) -> None: ...

@final
class Session:
    """A conversation with a model: it remembers what it has read and written, and goes on from there."""

    def generate(
        self,
        prompt: Union[str, Sequence[int], Sequence[dict[str, str]]],
        *,
        max_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int = 0,
        seed: int = 0,
        stop: Sequence[str] = ...,
        ignore_end: bool = False,
        log_probabilities: bool = False,
    ) -> Generation:
        """Reads ``prompt``, text or token ids, and writes on behind it.

        A list of messages, ``{"role": "user", "content": "Hello"}``, is a conversation from its beginning, whose last message is
        answered: what the session holds of it already is not read again, what it holds beyond is forgotten.

        The most probable token is taken at ``temperature`` 0; the same ``seed`` gives the same text. Text of ``stop`` ends it and is
        no part of it. The session is busy (:class:`openelm.BusyError`) until the text has ended or was cancelled. What is wrong with
        the prompt is raised when the first piece is asked for.
        """

    def fork(self) -> Session:
        """Another session that begins with the same text. What was computed of it is shared."""

    @property
    def text(self) -> str:
        """The text so far."""

    @property
    def tokens(self) -> list[int]:
        """The tokens so far."""

    def truncate(self, tokens: int) -> None:
        """Forgets all tokens from position ``tokens`` on."""

    def drop_cache(self) -> None:
        """Gives back the keys and values; they are computed again, to the same bits, when the session goes on."""

@disjoint_base
class Model:
    """A model with its tokenizer, ready to run. Sessions and threads share it."""

    def __new__(
        cls,
        path: _Path = ...,
        *,
        threads: int = 0,
        cache: _Cache = "f32",
        context: Optional[int] = None,
        memory: Optional[int] = None,
        tokenizer: Optional[_Path] = None,
        chat_template: Optional[str] = None,
    ) -> Self:
        """Opens the model at ``path``.

        ``threads`` of 0 is one per physical core. ``cache`` says how keys and values are stored. ``context`` is the most tokens of a
        session, ``memory`` what the model and one session may take (default: what the system has), ``tokenizer`` its file, if it is
        not beside the model or in it. ``chat_template`` is Jinja by which conversations are written; without it they are written
        by the template that comes with the model, and for an OpenELM without one as OpenELM-Instruct reads them.
        """

    def describe(self) -> dict[str, Union[None, int, str]]:
        """``name``, ``format``, ``parameters``, ``weight_bytes``, ``layers``, ``width``, ``vocabulary``, ``context``."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""

    def session(self, adapter: Optional[_Path] = None) -> Session:
        """An empty session; of the model as an adapter changes it, a folder of PEFT's or a file of CoreNet's, if one is given."""

    def next_logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits behind the last of ``tokens``, ``[vocabulary]``. The array owns the memory they were computed in."""

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits behind each of ``tokens``, ``[tokens, vocabulary]``. The array owns the memory they were computed in."""

    def hidden_states(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The residual stream, ``[layers + 1, tokens, width]``, as transformers counts it: the embeddings, then what each block
        leaves, the last normalised. The array owns the memory they were computed in."""

    def release_memory(self) -> None:
        """Gives back what the system may want: caches of sessions that are not generating, and packed weights. They come back
        when they are used."""
