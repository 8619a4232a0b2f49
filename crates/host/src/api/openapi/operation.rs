use axum::routing::MethodFilter;
use plimsoll_protocol::api::UNSAVED_HEADER;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::part::Taken;
use super::schemas::Schemas;
use crate::api::answer::ErrorKind;

/// A method and a path, and what is said of them.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What the handler takes of a request.
    pub(super) takes: fn(&mut Taken<'_>),
    pub(super) operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    pub(super) fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// Errors of all operations.
const COMMON: [ErrorKind; 6] = [
    ErrorKind::Invalid,
    ErrorKind::Unauthorized,
    ErrorKind::Late,
    ErrorKind::TooLong,
    ErrorKind::Internal,
    ErrorKind::Busy,
];
/// Errors of operations that change something.
const OF_CHANGES: [ErrorKind; 2] = [ErrorKind::Forbidden, ErrorKind::TooOften];
/// The name of the answer to a head that is too long, which has no body.
pub(super) const LONG_HEAD: &str = "long-head";

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Tag {
    Host,
    Vms,
    Pools,
    Page,
}

impl Tag {
    pub(super) const ALL: [Self; 4] = [Self::Host, Self::Vms, Self::Pools, Self::Page];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vms => "vms",
            Self::Pools => "pools",
            Self::Page => "page",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Host => "The host: its memory, why it is divided so, what was and what happens.",
            Self::Vms => "Virtual machines.",
            Self::Pools => "Resource pools.",
            Self::Page => "The files of the web page. They need no token.",
        }
    }
}

/// What a route does, answers and refuses.
#[derive(Debug)]
pub(in crate::api) struct Operation {
    tag: Tag,
    /// Its name in generated clients.
    id: &'static str,
    summary: &'static str,
    about: Option<&'static str>,
    contents: Vec<Content>,
    tagged: bool,
    /// `None`: it costs nothing.
    cost: Option<u32>,
    refusals: &'static [ErrorKind],
}

/// One form of an answer.
#[derive(Debug)]
struct Content {
    media: &'static str,
    schema: fn(&mut Schemas) -> Value,
    /// The schema is that of each event's data.
    events: bool,
}

impl Operation {
    /// An operation that answers without a body.
    pub(in crate::api) fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self { tag, id, summary, about: None, contents: Vec::new(), tagged: false, cost: None, refusals: &[] }
    }

    /// More than the summary says.
    pub(in crate::api) fn about(mut self, about: &'static str) -> Self {
        self.about = Some(about);
        self
    }

    /// It answers with a `T`.
    pub(in crate::api) fn json<T: JsonSchema>(self) -> Self {
        self.content("application/json", Schemas::answered::<T>, false)
    }

    /// It answers with text of this type.
    pub(in crate::api) fn text(self, media: &'static str) -> Self {
        self.content(media, Schemas::answered::<String>, false)
    }

    /// It answers with server-sent events; the data of each is a `T`.
    pub(in crate::api) fn events<T: JsonSchema>(self) -> Self {
        self.content("text/event-stream", Schemas::answered::<T>, true)
    }

    /// Its answer has an `ETag`.
    pub(in crate::api) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// It is a question that takes so much of the daemon that clients ask it at a pace
    /// ([`crate::api::pace`]). The unit is the status of all VMs; the state of one VM costs
    /// nothing.
    pub(in crate::api) fn costs(mut self, cost: u32) -> Self {
        self.cost = Some(cost);
        self
    }

    /// What the question costs; `None`: nothing.
    pub(super) fn cost(&self) -> Option<u32> {
        self.cost
    }

    fn content(mut self, media: &'static str, schema: fn(&mut Schemas) -> Value, events: bool) -> Self {
        self.contents.push(Content { media, schema, events });
        self
    }

    /// Errors that it has beside those of all operations.
    pub(in crate::api) fn refuses(mut self, refusals: &'static [ErrorKind]) -> Self {
        self.refusals = refusals;
        self
    }
}

impl Described {
    /// As an operation of OpenAPI.
    pub(super) fn described(&self, schemas: &mut Schemas) -> Value {
        let Operation { tag, id, summary, about, .. } = &self.operation;
        let mut taken = Taken::new(schemas);
        (self.takes)(&mut taken);
        let Taken { parameters, body, .. } = taken;
        let mut operation = json!({
            "tags": [tag.word()],
            "operationId": id,
            "summary": summary,
            "responses": self.answers(schemas),
        });
        if let Some(about) = about {
            operation["description"] = json!(about);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        operation
    }

    fn answers(&self, schemas: &mut Schemas) -> Value {
        let changes = self.method != Method::Get;
        let of_changes = OF_CHANGES.iter().filter(|_| changes);
        let of_costly = self.operation.cost().map(|_| &ErrorKind::TooOften);
        let refusals = COMMON.iter().chain(of_changes).chain(of_costly).chain(self.operation.refusals);
        let mut answers: Map<String, Value> =
            refusals.map(|kind| (kind.status().as_u16().to_string(), refers_to(kind.word()))).collect();
        answers.insert("431".to_owned(), refers_to(LONG_HEAD));
        let contents = &self.operation.contents;
        let mut success = if contents.is_empty() {
            json!({"description": "It is done. The answer has no body."})
        } else {
            let contents =
                contents.iter().map(|content| (content.media.to_owned(), content.described(schemas)));
            json!({"description": "It is done.", "content": Map::from_iter(contents)})
        };
        if changes {
            success["headers"] = json!({UNSAVED_HEADER: {"$ref": "#/components/headers/unsaved"}});
        }
        if self.operation.tagged {
            success["headers"]["ETag"] = json!({"$ref": "#/components/headers/tag"});
        }
        answers.insert(if contents.is_empty() { "204" } else { "200" }.to_owned(), success);
        answers.into()
    }
}

impl Content {
    fn described(&self, schemas: &mut Schemas) -> Value {
        let schema = (self.schema)(schemas);
        if !self.events {
            return json!({"schema": schema});
        }
        let about = "Server-sent events. `x-event-data` is the schema of each event's data, which is JSON.";
        json!({"schema": {"type": "string", "description": about}, "x-event-data": schema})
    }
}

fn refers_to(answer: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{answer}")})
}
