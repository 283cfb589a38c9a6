//! The rows of the database that say how bridges forward, kept by ovsdb-server's notifications.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::value::{Atom, Datum, Malformed, Row, Uuid};

/// What is followed. Columns that the server's schema lacks are left out; `statistics` and the like,
/// which change all the time, are not asked for.
const FOLLOWED: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["bridges"]),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "datapath_type",
            "flood_vlans",
            "mirrors",
            "netflow",
            "sflow",
            "ipfix",
            "stp_enable",
            "rstp_enable",
            "other_config",
        ],
    ),
    (
        "Port",
        &[
            "name",
            "interfaces",
            "tag",
            "trunks",
            "vlan_mode",
            "qos",
            "protected",
            "lacp",
            "other_config",
            "status",
            "rstp_status",
        ],
    ),
    (
        "Interface",
        &[
            "name",
            "type",
            "options",
            "ofport",
            "error",
            "ifindex",
            "ingress_policing_rate",
            "ingress_policing_kpkts_rate",
            "bfd",
            "cfm_mpid",
        ],
    ),
    ("Mirror", &["name"]),
    ("QoS", &["type"]),
];

/// Which columns hold sets or maps of more than one: their changes are told as differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    columns: BTreeMap<String, BTreeMap<String, bool>>,
}

impl Schema {
    /// From the answer to `get_schema`, what of it is followed.
    ///
    /// # Errors
    /// Where it has not the form of a schema, or not the tables.
    pub fn from_json(schema: &Value) -> Result<Self, Malformed> {
        let mut columns = BTreeMap::new();
        for (table, wanted) in FOLLOWED {
            let known = schema["tables"][table]["columns"]
                .as_object()
                .ok_or_else(|| Malformed { expected: "schema", found: format!("no {table}") })?;
            let followed = wanted.iter().filter_map(|column| {
                let several = match &known.get(*column)?["type"]["max"] {
                    Value::String(_) => true,
                    Value::Number(max) => max.as_u64() > Some(1),
                    _ => false,
                };
                Some(((*column).to_owned(), several))
            });
            columns.insert((*table).to_owned(), followed.collect());
        }
        Ok(Self { columns })
    }

    /// The part of `monitor_cond_since` that says what is followed.
    #[must_use]
    pub fn requests(&self) -> Value {
        let request = |columns: &BTreeMap<String, bool>| json!([{ "columns": columns.keys().collect::<Vec<_>>() }]);
        self.columns.iter().map(|(table, columns)| (table.clone(), request(columns))).collect()
    }

    fn is_several(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).and_then(|columns| columns.get(column)).copied().unwrap_or(false)
    }
}

/// The rows that are followed, by table. A column that a row lacks has its default, which is empty, 0
/// or false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    schema: Schema,
    tables: BTreeMap<String, BTreeMap<Uuid, Row>>,
}

impl Tables {
    /// Without rows.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self { schema, tables: BTreeMap::new() }
    }

    /// A row.
    #[must_use]
    pub fn row(&self, table: &str, uuid: &Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(uuid)
    }

    /// The rows of a table that these columns of a row name, with their names for themselves.
    pub fn named<'a>(
        &'a self,
        table: &'a str,
        row: &'a Row,
        column: &'a str,
    ) -> impl Iterator<Item = (&'a Uuid, &'a Row)> {
        row.uuids(column).filter_map(move |uuid| Some((uuid, self.row(table, uuid)?)))
    }

    /// The bridges.
    pub fn bridges(&self) -> impl Iterator<Item = (&Uuid, &Row)> {
        let roots = self.tables.get("Open_vSwitch").into_iter().flat_map(BTreeMap::values);
        roots.flat_map(|root| self.named("Bridge", root, "bridges"))
    }

    /// Takes up the tables of an `update3` notification or of the first answer.
    ///
    /// # Errors
    /// Where they have not the form that `ovsdb-server(7)` describes; the rows are of no use then.
    pub fn update(&mut self, updates: &Value) -> Result<(), Malformed> {
        for (table, rows) in objects(updates)? {
            for (uuid, update) in objects(rows)? {
                self.update_row(table, Uuid(uuid.clone()), update)?;
            }
        }
        Ok(())
    }

    fn update_row(&mut self, table: &str, uuid: Uuid, update: &Value) -> Result<(), Malformed> {
        let rows = self.tables.entry(table.to_owned()).or_default();
        for (kind, row) in objects(update)? {
            match kind.as_str() {
                "initial" | "insert" => drop(rows.insert(uuid.clone(), Row::from_json(row)?)),
                "delete" => drop(rows.remove(&uuid)),
                "modify" => {
                    let known = rows
                        .get_mut(&uuid)
                        .ok_or_else(|| Malformed::new("change of a known row", row))?;
                    for (column, difference) in Row::from_json(row)?.0 {
                        if self.schema.is_several(table, &column) {
                            let datum = known.0.remove(&column);
                            known.0.insert(column, combine(datum, difference));
                        } else {
                            known.0.insert(column, difference);
                        }
                    }
                }
                _ => return Err(Malformed::new("row update", update)),
            }
        }
        Ok(())
    }
}

fn objects(value: &Value) -> Result<&serde_json::Map<String, Value>, Malformed> {
    value.as_object().ok_or_else(|| Malformed::new("table update", value))
}

/// Applies the difference of a set, whose members come or go, or of a map, whose pairs come, change
/// or go.
fn combine(datum: Option<Datum>, difference: Datum) -> Datum {
    match (datum, difference) {
        (Some(Datum::Set(set)), Datum::Set(difference)) => {
            Datum::Set(set.symmetric_difference(&difference).cloned().collect::<BTreeSet<Atom>>())
        }
        (Some(Datum::Map(mut map)), Datum::Map(difference)) => {
            for (key, value) in difference {
                if map.get(&key) == Some(&value) {
                    map.remove(&key);
                } else {
                    map.insert(key, value);
                }
            }
            Datum::Map(map)
        }
        // A default that was left out is empty.
        (_, difference) => difference,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Open vSwitch's: a scalar, an optional scalar, a set and a map.
    fn schema() -> Schema {
        let mut tables = serde_json::Map::new();
        for (table, columns) in FOLLOWED {
            let types = columns.iter().map(|column| {
                let kind = match *column {
                    "ports" | "trunks" => json!({ "key": "integer", "min": 0, "max": 4096 }),
                    "options" => json!({ "key": "string", "value": "string", "max": "unlimited" }),
                    "tag" => json!({ "key": "integer", "min": 0, "max": 1 }),
                    _ => json!("string"),
                };
                ((*column).to_owned(), json!({ "type": kind }))
            });
            tables.insert((*table).to_owned(), json!({ "columns": types.collect::<Value>() }));
        }
        Schema::from_json(&json!({ "tables": tables })).unwrap()
    }

    #[test]
    fn columns_that_an_older_schema_lacks_are_not_asked_for() {
        let mut json = json!({ "tables": {} });
        for (table, columns) in FOLLOWED {
            json["tables"][table]["columns"][columns[0]] = json!({ "type": "string" });
        }
        let requests = Schema::from_json(&json).unwrap().requests();
        assert_eq!(requests["Interface"], json!([{ "columns": ["name"] }]));
        assert!(Schema::from_json(&json!({ "tables": {} })).is_err());
    }

    #[test]
    fn a_change_of_an_unknown_row_is_an_error() {
        let mut tables = Tables::new(schema());
        let update = json!({ "Port": { "u": { "modify": { "name": "p" } } } });
        assert!(tables.update(&update).is_err());
        assert!(tables.update(&json!({ "Port": { "u": { "what": {} } } })).is_err());
    }

    /// One row, as the server has it.
    type Values = (String, Option<i64>, BTreeSet<i64>, BTreeMap<String, String>);

    fn values() -> impl Strategy<Value = Values> {
        let word = || "[abc]?";
        (
            word(),
            prop::option::of(0..3i64),
            prop::collection::btree_set(0..4i64, 0..4),
            prop::collection::btree_map(word(), word(), 0..3),
        )
    }

    fn set(members: &BTreeSet<i64>) -> Value {
        match members.first() {
            Some(one) if members.len() == 1 => json!(one),
            _ => json!(["set", members]),
        }
    }

    fn map(pairs: &BTreeMap<String, String>) -> Value {
        json!(["map", pairs.iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>()])
    }

    /// `ovsdb-server(7)`: a row as it is, without columns that have their default.
    fn whole((name, tag, trunks, options): &Values) -> Value {
        let mut row = json!({});
        if !name.is_empty() {
            row["name"] = json!(name);
        }
        if let Some(tag) = tag {
            row["tag"] = json!(tag);
        }
        if !trunks.is_empty() {
            row["trunks"] = set(trunks);
        }
        if !options.is_empty() {
            row["options"] = map(options);
        }
        row
    }

    /// `ovsdb-server(7)`: what differs.
    fn difference(old: &Values, new: &Values) -> Value {
        let mut row = json!({});
        if old.0 != new.0 {
            row["name"] = json!(new.0);
        }
        if old.1 != new.1 {
            row["tag"] = new.1.map_or(json!(["set", []]), |tag| json!(tag));
        }
        let trunks: BTreeSet<_> = old.2.symmetric_difference(&new.2).copied().collect();
        if !trunks.is_empty() {
            row["trunks"] = set(&trunks);
        }
        let mut options = new.3.clone();
        options.retain(|key, value| old.3.get(key) != Some(value));
        for (key, value) in &old.3 {
            if !new.3.contains_key(key) {
                options.insert(key.clone(), value.clone());
            }
        }
        if !options.is_empty() {
            row["options"] = map(&options);
        }
        row
    }

    /// What the columns hold, defaults included.
    fn read(row: &Row) -> Values {
        let options = row.pairs("options").map(|(key, value)| (key.to_owned(), value.to_owned()));
        (
            row.text("name").to_owned(),
            row.integer("tag"),
            row.integers("trunks").collect(),
            options.collect(),
        )
    }

    proptest! {
        #[test]
        fn any_sequence_of_differences_ends_as_a_fresh_dump(
            steps in prop::collection::vec((0..3u8, prop::option::of(values())), 1..30),
        ) {
            // Trunks and options stand in one table here, which no schema minds.
            let mut schema = schema();
            let several = [("options".to_owned(), true), ("trunks".to_owned(), true)];
            schema.columns.get_mut("Port").unwrap().extend(several);
            let mut followed = Tables::new(schema.clone());
            let mut server = BTreeMap::<String, Values>::new();
            for (row, values) in steps {
                let uuid = row.to_string();
                let update = match (server.get(&uuid), &values) {
                    (None, None) => continue,
                    (None, Some(new)) => json!({ "insert": whole(new) }),
                    (Some(_), None) => json!({ "delete": null }),
                    (Some(old), Some(new)) => json!({ "modify": difference(old, new) }),
                };
                match values {
                    Some(values) => server.insert(uuid.clone(), values),
                    None => server.remove(&uuid),
                };
                followed.update(&json!({ "Port": { uuid: update } })).unwrap();
            }
            let mut fresh = Tables::new(schema);
            for (uuid, values) in &server {
                let update = json!({ "Port": { uuid: { "initial": whole(values) } } });
                fresh.update(&update).unwrap();
            }
            for (uuid, values) in &server {
                let uuid = Uuid(uuid.clone());
                prop_assert_eq!(&read(followed.row("Port", &uuid).unwrap()), values);
                prop_assert_eq!(&read(fresh.row("Port", &uuid).unwrap()), values);
            }
            let count = |tables: &Tables| tables.tables.get("Port").map_or(0, BTreeMap::len);
            prop_assert_eq!(count(&followed), server.len());
        }
    }
}
