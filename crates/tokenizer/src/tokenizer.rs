use crate::byte_level::{ByteAlphabet, ByteLevel};
use crate::merge::Merger;
use crate::pretokenize::Family;
use crate::roles::Roles;
use crate::sentencepiece::{SentencePiece, write_token};
use crate::special::{Segment, SpecialMatcher};
use crate::vocabulary::{TokenKind, Vocabulary, ids_by_text, token_kinds};
use crate::{FillInTheMiddle, SpecialTokens, TokenizerError, VocabularyConfig};

#[derive(Debug)]
enum Model {
    ByteLevel(ByteLevel),
    SentencePiece {
        model: SentencePiece,
        space_prefix: bool,
    },
}

/// Turns text into token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    special: SpecialMatcher,
    roles: Roles,
    adds_bos: bool,
}

impl Tokenizer {
    /// Builds a tokenizer from a file's metadata.
    ///
    /// # Errors
    ///
    /// A [`TokenizerError`] names what is wrong: an unsupported model or pattern, lists of different lengths, ids out of range,
    /// duplicate tokens, merges of unknown tokens.
    pub fn new(config: VocabularyConfig) -> Result<Self, TokenizerError> {
        let n_tokens = config.tokens.len();
        if n_tokens == 0 {
            return Err(TokenizerError::EmptyVocabulary);
        }
        if u32::try_from(n_tokens).is_err() {
            return Err(TokenizerError::VocabularyTooLarge { n_tokens });
        }
        if let Some(scores) = config.scores.as_ref().filter(|list| list.len() != n_tokens) {
            return Err(TokenizerError::LengthMismatch {
                list: "scores",
                actual: scores.len(),
                expected: n_tokens,
            });
        }
        match config.model.as_str() {
            "gpt2" => Self::byte_level(&config),
            "llama" => Self::sentencepiece(&config),
            _ => Err(TokenizerError::UnsupportedModel {
                model: config.model,
            }),
        }
    }

    fn byte_level(config: &VocabularyConfig) -> Result<Self, TokenizerError> {
        let pre = config.pre.as_deref().unwrap_or("default");
        let family = Family::by_name(pre).ok_or_else(|| TokenizerError::UnknownPreTokenizer {
            pre: pre.to_owned(),
        })?;
        let mut kinds = token_kinds(config, false)?;
        let ids = ids_by_text(&config.tokens)?;
        let roles = Roles::new(config, &ids, &mut kinds)?;
        let model = Model::ByteLevel(ByteLevel::new(config, family, &ids, &kinds)?);
        let alphabet = ByteAlphabet::new();
        let vocabulary = Vocabulary::new(&config.tokens, kinds, |_, text, kind, bytes| {
            alphabet.write(text, kind, bytes);
            Ok(())
        })?;
        Self::assemble(config, vocabulary, model, roles, family.adds_bos)
    }

    fn sentencepiece(config: &VocabularyConfig) -> Result<Self, TokenizerError> {
        let mut kinds = token_kinds(config, true)?;
        let ids = ids_by_text(&config.tokens)?;
        let roles = Roles::new(config, &ids, &mut kinds)?;
        let model = Model::SentencePiece {
            model: SentencePiece::new(config, &kinds, roles.unk)?,
            space_prefix: config.add_space_prefix.unwrap_or(true),
        };
        let vocabulary = Vocabulary::new(&config.tokens, kinds, write_token)?;
        Self::assemble(config, vocabulary, model, roles, true)
    }

    fn assemble(
        config: &VocabularyConfig,
        vocabulary: Vocabulary,
        model: Model,
        roles: Roles,
        adds_bos_by_default: bool,
    ) -> Result<Self, TokenizerError> {
        let adds_bos = config.add_bos.unwrap_or(adds_bos_by_default);
        if adds_bos && roles.bos.is_none() {
            return Err(TokenizerError::MissingBos);
        }
        Ok(Self {
            special: SpecialMatcher::new(&vocabulary),
            vocabulary,
            model,
            roles,
            adds_bos,
        })
    }

    /// The ids of a text, with nothing added but the space that SentencePiece models put before text.
    ///
    /// A character that the vocabulary cannot write becomes the unknown token, or nothing where there is none.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut merger = Merger::default();
        let mut follows_token = true;
        for segment in self.special.split(&self.vocabulary, text, special) {
            match (segment, &self.model) {
                (Segment::Token(id), _) => ids.push(id),
                (Segment::Text(text), Model::ByteLevel(model)) => {
                    model.encode(text, &mut merger, &mut ids);
                }
                (
                    Segment::Text(text),
                    Model::SentencePiece {
                        model,
                        space_prefix,
                    },
                ) => {
                    let space_prefix = *space_prefix && follows_token;
                    model.encode(text, space_prefix, &mut merger, &mut ids);
                }
            }
            follows_token = matches!(segment, Segment::Token(_));
        }
        ids
    }

    /// The ids of a prompt: as [`encode`](Self::encode), after a BOS where the model asks for one and the text has none. No token
    /// that ends a document is added, since the completion goes on from the prompt.
    pub fn encode_prompt(&self, text: &str, special: SpecialTokens) -> Vec<u32> {
        let mut ids = self.encode(text, special);
        if self.adds_bos
            && let Some(bos) = self.roles.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        ids
    }

    /// The token that a document starts with, from which a model writes freely: BOS, or EOS for models that only separate
    /// documents.
    pub fn document_start(&self) -> Option<u32> {
        self.roles.bos.or(self.roles.eos)
    }

    /// The bytes that a token stands for, which need not be whole characters. Control tokens stand for their name.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// The text of tokens, as it continues other text: no space is taken away in front. Bytes that are no UTF-8, also those of
    /// characters cut off at either end, become U+FFFD. With `skip_special`, control tokens add nothing; ids outside the vocabulary
    /// never do.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                bytes.extend_from_slice(self.token_bytes(id).unwrap_or_default());
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text of a prompt, inverse to [`encode_prompt`](Self::encode_prompt): a BOS that the model asks for is left out, and so is
    /// the space that a SentencePiece model puts before the text.
    pub fn decode_prompt(&self, ids: &[u32], skip_special: bool) -> String {
        let ids = match ids.split_first() {
            Some((&first, rest)) if self.adds_bos && self.roles.bos == Some(first) => rest,
            _ => ids,
        };
        let mut text = self.decode(ids, skip_special);
        let has_space_prefix = matches!(
            self.model,
            Model::SentencePiece {
                space_prefix: true,
                ..
            }
        );
        let starts_with_text = ids.first().is_some_and(|&id| !self.is_spelled_out(id));
        if has_space_prefix && starts_with_text && text.starts_with(' ') {
            text.remove(0);
        }
        text
    }

    fn is_spelled_out(&self, id: u32) -> bool {
        let kind = self.vocabulary.kind(id);
        kind.is_some_and(|kind| kind.is_special() || kind == TokenKind::UserDefined)
    }

    /// Whether the token is a control token or the unknown token, which readers of the text should not see.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.kind(id).is_some_and(TokenKind::is_special)
    }

    /// Whether a generation is over once the model has chosen this token.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.roles.end_of_generation.contains(&id)
    }

    /// The tokens for filling a gap, where the vocabulary has all three.
    pub fn fim(&self) -> Option<FillInTheMiddle> {
        self.roles.fim
    }

    /// How many tokens there are; ids are below it.
    pub fn n_tokens(&self) -> usize {
        self.vocabulary.len()
    }
}
