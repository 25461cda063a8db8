//! What a request asks to continue.

use std::fmt::Display;
use std::slice;

use super::read;
use crate::{CompletionError, Value};

/// One prompt or several, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// No prompt: the model's document start.
    DocumentStart,
    /// One text.
    Text(String),
    /// Texts that are prompts of their own; at least one.
    Texts(Vec<String>),
    /// One prompt as token ids; at least one id.
    Tokens(Vec<u32>),
    /// Prompts as token ids; at least one prompt, each of at least one id.
    TokenLists(Vec<Vec<u32>>),
}

/// One of a request's prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptItem<'a> {
    /// The model's document start, for an empty text or none.
    DocumentStart,
    /// A text, not empty. Special tokens in it are recognised.
    Text(&'a str),
    /// Token ids, at least one.
    Tokens(&'a [u32]),
}

impl Prompt {
    /// How many prompts there are, at least one.
    pub fn n_prompts(&self) -> usize {
        match self {
            Prompt::DocumentStart | Prompt::Text(_) | Prompt::Tokens(_) => 1,
            Prompt::Texts(texts) => texts.len(),
            Prompt::TokenLists(lists) => lists.len(),
        }
    }

    /// The prompts in their order.
    pub fn items(&self) -> impl Iterator<Item = PromptItem<'_>> {
        let (texts, lists): (&[String], &[Vec<u32>]) = match self {
            Prompt::DocumentStart => (&[], &[]),
            Prompt::Text(text) => (slice::from_ref(text), &[]),
            Prompt::Texts(texts) => (texts, &[]),
            Prompt::Tokens(list) => (&[], slice::from_ref(list)),
            Prompt::TokenLists(lists) => (&[], lists),
        };
        let start = matches!(self, Prompt::DocumentStart).then_some(PromptItem::DocumentStart);
        let texts = texts.iter().map(|text| match text.as_str() {
            "" => PromptItem::DocumentStart,
            text => PromptItem::Text(text),
        });
        let lists = lists.iter().map(|list| PromptItem::Tokens(list));
        start.into_iter().chain(texts).chain(lists)
    }

    pub(super) fn check_vocabulary(&self, vocab_size: usize) -> Result<(), CompletionError> {
        let check = |param: &dyn Display, list: &[u32]| match list
            .iter()
            .enumerate()
            .find(|&(_, &token)| token as usize >= vocab_size)
        {
            Some((i, &token)) => {
                let param = format_args!("{param}[{i}]");
                Err(CompletionError::token_out_of_range(
                    param, token, vocab_size,
                ))
            }
            None => Ok(()),
        };
        match self {
            Prompt::DocumentStart | Prompt::Text(_) | Prompt::Texts(_) => Ok(()),
            Prompt::Tokens(list) => check(&"prompt", list),
            Prompt::TokenLists(lists) => lists
                .iter()
                .enumerate()
                .try_for_each(|(i, list)| check(&format_args!("prompt[{i}]"), list)),
        }
    }

    /// Reads a prompt. The first element of an array decides what all must be.
    pub(super) fn read(param: &str, value: Value) -> Result<Self, CompletionError> {
        let items = match value {
            Value::String(text) => return Ok(Prompt::Text(text)),
            Value::Array(items) => items,
            other => {
                let expected = "a string, an array of strings, an array of token ids or an array \
                                of arrays of token ids";
                return Err(CompletionError::invalid_type(param, expected, other));
            }
        };
        match items.first() {
            None => Err(empty_array(param)),
            Some(Value::String(_)) => read_texts(param, items).map(Prompt::Texts),
            Some(Value::Array(_)) => read_token_lists(param, items).map(Prompt::TokenLists),
            Some(Value::Int(_) | Value::UInt(_) | Value::Float(_)) => {
                read_tokens(param, items).map(Prompt::Tokens)
            }
            Some(other) => {
                let expected = "a string, a token id or an array of token ids";
                Err(CompletionError::invalid_type(
                    format_args!("{param}[0]"),
                    expected,
                    other,
                ))
            }
        }
    }
}

fn read_texts(param: &str, items: Vec<Value>) -> Result<Vec<String>, CompletionError> {
    let read = |(i, item)| read::string(format_args!("{param}[{i}]"), item);
    items.into_iter().enumerate().map(read).collect()
}

fn read_tokens(param: impl Display, items: Vec<Value>) -> Result<Vec<u32>, CompletionError> {
    let read = |(i, item)| read::token(format_args!("{param}[{i}]"), item);
    items.into_iter().enumerate().map(read).collect()
}

fn read_token_lists(param: &str, items: Vec<Value>) -> Result<Vec<Vec<u32>>, CompletionError> {
    let read = |(i, item)| {
        let param = format!("{param}[{i}]");
        match item {
            Value::Array(list) if list.is_empty() => Err(empty_array(param)),
            Value::Array(list) => read_tokens(param, list),
            other => Err(CompletionError::invalid_type(
                param,
                "an array of token ids",
                other,
            )),
        }
    };
    items.into_iter().enumerate().map(read).collect()
}

fn empty_array(param: impl Display) -> CompletionError {
    CompletionError::out_of_range(param, "an array of at least one element", "empty")
}
