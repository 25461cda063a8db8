//! Which tokens end a generation, start a document or mark a gap.

use std::collections::{BTreeSet, HashMap};

use crate::vocabulary::TokenKind;
use crate::{TokenizerError, VocabularyConfig};

/// Texts of tokens that end a generation whether or not the metadata names them; the list is llama.cpp's. The last three end the
/// text of a gap in Qwen's coder models.
const END_OF_GENERATION: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

const FIM_PREFIX: [&str; 7] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
];
const FIM_SUFFIX: [&str; 7] = [
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
];
const FIM_MIDDLE: [&str; 7] = [
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
];

/// The tokens that ask a model for the text of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillInTheMiddle {
    /// Comes before the text that precedes the gap.
    pub prefix: u32,
    /// Comes before the text that follows the gap.
    pub suffix: u32,
    /// Asks for the text of the gap.
    pub middle: u32,
}

#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) fim: Option<FillInTheMiddle>,
    pub(crate) end_of_generation: BTreeSet<u32>,
}

impl Roles {
    /// Finds the roles, and makes control tokens of those that hold one. Where the file has types, a normal token stays normal:
    /// `</s>` is also a word that byte-level vocabularies learn from HTML.
    pub(crate) fn new(
        config: &VocabularyConfig,
        ids: &HashMap<&str, u32>,
        kinds: &mut [TokenKind],
    ) -> Result<Self, TokenizerError> {
        check_ids(config)?;
        let is_typed = config.token_types.is_some();
        let may_be_special = |id: u32| {
            let kind = kinds.get(id as usize);
            kind.is_some_and(|&kind| !is_typed || kind != TokenKind::Normal)
        };
        let by_text = |texts: &[&str]| {
            let mut found = texts.iter().filter_map(|text| ids.get(text).copied());
            found.find(|&id| may_be_special(id))
        };
        let is_llama = config.model == "llama";
        let or_default = |id: Option<u32>, default| {
            id.or_else(|| (is_llama && may_be_special(default)).then_some(default))
        };
        let bos = or_default(config.bos_id, 1);
        let eos = or_default(config.eos_id, 2);
        let fim = || {
            Some(FillInTheMiddle {
                prefix: config.fim_prefix_id.or_else(|| by_text(&FIM_PREFIX))?,
                suffix: config.fim_suffix_id.or_else(|| by_text(&FIM_SUFFIX))?,
                middle: config.fim_middle_id.or_else(|| by_text(&FIM_MIDDLE))?,
            })
        };
        let roles = Self {
            bos,
            eos,
            unk: or_default(config.unk_id, 0),
            fim: fim(),
            end_of_generation: end_of_generation(config, eos, |text| by_text(&[text])),
        };
        let holders = roles.end_of_generation.iter().copied().chain(roles.bos);
        let fim_ids = roles.fim.map(|fim| [fim.prefix, fim.suffix, fim.middle]);
        for id in holders.chain(fim_ids.into_iter().flatten()) {
            if let Some(kind) = kinds.get_mut(id as usize)
                && (*kind == TokenKind::UserDefined || !is_typed)
            {
                *kind = TokenKind::Control;
            }
        }
        Ok(roles)
    }
}

fn end_of_generation(
    config: &VocabularyConfig,
    eos: Option<u32>,
    by_text: impl Fn(&str) -> Option<u32>,
) -> BTreeSet<u32> {
    let mut ends: BTreeSet<u32> = END_OF_GENERATION
        .iter()
        .filter_map(|text| by_text(text))
        .collect();
    // In the harmony format `<|end|>` closes one message of several; `<|return|>` ends the reply.
    if by_text("<|return|>").is_some()
        && by_text("<|call|>").is_some()
        && let Some(end) = by_text("<|end|>")
    {
        ends.remove(&end);
    }
    ends.extend([eos, config.eot_id, config.eom_id].into_iter().flatten());
    ends
}

fn check_ids(config: &VocabularyConfig) -> Result<(), TokenizerError> {
    let n_tokens = config.tokens.len();
    for (key, id) in [
        ("bos_token_id", config.bos_id),
        ("eos_token_id", config.eos_id),
        ("eot_token_id", config.eot_id),
        ("eom_token_id", config.eom_id),
        ("unknown_token_id", config.unk_id),
        ("fim_pre_token_id", config.fim_prefix_id),
        ("fim_suf_token_id", config.fim_suffix_id),
        ("fim_mid_token_id", config.fim_middle_id),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= n_tokens) {
            return Err(TokenizerError::TokenIdOutOfRange { key, id, n_tokens });
        }
    }
    Ok(())
}
