//! Query parameters, and lists in pages.
//!
//! Lists are read by key (`id < cursor`), never by offset: what is added meanwhile neither repeats
//! nor hides anything, and page 1,000 costs what page 1 does.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use orchestrator_engine::id::{AgentId, CalendarId, EventId, RunId, TaskId};
use orchestrator_engine::problem::nearest;
use serde::Serialize;

use crate::problem::{Mistake, Problem};
use crate::time;

/// How many entries a page has when nobody says.
pub const LIMIT_DEFAULT: i64 = 50;
/// The most entries of a page.
pub const LIMIT_MAX: i64 = 200;

/// The query of a request, taken apart. Every mistake in it is noted; [`Query::done`] tells them.
pub struct Query {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        let given = serde_urlencoded::from_str(text)
            .map_err(|_| Problem::bad_request("the query is not of the form name=value&…"))?;
        Ok(Self { given, known: Vec::new(), mistakes: Vec::new() })
    }
}

impl Query {
    fn wrong(&mut self, parameter: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            pointer: None,
            parameter: Some(parameter.to_owned()),
            message: message.into(),
        });
    }

    /// The text of a parameter; `None` where it is missing or empty.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let values: Vec<_> =
            self.given.iter().filter(|(given, _)| given == name).map(|(_, v)| v.clone()).collect();
        if values.len() > 1 {
            self.wrong(name, "is given more than once");
        }
        let value = values.into_iter().next().filter(|value| !value.is_empty())?;
        if value.contains('\0') {
            self.wrong(name, "must not hold the character U+0000");
            return None;
        }
        Some(value)
    }

    /// A parameter of a type.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let error: T::Err = error;
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    /// A time.
    pub fn time(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let text = self.text(name)?;
        // A plus sign in a query means a blank, and a time zone's offset begins with one.
        time::read(&text.replace(' ', "+")).map_err(|said| self.wrong(name, said)).ok()
    }

    /// `limit` and `cursor`.
    pub fn page<C: Cursor>(&mut self) -> Page<C> {
        let limit = match self.text("limit").map(|text| text.parse::<i64>()) {
            None => LIMIT_DEFAULT,
            Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
            Some(_) => {
                self.wrong("limit", format!("must be a whole number from 1 to {LIMIT_MAX}"));
                LIMIT_DEFAULT
            }
        };
        let text = self.text("cursor");
        let cursor = text.as_deref().and_then(C::read);
        if text.is_some() && cursor.is_none() {
            self.wrong("cursor", "must be a next_cursor that this list gave");
        }
        Page { limit, cursor }
    }

    /// Notes that `name` is wrong in a way only the caller of this can know.
    pub fn refuse(&mut self, name: &'static str, message: impl Into<String>) {
        self.wrong(name, message);
    }

    /// Says what is wrong, unknown parameters included.
    ///
    /// # Errors
    ///
    /// 400 with every mistake.
    pub fn done(mut self) -> Result<(), Problem> {
        let unknown: Vec<_> = self
            .given
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| !self.known.contains(&name.as_str()))
            .collect();
        for name in unknown {
            let hint = nearest(&name, self.known.iter().copied())
                .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"));
            self.wrong(&name, format!("there is no such parameter here{hint}"));
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(Problem::parameters(self.mistakes)) }
    }
}

/// What a list is read by.
pub trait Cursor: Sized {
    /// What `next_cursor` was made of; `None`: this is none.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! cursors {
    ($($type:ty),+) => {
        $(impl Cursor for $type {
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })+
    };
}

cursors!(i32, i64, AgentId, CalendarId, EventId, RunId, TaskId);

impl Cursor for DateTime<Utc> {
    fn read(text: &str) -> Option<Self> {
        time::read(text).ok()
    }
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page<C> {
    /// How many entries at most.
    pub limit: i64,
    /// Behind which one.
    pub cursor: Option<C>,
}

impl<C> Page<C> {
    /// How many to ask the store for: one more than wanted shows whether there is a next page.
    pub fn ask(&self) -> i64 {
        self.limit + 1
    }

    /// The page of `rows`, of which there are at most [`Page::ask`]; `key` gives the cursor of a row.
    pub fn of<R, T>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        show: impl FnMut(R) -> T,
    ) -> List<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = if more { rows.last().map(key) } else { None };
        List { items: rows.into_iter().map(show).collect(), next_cursor }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct List<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; null: there is none.
    pub next_cursor: Option<String>,
}
