//! Cutting text into words before byte-level merging, by the patterns that `tokenizer.ggml.pre` names.
//!
//! The published patterns end in `\s+(?!\S)|\s+`: a run of whitespace leaves its last character to the word that follows, unless it
//! ends the text or is that one character. `regex-automata` has no lookahead and needs none here: the run is a pattern of its own,
//! of lower priority than the others, and [`PreTokenizer::words`] gives the last character back.
//!
//! Some families run several patterns in turn, each cutting the words left by the one before; what a pattern does not match stays a
//! word. Unicode normalisation that a few models had in their original tokenizer is not in GGUF metadata and is not applied.

use std::ops::Range;

use regex_automata::Input;
use regex_automata::meta::Regex;

/// The whitespace run is the second pattern of a stage.
const WHITESPACE_RUN: usize = 1;

/// One pattern, and whether the whitespace rule follows it.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Match(&'static str),
    MatchThenWhitespace(&'static str),
}

/// How a family of models cuts text, and what its name implies besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    stages: &'static [Stage],
    /// A word that is a token as a whole is not merged from its bytes.
    pub(crate) keeps_whole_words: bool,
    /// Prompts start with BOS unless the file says otherwise.
    pub(crate) adds_bos: bool,
}

impl Family {
    const fn new(stages: &'static [Stage]) -> Self {
        Self {
            stages,
            keeps_whole_words: false,
            adds_bos: false,
        }
    }

    const fn adding_bos(stages: &'static [Stage]) -> Self {
        Self {
            stages,
            keeps_whole_words: true,
            adds_bos: true,
        }
    }

    /// The family of a `tokenizer.ggml.pre`.
    pub(crate) fn by_name(pre: &str) -> Option<&'static Self> {
        Some(match pre {
            "default" => &DEFAULT,
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling"
            | "exaone4" | "gigachat" | "a.x-4.0" | "mellum" => &GPT_2,
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone"
            | "minerva-7b" | "mellum2" => &SMOLLM,
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" | "lfm2" => &LLAMA_3,
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => &DBRX,
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "megrez" | "hunyuan" | "solar-open"
            | "grok-2" => &QWEN_2,
            "qwen35" => &QWEN_35,
            "tekken" => &TEKKEN,
            "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => &GPT_4O,
            "deepseek-coder" => &DEEPSEEK_CODER,
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => &DEEPSEEK_V3,
            "falcon" => &FALCON,
            "bloom" | "gpt3-finnish" | "poro-chat" => &BLOOM,
            "viking" => &VIKING,
            _ => return None,
        })
    }
}

/// English contractions in either case. U+017F is the one character outside ASCII that folds to a letter of these.
macro_rules! contraction {
    () => {
        r"'(?:[sSſtTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
    };
}

const GPT_2_WORDS: Stage =
    Stage::MatchThenWhitespace(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA_3_WORDS: Stage = Stage::MatchThenWhitespace(concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));
const DIGIT: Stage = Stage::Match(r"\p{N}");
const THREE_ASCII_DIGITS: Stage = Stage::Match("[0-9][0-9][0-9]");

/// What llama.cpp does where a file names no pattern or `default`.
static DEFAULT: Family = Family::new(&[
    Stage::Match(r"[\p{P}\$\+<=>\^~\|]+"),
    GPT_2_WORDS,
    Stage::Match(r"\p{N}+"),
    THREE_ASCII_DIGITS,
]);
static GPT_2: Family = Family::new(&[GPT_2_WORDS]);
static SMOLLM: Family = Family::new(&[DIGIT, GPT_2_WORDS]);
static LLAMA_3: Family = Family::adding_bos(&[LLAMA_3_WORDS]);
static DBRX: Family = Family::new(&[LLAMA_3_WORDS]);
static QWEN_2: Family = Family::new(&[Stage::MatchThenWhitespace(concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
))]);
static QWEN_35: Family = Family::new(&[Stage::MatchThenWhitespace(concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
))]);
static TEKKEN: Family = Family::adding_bos(&[Stage::MatchThenWhitespace(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
))]);
static GPT_4O: Family = Family::new(&[Stage::MatchThenWhitespace(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:",
    contraction!(),
    r")?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:",
    contraction!(),
    r")?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
))]);
static DEEPSEEK_CODER: Family = Family::new(&[
    Stage::Match(r"[\r\n]"),
    Stage::Match(r"\s?\p{L}+"),
    Stage::Match(r"\s?\p{P}+"),
    Stage::Match(r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"),
    DIGIT,
]);
static DEEPSEEK_V3: Family = Family::new(&[
    Stage::Match(r"\p{N}{1,3}"),
    Stage::Match(r"[\u{4e00}-\u{9fa5}\u{3040}-\u{30ff}]+"),
    Stage::MatchThenWhitespace(concat!(
        r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
    )),
]);
static FALCON: Family = Family::new(&[
    Stage::Match(r"[\p{P}\$\+<=>\^~\|`]+"),
    GPT_2_WORDS,
    THREE_ASCII_DIGITS,
]);
const NOT_PUNCTUATION: Stage = Stage::Match(r" ?[^(\s|.,!?…。，、।۔،)]+");
static BLOOM: Family = Family::new(&[NOT_PUNCTUATION]);
static VIKING: Family = Family::new(&[NOT_PUNCTUATION, DIGIT]);

/// A family's patterns, compiled.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    stages: Vec<Regex>,
}

impl PreTokenizer {
    pub(crate) fn new(family: &Family) -> Self {
        let stages = family.stages.iter().map(|stage| {
            let regex = match stage {
                Stage::Match(pattern) => Regex::new(pattern),
                Stage::MatchThenWhitespace(pattern) => Regex::new_many(&[pattern, r"\s+"]),
            };
            regex.expect("the patterns are constants, and a test compiles each of them")
        });
        Self {
            stages: stages.collect(),
        }
    }

    /// Cuts a text into words: ranges of bytes that follow each other without gaps.
    pub(crate) fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        if !text.is_empty() {
            words.push(0..text.len());
        }
        for regex in &self.stages {
            let mut cut = Vec::with_capacity(words.len());
            for word in words {
                split(regex, text, word, &mut cut);
            }
            words = cut;
        }
        words
    }
}

/// Appends the matches in `range`, and the stretches between them, to `words`.
fn split(regex: &Regex, text: &str, range: Range<usize>, words: &mut Vec<Range<usize>>) {
    let offset = range.start;
    let text = &text[range];
    let mut at = 0;
    while let Some(found) = regex.search(&Input::new(text).range(at..)) {
        if at < found.start() {
            words.push(offset + at..offset + found.start());
        }
        let end = if found.pattern().as_usize() == WHITESPACE_RUN {
            end_of_whitespace(text, found.range())
        } else {
            found.end()
        };
        words.push(offset + found.start()..offset + end);
        at = end;
    }
    if at < text.len() {
        words.push(offset + at..offset + text.len());
    }
}

/// Where a run of whitespace ends once its last character is left to the word that follows.
fn end_of_whitespace(text: &str, run: Range<usize>) -> usize {
    let last = text[run.clone()].chars().next_back();
    let before_last = run.end - last.map_or(0, char::len_utf8);
    if run.end == text.len() || before_last == run.start {
        run.end
    } else {
        before_last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde::Deserialize;

    use super::{Family, PreTokenizer};

    #[derive(Deserialize)]
    struct Golden {
        rows: Vec<Row>,
    }

    #[derive(Deserialize)]
    struct Row {
        text: String,
        /// By name of the pattern: where each word ends, in bytes.
        word_ends: BTreeMap<String, Vec<usize>>,
    }

    #[test]
    fn words_end_where_the_reference_ends_them() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/tokenizer/byte_level.json");
        let json = std::fs::read_to_string(&path).expect("the golden file is readable");
        let golden: Golden = serde_json::from_str(&json).expect("the golden file is valid");
        assert!(golden.rows.len() > 50);
        let mut pre_tokenizers = BTreeMap::new();
        for row in &golden.rows {
            assert_eq!(row.word_ends.len(), 14, "{:?}", row.text);
            for (pre, expect) in &row.word_ends {
                let pre_tokenizer = pre_tokenizers.entry(pre).or_insert_with(|| {
                    PreTokenizer::new(Family::by_name(pre).expect("the family is known"))
                });
                let words = pre_tokenizer.words(&row.text);
                let ends: Vec<usize> = words.iter().map(|word| word.end).collect();
                assert_eq!(&ends, expect, "{pre}: {:?}", row.text);
            }
        }
    }

    #[test]
    fn whitespace_leaves_its_last_character_to_the_next_word() {
        let check = |text: &str, expect: &[&str]| {
            let family = Family::by_name("gpt-2").expect("the family is known");
            let words = PreTokenizer::new(family).words(text);
            let words: Vec<&str> = words.into_iter().map(|word| &text[word]).collect();
            assert_eq!(words, expect, "{text:?}");
        };
        check("", &[]);
        check("   ", &["   "]);
        check("a   b", &["a", "  ", " b"]);
        check("a\n\nb", &["a", "\n", "\n", "b"]);
        check("a\u{3000}\u{3000}b", &["a", "\u{3000}", "\u{3000}", "b"]);
        check("a b", &["a", " b"]);
    }
}
