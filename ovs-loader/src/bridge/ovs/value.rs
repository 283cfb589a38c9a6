//! OVSDB's values (RFC 7047 section 5.1): atoms, and the sets and maps that every column holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

/// What is no OVSDB value, or not one that Open vSwitch's tables need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OVSDB {expected}: {found}")]
pub struct Malformed {
    /// What was expected.
    pub expected: &'static str,
    /// What was found.
    pub found: String,
}

impl Malformed {
    pub(super) fn new(expected: &'static str, found: &Value) -> Self {
        Self { expected, found: found.to_string() }
    }
}

/// A row's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub String);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One value. Open vSwitch's tables have no column of real numbers that matters here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// Text.
    String(String),
    /// A row.
    Uuid(Uuid),
    /// A row that the same transaction inserts, by the name given there.
    Named(String),
}

impl Atom {
    fn from_json(value: &Value) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("atom", value);
        match value {
            Value::String(text) => Ok(Self::String(text.clone())),
            Value::Bool(value) => Ok(Self::Boolean(*value)),
            Value::Number(number) => number.as_i64().map(Self::Integer).ok_or_else(malformed),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(tag), Value::String(text)] if tag == "uuid" => {
                    Ok(Self::Uuid(Uuid(text.clone())))
                }
                [Value::String(tag), Value::String(text)] if tag == "named-uuid" => {
                    Ok(Self::Named(text.clone()))
                }
                _ => Err(malformed()),
            },
            _ => Err(malformed()),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Integer(value) => json!(value),
            Self::Boolean(value) => json!(value),
            Self::String(text) => json!(text),
            Self::Uuid(uuid) => json!(["uuid", uuid.0]),
            Self::Named(name) => json!(["named-uuid", name]),
        }
    }
}

impl From<&str> for Atom {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<i64> for Atom {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<Uuid> for Atom {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

/// What a column holds. A scalar is a set of one, an empty optional column a set of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// A scalar or a set.
    Set(BTreeSet<Atom>),
    /// A map.
    Map(BTreeMap<Atom, Atom>),
}

impl Datum {
    /// A set.
    pub fn set(atoms: impl IntoIterator<Item = impl Into<Atom>>) -> Self {
        Self::Set(atoms.into_iter().map(Into::into).collect())
    }

    /// A map.
    pub fn map(pairs: impl IntoIterator<Item = (impl Into<Atom>, impl Into<Atom>)>) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// From RFC 7047's notation.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(value: &Value) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("value", value);
        if let Value::Array(pair) = value
            && let [Value::String(tag), Value::Array(members)] = pair.as_slice()
        {
            return match tag.as_str() {
                "set" => {
                    Ok(Self::Set(members.iter().map(Atom::from_json).collect::<Result<_, _>>()?))
                }
                "map" => members
                    .iter()
                    .map(|pair| match pair.as_array().map(Vec::as_slice) {
                        Some([key, value]) => Ok((Atom::from_json(key)?, Atom::from_json(value)?)),
                        _ => Err(malformed()),
                    })
                    .collect::<Result<_, _>>()
                    .map(Self::Map),
                _ => Err(malformed()),
            };
        }
        Ok(Self::Set([Atom::from_json(value)?].into()))
    }

    /// To RFC 7047's notation.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Set(atoms) => match atoms.first() {
                Some(scalar) if atoms.len() == 1 => scalar.to_json(),
                _ => json!(["set", atoms.iter().map(Atom::to_json).collect::<Vec<_>>()]),
            },
            Self::Map(pairs) => {
                let pair = |(key, value): (&Atom, &Atom)| json!([key.to_json(), value.to_json()]);
                json!(["map", pairs.iter().map(pair).collect::<Vec<_>>()])
            }
        }
    }
}

impl<T: Into<Atom>> From<T> for Datum {
    fn from(atom: T) -> Self {
        Self::Set([atom.into()].into())
    }
}

/// A row, or the part of it that was asked for, by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub BTreeMap<String, Datum>);

impl Row {
    /// A row with these columns.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Datum)>) -> Self {
        Self(columns.into_iter().map(|(column, datum)| (column.to_owned(), datum)).collect())
    }

    /// From RFC 7047's notation.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(value: &Value) -> Result<Self, Malformed> {
        let columns = value.as_object().ok_or_else(|| Malformed::new("row", value))?;
        columns
            .iter()
            .map(|(column, value)| Ok((column.clone(), Datum::from_json(value)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// To RFC 7047's notation.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(column, datum)| (column.clone(), datum.to_json())).collect()
    }

    /// The members of a set; none where the column is empty or was not asked for.
    pub fn atoms(&self, column: &str) -> impl Iterator<Item = &Atom> {
        let set = match self.0.get(column) {
            Some(Datum::Set(set)) => Some(set),
            _ => None,
        };
        set.into_iter().flatten()
    }

    /// The text of a column; empty where it is.
    #[must_use]
    pub fn text(&self, column: &str) -> &str {
        self.texts(column).next().unwrap_or_default()
    }

    /// The texts of a column.
    pub fn texts(&self, column: &str) -> impl Iterator<Item = &str> {
        self.atoms(column).filter_map(|atom| match atom {
            Atom::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The number of a column, if it has one.
    #[must_use]
    pub fn integer(&self, column: &str) -> Option<i64> {
        self.integers(column).next()
    }

    /// The numbers of a column.
    pub fn integers(&self, column: &str) -> impl Iterator<Item = i64> {
        self.atoms(column).filter_map(|atom| match atom {
            Atom::Integer(value) => Some(*value),
            _ => None,
        })
    }

    /// Whether a column says true.
    #[must_use]
    pub fn is_true(&self, column: &str) -> bool {
        self.atoms(column).any(|atom| *atom == Atom::Boolean(true))
    }

    /// The rows that a column names.
    pub fn uuids(&self, column: &str) -> impl Iterator<Item = &Uuid> {
        self.atoms(column).filter_map(|atom| match atom {
            Atom::Uuid(uuid) => Some(uuid),
            _ => None,
        })
    }

    /// A column's map of texts.
    pub fn pairs(&self, column: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = match self.0.get(column) {
            Some(Datum::Map(map)) => Some(map),
            _ => None,
        };
        map.into_iter().flatten().filter_map(|pair| match pair {
            (Atom::String(key), Atom::String(value)) => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// The value of a key in a column's map of texts.
    #[must_use]
    pub fn value(&self, column: &str, key: &str) -> Option<&str> {
        self.pairs(column).find(|(known, _)| *known == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_written_in_rfc_7047s_notation() {
        for (json, datum) in [
            (json!("a"), Datum::from("a")),
            (json!(-1), Datum::from(-1)),
            (json!(["uuid", "u"]), Datum::from(Uuid("u".into()))),
            (json!(["named-uuid", "n"]), Datum::from(Atom::Named("n".into()))),
            (json!(["set", []]), Datum::Set([].into())),
            (json!(["set", [1, 2]]), Datum::set([1, 2])),
            (json!(["map", [["k", "v"]]]), Datum::map([("k", "v")])),
            (json!(["map", []]), Datum::Map([].into())),
        ] {
            assert_eq!(Datum::from_json(&json), Ok(datum.clone()));
            assert_eq!(datum.to_json(), json);
        }
        assert_eq!(Datum::from_json(&json!(["set", [true]])), Ok(Datum::from(true)));
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        for json in
            [json!(null), json!([]), json!(["what", []]), json!(["map", [["k"]]]), json!({})]
        {
            assert!(Datum::from_json(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_row_gives_what_its_columns_hold() {
        let row = Row::from_json(&json!({
            "name": "br-ex",
            "ofport": ["set", []],
            "options": ["map", [["key", "7"]]],
            "ports": ["set", [["uuid", "a"], ["uuid", "b"]]],
            "protected": true,
        }))
        .unwrap();
        assert_eq!(row.text("name"), "br-ex");
        assert_eq!(row.integer("ofport"), None);
        assert_eq!(row.value("options", "key"), Some("7"));
        assert_eq!(row.value("options", "csum"), None);
        assert_eq!(row.uuids("ports").map(|uuid| uuid.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(row.is_true("protected"));
        assert_eq!(row.text("absent"), "");
    }
}
