//! A request before anything is known about it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep arrays and objects may nest. No request needs more than four levels; the limit keeps
/// hostile input from exhausting the stack.
pub const MAX_DEPTH: usize = 16;

/// A value as JavaScript or JSON has it.
///
/// Unlike a JSON value it keeps NaN and the infinities, which structured clone delivers and which
/// must be refused rather than taken for null.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null` or `undefined`.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer: a `BigInt`, or a number that arrived as an integer.
    Int(i64),
    /// An integer above [`i64::MAX`].
    UInt(u64),
    /// Any other number. It may be integral, NaN or infinite.
    Float(f64),
    /// A string.
    String(String),
    /// An array, or a typed array of bytes.
    Array(Vec<Value>),
    /// An object's entries in their order; a repeated key is kept, and the last one counts.
    Object(Vec<(String, Value)>),
}

/// The value in the words of an error message. Long strings are cut.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARS: usize = 40;
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::UInt(value) => write!(f, "{value}"),
            // Not spelt out to three hundred digits.
            Value::Float(value) => write!(f, "{value:?}"),
            Value::String(value) => match value.char_indices().nth(MAX_CHARS) {
                None => write!(f, "the string {value:?}"),
                Some((end, _)) => write!(f, "a string starting {:?}", &value[..end]),
            },
            Value::Array(values) if values.is_empty() => f.write_str("an empty array"),
            Value::Array(_) => f.write_str("an array"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ValueAt {
            depth_left: MAX_DEPTH,
        }
        .deserialize(deserializer)
    }
}

/// Reads a value that may nest `depth_left` levels deep.
#[derive(Clone, Copy)]
struct ValueAt {
    depth_left: usize,
}

impl ValueAt {
    fn inner<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom(format_args!(
                "nested more than {MAX_DEPTH} levels deep"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueAt {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueAt {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, a string, an array or an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Array(
            value
                .iter()
                .map(|&byte| Value::Int(i64::from(byte)))
                .collect(),
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut entries = Vec::new();
        // A JavaScript Map from token ids to biases has numbers for keys.
        while let Some(key) = access.next_key_seed(inner)? {
            let key = match key {
                Value::String(key) => key,
                Value::Int(_) | Value::UInt(_) | Value::Float(_) => key.to_string(),
                _ => return Err(A::Error::custom("a key is neither a string nor a number")),
            };
            entries.push((key, access.next_value_seed(inner)?));
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{
        BytesDeserializer, Error as PlainError, F64Deserializer, MapDeserializer, UnitDeserializer,
    };

    use super::*;

    fn parse(json: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn json_becomes_values() {
        let check = |json: &str, expect: Value| {
            assert_eq!(parse(json).expect("well-formed JSON"), expect, "{json}");
        };
        check("null", Value::Null);
        check("true", Value::Bool(true));
        check("-3", Value::Int(-3));
        check("3", Value::Int(3));
        check("9223372036854775807", Value::Int(i64::MAX));
        check("9223372036854775808", Value::UInt(1 << 63));
        check("3.0", Value::Float(3.0));
        check("\"é\"", Value::String("é".to_owned()));
        check("[]", Value::Array(vec![]));
        check(
            "[1, [null]]",
            Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Null])]),
        );
        let entries = [("b", 1), ("a", 2)].map(|(key, int)| (key.to_owned(), Value::Int(int)));
        check(r#"{"b": 1, "a": 2}"#, Value::Object(entries.to_vec()));
    }

    #[test]
    fn what_only_javascript_delivers() {
        let nan = Value::deserialize(F64Deserializer::<PlainError>::new(f64::NAN));
        assert!(matches!(nan, Ok(Value::Float(value)) if value.is_nan()));

        assert_eq!(
            Value::deserialize(UnitDeserializer::<PlainError>::new()),
            Ok(Value::Null)
        );

        let bytes = Value::deserialize(BytesDeserializer::<PlainError>::new(&[1, 255]));
        assert_eq!(
            bytes,
            Ok(Value::Array(vec![Value::Int(1), Value::Int(255)]))
        );

        let map = MapDeserializer::<_, PlainError>::new([(7u32, "x")].into_iter());
        let expect = Value::Object(vec![("7".to_owned(), Value::String("x".to_owned()))]);
        assert_eq!(Value::deserialize(map), Ok(expect));
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        let error = parse(&nested(MAX_DEPTH + 1)).expect_err("one level too many");
        assert!(
            error.to_string().contains("nested more than 16 levels"),
            "{error}"
        );
    }

    #[test]
    fn values_in_words() {
        let check = |value: Value, expect: &str| assert_eq!(value.to_string(), expect);
        check(Value::Null, "null");
        check(Value::Float(1.5), "1.5");
        check(Value::Float(f64::NAN), "NaN");
        check(Value::String("a\n".to_owned()), r#"the string "a\n""#);
        check(
            Value::String("é".repeat(41)),
            &format!("a string starting \"{}\"", "é".repeat(40)),
        );
        check(Value::Array(vec![]), "an empty array");
        check(Value::Array(vec![Value::Null]), "an array");
        check(Value::Object(vec![]), "an object");
    }
}
