"""As Hugging Face's ``transformers`` has it: a script for OpenELM needs its two imports changed.

>>> from openelm.transformers import AutoModelForCausalLM, AutoTokenizer
>>> model = AutoModelForCausalLM.from_pretrained("OpenELM-270M", trust_remote_code=True)
>>> tokenizer = AutoTokenizer.from_pretrained("OpenELM-270M")
>>> ids = tokenizer("Once upon a time", return_tensors="np").input_ids
>>> tokenizer.decode(model.generate(ids, max_new_tokens=20)[0], skip_special_tokens=True)

Arrays come back as they were given: those of torch as tensors, everything else as numpy's. Options that would change the result
and that this library does not have are refused; code of a model's repository never runs, whatever ``trust_remote_code`` says.
"""

import numpy as np

from ._openelm import Model
from .errors import InputError

#: Options of ``from_pretrained`` that say how to run rather than what.
_PASSED_OVER = {
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "padding_side",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_auth_token",
    "use_fast",
    "add_bos_token",
}


class BatchEncoding(dict):
    """``input_ids`` and ``attention_mask``, by key or by attribute."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, _device):
        """The same: there is one device."""
        return self


class AutoTokenizer:
    """A tokenizer, called as those of transformers are."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id
        self.eos_token_id = tokenizer.eos_token_id
        self.pad_token_id = tokenizer.eos_token_id
        self.vocab_size = tokenizer.vocab_size

    @classmethod
    def from_pretrained(cls, path, **options):
        """The tokenizer of the model at ``path``."""
        _pass_over(options)
        return cls(Model(path).tokenizer)

    def __len__(self):
        return self.vocab_size

    def encode(self, text, add_special_tokens=True):
        """The ids of ``text``."""
        return self._tokenizer.encode(text, is_prompt=add_special_tokens)

    def decode(self, ids, skip_special_tokens=True):
        """The text of ``ids``. Control tokens are never part of it."""
        if not skip_special_tokens:
            raise InputError("control tokens cannot be shown; decode with skip_special_tokens=True")
        return self._tokenizer.decode(np.asarray(ids).reshape(-1).tolist())

    def batch_decode(self, rows, skip_special_tokens=True):
        """The texts of ``rows``."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def __call__(self, text, return_tensors=None, padding=False, add_special_tokens=True):
        """Encodes a text, or several; with ``padding`` the shorter ones are filled on the left."""
        rows = [self.encode(one, add_special_tokens) for one in ([text] if isinstance(text, str) else text)]
        longest = max(map(len, rows), default=0)
        if return_tensors is not None and not padding and any(len(row) != longest for row in rows):
            raise InputError("texts of several lengths make no array; encode with padding=True")
        masks = [[1] * len(row) for row in rows]
        if padding:
            masks = [[0] * (longest - len(row)) + mask for row, mask in zip(rows, masks)]
            rows = [[self.pad_token_id or 0] * (longest - len(row)) + row for row in rows]
        if return_tensors is None:
            one = isinstance(text, str)
            return BatchEncoding(input_ids=rows[0] if one else rows, attention_mask=masks[0] if one else masks)
        ids, mask = np.array(rows, dtype=np.int64), np.array(masks, dtype=np.int64)
        if return_tensors == "pt":
            import torch

            return BatchEncoding(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        if return_tensors != "np":
            raise InputError(f"return_tensors is {return_tensors!r}; it must be 'np' or 'pt'")
        return BatchEncoding(input_ids=ids, attention_mask=mask)


class CausalLMOutput:
    """``logits``, ``[batch, tokens, vocabulary]``; ``hidden_states`` where asked for, one ``[batch, tokens, width]`` after the
    other."""

    def __init__(self, logits, hidden_states):
        self.logits = logits
        self.hidden_states = hidden_states


class AutoModelForCausalLM:
    """A model, called as those of transformers are."""

    def __init__(self, model):
        self.model = model
        self.device = "cpu"

    @classmethod
    def from_pretrained(cls, path, **options):
        """Opens the model at ``path``, of any format. Options of :class:`openelm.Model` are taken too."""
        own = {name: options.pop(name) for name in ("threads", "cache", "context", "memory", "tokenizer") if name in options}
        _pass_over(options)
        return cls(Model(path, **own))

    def to(self, _device):
        """The same: there is one device."""
        return self

    def eval(self):
        """The same: it never trains."""
        return self

    def __call__(self, input_ids, attention_mask=None, output_hidden_states=False):
        """Logits and hidden states behind each token."""
        rows = _rows(input_ids, attention_mask)
        if len({len(row) for row in rows}) > 1:
            raise InputError("rows of several lengths make no array; pass them one by one")
        logits = np.stack([self.model.logits(row) for row in rows])
        states = None
        if output_hidden_states:
            batch = np.stack([self.model.hidden_states(row) for row in rows], axis=1)
            states = tuple(_like(input_ids, state) for state in batch)
        return CausalLMOutput(_like(input_ids, logits), states)

    def generate(
        self,
        input_ids,
        attention_mask=None,
        max_new_tokens=None,
        max_length=None,
        do_sample=False,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        min_p=None,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=None,
        seed=0,
    ):
        """Prompts and what is written behind them, ``[batch, tokens]``; rows that ended early are filled on the right.

        As in transformers it is greedy unless ``do_sample``, which draws from ``seed``, and 20 tokens long unless told otherwise.
        """
        rows = _rows(input_ids, attention_mask)
        tokenizer = self.model.tokenizer
        sampling = {"temperature": 0.0}
        if do_sample:
            sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p, "min_p": min_p or 0.0}
        written = []
        for index, row in enumerate(rows):
            if max_new_tokens is not None:
                most = max_new_tokens
            elif max_length is not None:
                most = max(max_length - len(row), 0)
            else:
                most = 20
            generation = self.model.session().generate(
                row,
                max_tokens=most,
                repetition_penalty=repetition_penalty,
                no_repeat_ngram=no_repeat_ngram_size,
                seed=seed + index,
                **sampling,
            )
            new = [token for piece in generation for token in piece.tokens]
            if generation.finish == "end_of_text" and tokenizer.eos_token_id is not None:
                new.append(tokenizer.eos_token_id)
            written.append(new)
        pad = pad_token_id if pad_token_id is not None else (tokenizer.eos_token_id or 0)
        longest = max(map(len, written), default=0)
        given = np.asarray(input_ids).reshape(len(rows), -1)
        new = np.array([row + [pad] * (longest - len(row)) for row in written], dtype=np.int64).reshape(len(rows), longest)
        return _like(input_ids, np.concatenate([given.astype(np.int64), new], axis=1))


def _pass_over(options):
    for name in options:
        if name not in _PASSED_OVER:
            raise InputError(f"the option {name} is not known here")


def _rows(input_ids, attention_mask):
    """The ids of each row, without what fills it up."""
    ids = np.atleast_2d(np.asarray(input_ids))
    mask = np.ones_like(ids) if attention_mask is None else np.atleast_2d(np.asarray(attention_mask))
    if mask.shape != ids.shape:
        raise InputError(f"the attention mask is {list(mask.shape)} and the ids are {list(ids.shape)}")
    return [row[keep != 0].tolist() for row, keep in zip(ids, mask)]


def _like(given, values):
    if type(given).__module__.partition(".")[0] == "torch":
        import torch

        return torch.from_numpy(values)
    return values
