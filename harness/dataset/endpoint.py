"""A vision model behind an OpenAI-compatible endpoint: one image and a prompt in, its words out."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from harness.errors import ArmUnavailable, EndpointFailed, EndpointRefused

if TYPE_CHECKING:
    import openai

KEY_VARIABLES: Final = ("DRIFTLOOP_API_KEY", "OPENAI_API_KEY")
"""Where the key is read from, the first that is set; it is never written anywhere."""

_LONGEST_DETAIL = 200
_HINTS = {
    400: "the endpoint does not take this request; is the model one for images?",
    401: f"set {' or '.join(KEY_VARIABLES)} to a valid key",
    403: "the key may not use this model",
    404: "check --model, and --endpoint, which usually ends in /v1",
}


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """What is read of a chat completion; anything else in it may be missing."""

    choices: list[_Choice] = Field(min_length=1)


class Endpoint:
    """A client that retries what passes and stops at what does not. Safe to use from threads."""

    def __init__(self, url: str, model: str, *, retries: int = 6, timeout_s: float = 120) -> None:
        """
        Args:
            url: the base of the API, usually ending in `/v1`.
            retries: how often a request is repeated after 429, 5xx, a time-out or a broken
                connection: after what `Retry-After` says (up to two minutes), else after half a
                second and then twice as long each time, up to 8 s.

        Raises:
            EndpointRefused: `url` is none.
            ArmUnavailable: the package `openai` is missing.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise EndpointRefused(f"--endpoint {url!r} is no http(s) address")
        try:
            import openai
        except ImportError as error:
            raise ArmUnavailable(
                "labelling needs the package openai: pip install 'driftloop[label]'"
            ) from error
        self.model = model
        self._url = url
        self._key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        self._client = openai.OpenAI(
            base_url=url.removesuffix("/").removesuffix("/chat/completions"),
            api_key=self._key or "none",
            max_retries=retries,
            timeout=timeout_s,
        )

    def ask(self, png: bytes, prompt: str, max_tokens: int) -> str:
        """What the model says to `png` and `prompt`, greedily; empty where it says nothing.

        Raises:
            EndpointRefused: it will never take this request (401, 403, 404, 400, ...).
            EndpointFailed: it cannot be reached, stays busy or broken after all retries, or answers
                in no form of OpenAI's.
        """
        import openai

        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=self.model,
                max_tokens=max_tokens,
                temperature=0,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": image}},
                            {"type": "text", "text": prompt},
                        ],
                    }
                ],
            )
            completion = _Completion.model_validate_json(reply.text)
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APITimeoutError:
            raise self._failure("no answer in time, however often it was asked") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._failure(f"cannot be reached: {cause}; is it running?") from None
        except (openai.APIError, ValidationError):
            raise self._failure("its answer is no chat completion of OpenAI's form") from None
        return completion.choices[0].message.content or ""

    def _refusal(self, error: openai.APIStatusError) -> EndpointRefused | EndpointFailed:
        status = error.status_code
        if status in (408, 409, 429) or status >= 500:
            return self._failure(f"{error.message}; it stayed so, try again later")
        hint = _HINTS.get(status, "correct the request")
        return EndpointRefused(self._line(error.message, hint))

    def _failure(self, detail: str) -> EndpointFailed:
        return EndpointFailed(self._line(detail, "labels so far are kept"))

    def _line(self, detail: str, hint: str) -> str:
        """One line that cannot hold the key, even where the endpoint repeats it."""
        words = " ".join(detail.split())
        if self._key:
            words = words.replace(self._key, "[key]")
        short = words if len(words) <= _LONGEST_DETAIL else f"{words[:_LONGEST_DETAIL]}..."
        return f"{self._url}: {short}; {hint}"
