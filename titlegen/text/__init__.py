"""Plain article text from the pages of news sites and press offices: cleaning, script, sentences, token budgets."""

from titlegen.text.clean import Removals, clean_content, clean_title, rule_names
from titlegen.text.script import Converted, convert_article, is_simplified, to_traditional
from titlegen.text.sentences import cut_to_tokens, first_line, is_one_line, split_sentences

__all__ = [
    "Converted",
    "Removals",
    "clean_content",
    "clean_title",
    "convert_article",
    "cut_to_tokens",
    "first_line",
    "is_one_line",
    "is_simplified",
    "rule_names",
    "split_sentences",
    "to_traditional",
]
