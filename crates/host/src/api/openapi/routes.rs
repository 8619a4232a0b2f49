use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::on;
use serde_json::Value;

use super::document;
use super::operation::{Described, Method, Operation};
use super::part::Arguments;
use crate::api::pace;

/// Routes with their descriptions.
#[derive(Debug)]
pub(in crate::api) struct Routes<S> {
    router: Router<S>,
    described: Vec<Described>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(in crate::api) fn new() -> Self {
        Self { router: Router::new(), described: Vec::new() }
    }

    pub(in crate::api) fn get<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        self.on(Method::Get, path, handler, operation)
    }

    pub(in crate::api) fn post<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        self.on(Method::Post, path, handler, operation)
    }

    pub(in crate::api) fn put<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        self.on(Method::Put, path, handler, operation)
    }

    pub(in crate::api) fn patch<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        self.on(Method::Patch, path, handler, operation)
    }

    pub(in crate::api) fn delete<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        self.on(Method::Delete, path, handler, operation)
    }

    fn on<H, T>(mut self, method: Method, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Arguments + 'static,
    {
        let mut served = on(method.filter(), handler);
        if let Some(costs) = operation.cost() {
            served =
                served.layer(from_fn(move |request: Request, next: Next| pace::ask(costs, request, next)));
        }
        self.router = self.router.route(path, served);
        self.described.push(Described { method, path, takes: T::describe, operation });
        self
    }

    /// What serves them.
    pub(in crate::api) fn into_router(self) -> Router<S> {
        self.router
    }

    /// What describes them, together with `files` that are served beside them: path and type each.
    pub(in crate::api) fn document(
        &self,
        files: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Value {
        document::document(&self.described, files)
    }
}
