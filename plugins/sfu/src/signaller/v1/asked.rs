// SPDX-License-Identifier: MPL-2.0

//! What a request asks for, read with a refusal that says what is wrong, and lists in parts.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sfu_engine::StreamName;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::signaller::server::{App, Refusal};

/// The most of a list that is told at a time.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

/// The query.
pub(in crate::signaller) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        let refuse = |e: axum::extract::rejection::QueryRejection| {
            Refusal::new(StatusCode::BAD_REQUEST, e.body_text())
        };
        Ok(Self(query.map_err(refuse)?.0))
    }
}

/// The stream that the path names. What can be no name is no stream's.
pub(in crate::signaller) struct Named(pub(super) StreamName);

impl PartialSchema for Named {
    fn schema() -> RefOr<Schema> {
        // Reserved words can't be told from others so, and neither `.` from names that begin with it, which are taken.
        let pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63})*$";
        let name = ObjectBuilder::new().schema_type(Type::String);
        let name = name.max_length(Some(255)).pattern(Some(pattern));
        name.examples(["cam1"]).into()
    }
}

impl ToSchema for Named {}

impl FromRequestParts<App> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let unknown =
            |e: &dyn std::fmt::Display| Refusal::new(StatusCode::NOT_FOUND, e.to_string());
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(name) = path.map_err(|e| unknown(&e))?;
        let name = name
            .parse()
            .map_err(|e: sfu_engine::NameError| unknown(&e))?;
        Ok(Self(name))
    }
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::signaller) struct Part {
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Those behind this one: `next` of the part before.
    after: Option<String>,
}

/// Why a part can't be had.
impl Part {
    fn limit(&self) -> Result<usize, Refusal> {
        match self.limit {
            None => Ok(LIMIT),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(_) => {
                let message = format!("limit is from 1 to {LIMIT_MAX}");
                Err(Refusal::new(StatusCode::BAD_REQUEST, message))
            }
        }
    }

    /// The name that it is behind.
    pub(super) fn is_behind(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
    }

    /// The number that `after` is, as large as the description says (`int64`).
    pub(super) fn after(&self) -> Result<Option<u64>, Refusal> {
        let read = |text: &String| {
            let number = text.parse().ok().filter(|n| i64::try_from(*n).is_ok());
            number.ok_or_else(|| {
                let message = "after is a number: what next was, in the part before";
                Refusal::new(StatusCode::BAD_REQUEST, message)
            })
        };
        self.after.as_ref().map(read).transpose()
    }

    /// That part of what is behind `after`, each with its name.
    pub(super) fn of<T>(
        &self,
        behind: impl Iterator<Item = (String, T)>,
    ) -> Result<List<T>, Refusal> {
        let limit = self.limit()?;
        let mut behind = behind.peekable();
        let mut list = List {
            items: Vec::new(),
            next: None,
        };
        while list.items.len() < limit
            && let Some((name, item)) = behind.next()
        {
            list.items.push(item);
            list.next = behind.peek().is_some().then_some(name);
        }
        Ok(list)
    }
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::signaller) struct List<T> {
    pub(super) items: Vec<T>,
    /// `after` of the next part; null where this is the last one.
    pub(super) next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        for total in [0, 1, 3, 4, 100] {
            for limit in [1, 3, 100] {
                let (mut seen, mut after) = (Vec::new(), None::<String>);
                loop {
                    let part = Part {
                        limit: Some(limit),
                        after,
                    };
                    let from = part.after().unwrap().map_or(0, |n| n + 1);
                    let all = (from..total).map(|n| (n.to_string(), n));
                    let list = part.of(all).unwrap();
                    assert!(list.items.len() <= limit);
                    seen.extend(list.items);
                    after = list.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(seen, (0..total).collect::<Vec<_>>());
            }
        }
        for limit in [0, LIMIT_MAX + 1] {
            let part = Part {
                limit: Some(limit),
                after: None,
            };
            assert!(part.of([(String::new(), 1)].into_iter()).is_err());
        }
    }
}
