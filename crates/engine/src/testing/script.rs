//! Scripts as the contract corpus writes them.

use cinderlm_tokenizer::Tokenizer;
use serde_json::Value;

use super::{Distribution, Script, TinyVocabulary};

/// Reads `{ "prompt": text, "output": [step, …], "end": token }`; a step is a token's name or an object from names to probabilities.
///
/// # Errors
/// A line that says what is wrong with it.
pub fn read_script(tokenizer: &Tokenizer, script: &Value) -> Result<Script, String> {
    let prompt = script["prompt"].as_str().ok_or("a script has no prompt")?;
    let steps = script["output"]
        .as_array()
        .ok_or("a script has no output")?;
    let end = script["end"].as_str().unwrap_or("<|end|>");
    Ok(Script {
        prompt: TinyVocabulary::encode(tokenizer, prompt),
        steps: steps.iter().map(read_step).collect::<Result<_, _>>()?,
        end: token(end)?,
    })
}

fn read_step(step: &Value) -> Result<Distribution, String> {
    match step {
        Value::String(name) => Ok(vec![(token(name)?, 1.0)]),
        Value::Object(distribution) => distribution
            .iter()
            .map(|(name, probability)| {
                let probability = probability.as_f64();
                let probability =
                    probability.ok_or_else(|| format!("{name:?} has no probability"))?;
                Ok((token(name)?, probability as f32))
            })
            .collect(),
        other => Err(format!("{other} is no step")),
    }
}

fn token(name: &str) -> Result<u32, String> {
    TinyVocabulary::token(name).ok_or_else(|| format!("there is no token {name:?}"))
}
