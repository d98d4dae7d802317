"""The text around media: Video-LLaMA's own words for each kind, in two forms of conversation.

A prompt is a list of pieces; between each two of them the tokens of one medium stand. Spaces are
the authors', who joined indented lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FORMS", "SYSTEM", "Form", "message", "pieces", "system"]

PLACE = "<ImageHere>"  # where the authors' prompts have the tokens of a medium

SYSTEM = (
    "You are able to understand the visual content that the user provides. "
    "Follow the instructions carefully and explain your answers in detail."
)

_HEARD = f"Close your eyes, open your ears and you imagine only based on the sound that: {PLACE}."
_SEEN_TOO = f"Close your ears, open your eyes and you see that <Video>{PLACE}</Video>."
_BOTH = "Now answer my question based on what you have just seen and heard."
_ONLY_HEARD = "Now answer my question based on what you have just heard."


@dataclass(frozen=True)
class Form:
    """How turns follow one another.

    `begin` has {system} and {message}; `turn` follows an earlier turn and has its {answer} and the
    next {message}. What is generated is cut at `end`, and what stands before `role` is left out.
    `stops` are the pieces of a vocabulary that end an answer, besides its own end.
    """

    begin: str
    turn: str
    end: str
    role: str
    stops: tuple[tuple[str, ...], ...] = ()


FORMS = {
    "llama-2": Form(
        "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{message} [/INST]",
        " {answer} </s><s>[INST] {message} [/INST]",
        "</s>",
        "ASSISTANT:",
    ),
    "vicuna": Form(
        "{system}###Human: {message}###Assistant:",
        " {answer}###Human: {message}###Assistant:",
        "###",
        "Assistant:",
        (("▁###",), ("##", "#")),
    ),
}


def message(question: str, seconds: Sequence[float], *, heard: bool) -> str:
    """The first message of a conversation: what the media are, then the question.

    `seconds` say when each picture is shown; none: there is only sound. One picture at 0 s is a
    still image. A place for media in the question itself is taken out.
    """
    question = _plain(question)
    if heard and seconds:
        return f"{_HEARD}{' ' * 17}{_SEEN_TOO}{' ' * 18}{_BOTH} {question}"
    if heard:
        return f"{_HEARD} {_ONLY_HEARD} {question}"
    if _is_still(seconds):
        return f"<Image>{PLACE}</Image>  {question}"
    times = ", ".join(str(round(second, 1)) for second in seconds)
    told = f"The video contains {len(seconds)} frames sampled at {times} seconds. "
    return f"<Video>{PLACE}</Video> {told} {question}"


def system(seconds: Sequence[float], *, heard: bool) -> str:
    """The system text for such media: none for videos and sound, as in the authors' demo."""
    return SYSTEM if _is_still(seconds) and not heard else ""


def pieces(form: Form, system: str, turns: Sequence[tuple[str, str]], question: str) -> list[str]:
    """A conversation as text in pieces: earlier turns of message and answer, then a question.

    The first message of all is one that `message` made.
    """
    first, *later = [*(asked for asked, _ in turns), question]
    text = form.begin.replace("{system}", system)
    # the words of people last: braces in them are theirs
    text = text.replace("{message}", first)
    for (_, answer), asked in zip(turns, later, strict=True):
        head, _, rest = form.turn.partition("{answer}")
        text += head + _plain(answer) + rest.replace("{message}", _plain(asked))
    return text.split(PLACE)


def _is_still(seconds: Sequence[float]) -> bool:
    return list(seconds) == [0.0]


def _plain(text: str) -> str:
    return text.replace(PLACE, "")
