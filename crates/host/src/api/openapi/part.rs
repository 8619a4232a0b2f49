use axum::extract::State;
use axum::http::HeaderMap;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::schemas::Schemas;

/// What a handler takes of a request: parameters and body as an operation of OpenAPI has them.
#[derive(Debug)]
pub(in crate::api) struct Taken<'a> {
    schemas: &'a mut Schemas,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
}

impl<'a> Taken<'a> {
    pub(super) fn new(schemas: &'a mut Schemas) -> Self {
        Self { schemas, parameters: Vec::new(), body: None }
    }

    /// The part `name` of the path.
    pub(in crate::api) fn path<T: JsonSchema>(&mut self, name: &str) {
        let schema = self.schemas.given::<T>();
        self.parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }

    /// The members of `T`, each as a parameter of the query.
    pub(in crate::api) fn query<T: JsonSchema>(&mut self) {
        for member in self.schemas.members::<T>() {
            let mut parameter = json!({
                "name": member.name,
                "in": "query",
                "required": member.required,
                "schema": member.schema,
            });
            if let Some(about) = member.about {
                parameter["description"] = about;
            }
            self.parameters.push(parameter);
        }
    }

    /// The header `name`, which may be absent.
    pub(in crate::api) fn header<T: JsonSchema>(&mut self, name: &str, about: &str) {
        let schema = self.schemas.given::<T>();
        self.parameters.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
    }

    /// A body of JSON.
    pub(in crate::api) fn body<T: JsonSchema>(&mut self) {
        let schema = self.schemas.given::<T>();
        self.body = Some(json!({"required": true, "content": {"application/json": {"schema": schema}}}));
    }
}

/// An argument of a handler.
pub(in crate::api) trait Part {
    /// Adds the part of a request that the argument is made of.
    fn describe(taken: &mut Taken<'_>);
}

impl<S> Part for State<S> {
    fn describe(_: &mut Taken<'_>) {}
}

/// For `Accept` only: an operation says which types it answers with.
impl Part for HeaderMap {
    fn describe(_: &mut Taken<'_>) {}
}

impl<T: Part, E> Part for Result<T, E> {
    fn describe(taken: &mut Taken<'_>) {
        T::describe(taken);
    }
}

/// All arguments of a handler, in the form in which axum has them.
pub(in crate::api) trait Arguments {
    /// Adds what each is made of.
    fn describe(taken: &mut Taken<'_>);
}

impl Arguments for ((),) {
    fn describe(_: &mut Taken<'_>) {}
}

macro_rules! arguments {
    ($($part:ident),*) => {
        impl<M, $($part: Part),*> Arguments for (M, $($part,)*) {
            fn describe(taken: &mut Taken<'_>) {
                $($part::describe(taken);)*
            }
        }
    };
}

arguments!(A);
arguments!(A, B);
arguments!(A, B, C);
arguments!(A, B, C, D);
arguments!(A, B, C, D, E);
