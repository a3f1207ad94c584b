"""Prompts of many questions about the same images and videos, which are read and processed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from base_model.vlm.processing import PLACES, MiniCPMVProcessor
from rl.prompts import Prompt
from rollouts.modes import Mode
from rollouts.prompts import MediaPrompt, render_media_prompt, render_text
from rollouts.records import PromptMedia

_LEADS = ("", " ", "\n")


class AnswerTokens(NamedTuple):
    """The tokens that an answer begins with."""

    yes: tuple[int, ...]
    no: tuple[int, ...]


def answer_tokens(tokenizer: Any) -> AnswerTokens:
    """Every token that is a spelling of yes or no (yes, Yes, YES, with and without a blank before).

    A tokenizer may have no such token for a word: the first tokens of its spellings stand for it then.

    Raises:
        ValueError: yes and no begin with the same token, so that the first one does not tell them apart.
    """
    yes, no = (_spellings(tokenizer, word) for word in ("yes", "no"))
    if set(yes) & set(no):
        raise ValueError(
            "the tokenizer begins yes and no with the same token, so the first token of an answer does not tell them "
            "apart: take another labeler"
        )
    return AnswerTokens(yes, no)


def _spellings(tokenizer: Any, word: str) -> tuple[int, ...]:
    forms = [lead + form for lead in _LEADS for form in (word, word.capitalize(), word.upper())]
    split = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    whole = {ids[0] for ids in split if len(ids) == 1}
    return tuple(sorted(whole or {ids[0] for ids, form in zip(split, forms, strict=True) if form.strip() == form}))


class QuestionPrompts:
    """Renders questions with one tokenizer or processor."""

    def __init__(self, processor: Any, mode: Mode) -> None:
        """Args:
        processor: Tokenizer of a language model, or processor of a vision-language model.
        mode: Its prefill ends the prompt; what follows is the answer's first token.
        """
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.mode = mode
        added = self.tokenizer.added_tokens_decoder.values()
        self._reserved = {str(token) for token in added if token.special} | {mode.think_open, mode.think_close}
        self._special_ids = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def check(self, text: str) -> None:
        """Refuses a text that would change the prompt around it: it comes from a model's output.

        Raises:
            ValueError: it holds one of the model's own special tokens, or no valid Unicode.
        """
        found = next((token for token in sorted(self._reserved) if token and token in text), None)
        if found is not None:
            raise ValueError(f"it contains {found!r}, a token by which the model tells the parts of a prompt apart")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it contains half of a surrogate pair, which is no valid Unicode") from None

    def prompts(self, texts: Sequence[str], images: Sequence[Any] = (), videos: Sequence[Any] = ()) -> list[Prompt]:
        """A prompt per text, each of a user's turn with all images and videos before the text.

        Args:
            texts: What is asked.
            images: Opened images.
            videos: Opened videos.

        Returns:
            Prompts that share one `PromptMedia` where the template puts the media first, so that the engine processes
            them once and takes their keys and values from its prefix cache.

        Raises:
            ValueError: The model takes no media.
        """
        if not texts:
            return []
        if not (images or videos):
            return [Prompt(self._ids(render_text(self.processor, _messages(text), self.mode))) for text in texts]
        if self.processor is self.tokenizer:
            raise ValueError("there are images or videos, but the model is a language model: take a vision model")
        return self._with_media(texts, images, videos)

    def _with_media(self, texts: Sequence[str], images: Sequence[Any], videos: Sequence[Any]) -> list[Prompt]:
        parts = [{"type": "image"}] * len(images) + [{"type": "video"}] * len(videos)

        def whole(text: str) -> MediaPrompt:
            return render_media_prompt(self.processor, _messages(text, parts), images, videos, self.mode)

        first = whole(texts[0])
        shared = self._shared_start(first, texts[0])
        made = [Prompt(first.ids, shared.media if shared else first.media)]
        for text in texts[1:]:
            rendered = render_text(self.processor, _messages(text, parts), self.mode)
            if shared is None or not rendered.startswith(shared.media.text):
                prompt = whole(text)
                made.append(Prompt(prompt.ids, prompt.media))
            else:
                made.append(Prompt((*shared.ids, *self._ids(rendered[len(shared.media.text) :])), shared.media))
        return made

    def _shared_start(self, prompt: MediaPrompt, asked: str) -> _Start | None:
        """The prompt up to its last image or video before what is asked; None where it cannot be cut there for sure.

        A special token ends the media's block. Tokenizers cut texts at special tokens, so what follows one is
        tokenised on its own, and the ids of start and rest joined are those of the whole.
        """
        text = prompt.media.text
        before = text[: max(text.rfind(asked), 0)]
        if isinstance(self.processor, MiniCPMVProcessor):
            ends = [place.end() for place in PLACES.finditer(before)]
        else:
            ends = [before.rfind(token) + len(token) for token in self._reserved if token and token in before]
        if not ends:
            return None
        start, rest = text[: max(ends)], self._ids(text[max(ends) :])
        ids = prompt.ids[: len(prompt.ids) - len(rest)]
        if not rest or prompt.ids[len(ids) :] != rest or not ids or ids[-1] not in self._special_ids:
            return None
        return _Start(ids, PromptMedia(text=start, images=prompt.media.images, videos=prompt.media.videos))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class _Start(NamedTuple):
    ids: tuple[int, ...]
    media: PromptMedia


def _messages(text: str, parts: Sequence[dict[str, str]] = ()) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}] if parts else text}]
