"""What an editor wants of the titles: a length, words; what of it the model is asked for, and what it did not give."""

from dataclasses import dataclass

from titlegen.control import MAX_WORDS, Control, can_ask_for
from titlegen.desk.schema import Notice, TitleRequest
from titlegen.slots import Length


@dataclass(frozen=True, slots=True)
class Wanted:
    """What titles have to be; all of it is checked on each."""

    number: int
    length: Length | None
    must: tuple[str, ...]
    must_not: tuple[str, ...]
    control: Control
    """What of it titles are searched for with."""

    def __bool__(self) -> bool:
        """Whether anything is wanted of a title."""
        return bool(self.length or self.must or self.must_not)

    def allows(self, title: str) -> bool:
        """Return whether a title has none of the words that it must not have."""
        return not any(word in title for word in self.must_not)

    def unmet(self, title: str) -> tuple[str, ...]:
        """Return what a title has not: ``chars`` for the length, else the word."""
        missing = tuple(word for word in self.must if word not in title)
        return missing if self.length is None or self.length.fits(title) else ("chars", *missing)

    def distance(self, title: str) -> tuple[int, int]:
        """Return how far a title is from what is wanted: words that it has not, characters too few or too many."""
        missing = sum(word not in title for word in self.must)
        if self.length is None:
            return missing, 0
        return missing, max(self.length.min_chars - len(title), len(title) - self.length.max_chars, 0)

    def describe_shortfall(self, *, given: int, fitting: int, refused: int, tries: int) -> Notice | None:
        """Return what is said where there are fewer titles than are wanted, or others than are wanted.

        Args:
            given: titles that are shown.
            fitting: of these, titles that are as they were asked for.
            refused: titles that were written and had words that they must not have.
            tries: how often the model was asked.
        """
        said: list[tuple[str, str]] = []
        if given < self.number:
            en, zh = f"in {tries} tries the model wrote no other one", f"模型試了 {tries} 次，沒有其他不同的標題"
            if refused:
                words, words_zh = ", ".join(self.must_not), "、".join(self.must_not)
                en, zh = (
                    f"{refused} of {tries} tries had {words}",
                    f"模型試了 {tries} 次，{refused} 次用了「{words_zh}」",
                )
            said.append((f"{given} of {self.number} titles: {en}", f"只有 {given} 則（要 {self.number} 則）：{zh}"))
        if fitting < given:
            en, zh = self._describe()
            en = f"{fitting} of {given} titles have {en}, after {tries} tries; the nearest others stand behind them"
            zh = f"{given} 則裡有 {fitting} 則符合（{zh}），模型試了 {tries} 次；其餘最接近的排在後面"
            said.append((f"{en}, to be changed by hand", f"{zh}，請自行修改"))
        if not said:
            return None
        return Notice(message="; ".join(en for en, _ in said), message_zh="；".join(zh for _, zh in said))

    def _describe(self) -> tuple[str, str]:
        """Return what a title should have, for a person."""
        en, zh = list(self.must), [f"有「{word}」" for word in self.must]
        if self.length:
            en.insert(0, f"{self.length.min_chars} to {self.length.max_chars} characters")
            zh.insert(0, f"{self.length.min_chars} 到 {self.length.max_chars} 字")
        return " and ".join(en), "、".join(zh)


def read_wanted(request: TitleRequest) -> Wanted:
    """Return what a request wants."""
    length = Control(request.chars).length
    include = tuple(word for word in request.must if can_ask_for(word))[:MAX_WORDS]
    return Wanted(request.number, length, request.must, request.must_not, Control(request.chars, include))
