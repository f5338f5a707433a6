//! Columns of JSON that may hold more than we can read: numbers beyond 64 bits, thousands of brackets. Nothing
//! of ours writes such a thing; another program's SQL may.

use serde_json::Value;
use sqlx::Postgres;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::types::Json;

/// What a column holds, or why it cannot be read: a query does not fail for it.
#[derive(Clone, Debug)]
pub(in crate::store) struct AnyJson(pub(in crate::store) Result<Value, String>);

impl AnyJson {
    /// For people: the value, or a text that says why it cannot be shown.
    pub(in crate::store) fn shown(self) -> Value {
        self.0.unwrap_or_else(|why| Value::String(format!("cannot be shown: {why}")))
    }
}

impl sqlx::Type<Postgres> for AnyJson {
    fn type_info() -> PgTypeInfo {
        <Json<Value> as sqlx::Type<Postgres>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <Json<Value> as sqlx::Type<Postgres>>::compatible(ty)
    }
}

impl<'r> sqlx::Decode<'r, Postgres> for AnyJson {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let read = <Json<Value> as sqlx::Decode<'r, Postgres>>::decode(value);
        Ok(Self(read.map(|json| json.0).map_err(|error| error.to_string())))
    }
}
