//! The description of the API as OpenAPI 3.1, made of the routes that serve it.
//!
//! [`Routes`] takes a handler and its [`Operation`] in one call, so no route lacks a description
//! and nothing is described that is not served. What a handler takes of a request (names in the
//! path, query, headers, body) is described by the types of its arguments ([`Part`]). What it
//! answers is stated in the operation; the tests compare every answer that they get with that. The
//! schemas are made of the types that are read and written ([`schemas`]).

mod document;
mod operation;
mod part;
mod routes;
mod schemas;
mod tidy;

pub(super) use self::operation::{Operation, Tag};
pub(super) use self::part::{Part, Taken};
pub(super) use self::routes::Routes;
