"""What of a growing text can be sent: never half a character, never what a stop string begins."""

from __future__ import annotations

from collections.abc import Sequence

UNFINISHED = "�"
"""What a tokenizer shows for bytes that are no character, or not yet one."""


class Deltas:
    """Cuts a growing text into pieces; joined they are the text.

    Bytes of a character may be spread over tokens, and until its last one the text ends in
    replacement characters. A text may also end in the beginning of a stop string, which would be
    taken back. Both wait until what follows is known.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = stop
        self.sent = ""

    def feed(self, text: str, *, finished: bool) -> str:
        """The next piece.

        Args:
            text: all there is so far.
            finished: nothing will follow.
        """
        end = len(text) if finished else self._settled(text)
        if end <= len(self.sent) or not (finished or text.startswith(self.sent)):
            return ""
        piece = text[len(self.sent) : end]
        self.sent += piece
        return piece

    def _settled(self, text: str) -> int:
        end = len(text.rstrip(UNFINISHED))
        for stop in self.stop:
            for length in range(min(len(stop) - 1, end), 0, -1):
                if text[end - length : end] == stop[:length]:
                    end -= length
                    break
        return end
