"""Plain article text out of what news sites and press offices publish: cleaning, sentences and token budgets."""

from titlegen.text.clean import Removals, clean_content, clean_title, rule_names
from titlegen.text.sentences import first_line, split_sentences, trim_to_tokens

__all__ = ["Removals", "clean_content", "clean_title", "first_line", "rule_names", "split_sentences", "trim_to_tokens"]
