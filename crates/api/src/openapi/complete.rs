//! What holds for many routes, added to their description in one place: how they are refused, which
//! headers they take, and whether a body may be left out.
//!
//! A route describes what is its own, refusals included where it has something to say about them;
//! what it says stays. `tests/it/documented.rs` asks the server whether all of this is true.

use std::collections::BTreeMap;

use utoipa::ToSchema as _;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};

use crate::problem::{MEDIA_TYPE, ProblemDocument};

/// Where schemas stand.
const SCHEMAS: &str = "#/components/schemas/";

/// Routes that ask for no scope: whoever is known may call them.
const WITHOUT_SCOPE: &[&str] =
    &["/auth/me", "/pipelines/validate", "/schedules/preview", "/tools", "/tools/{address}"];

/// POSTs that take no notice of `Idempotency-Key`: a repetition doubles nothing.
const WITHOUT_KEY: &[&str] = &["/auth/token", "/pipelines/validate", "/schedules/preview"];

/// Completes the description of all routes.
pub fn complete(description: &mut OpenApi) {
    let schemas = description.components.as_ref().map(|all| all.schemas.clone());
    let schemas = schemas.unwrap_or_default();
    for (path, item) in &mut description.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(name(method, path));
            if method == "post" && !WITHOUT_KEY.contains(&path.as_str()) {
                operation.parameters.get_or_insert_default().push(idempotency_key().into());
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && may_be_left_out(body, &schemas)
            {
                body.required = Some(Required::False);
            }
            refuse(path, operation);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let of_methods = [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ];
    of_methods.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// A name of its own for every operation, from its method and path: `post_tasks_by_id_pause`.
fn name(method: &str, path: &str) -> String {
    let words: Vec<_> = path
        .split('/')
        .filter(|word| !word.is_empty())
        .map(|word| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
            Some(parameter) => format!("by_{parameter}"),
            None => word.replace(['.', '-'], "_").replace(['{', '}'], ""),
        })
        .collect();
    let words = if words.is_empty() { "root".to_owned() } else { words.join("_") };
    format!("{method}_{words}")
}

fn idempotency_key() -> Parameter {
    let max = orchestrator_engine::store::idempotency::KEY_MAX;
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Sent again with the same key, the request gets the first answer again."))
        .schema(Some(text.max_length(Some(max))))
        .build()
}

/// Whether `{}`, which no body counts as, is of the body's schema.
fn may_be_left_out(body: &RequestBody, schemas: &BTreeMap<String, RefOr<Schema>>) -> bool {
    let fits = |content: &RefOr<Content>| {
        let RefOr::T(content) = content else { return false };
        let Some(RefOr::Ref(named)) = &content.schema else { return false };
        let name = named.ref_location.strip_prefix(SCHEMAS).unwrap_or_default();
        matches!(schemas.get(name), Some(RefOr::T(Schema::Object(object)))
            if object.required.is_empty() && object.min_properties.is_none())
    };
    body.content.values().all(fits)
}

/// Adds the refusals that the operation says nothing about, and gives all of them the form that
/// [`crate::frame`] sends them in.
fn refuse(path: &str, operation: &mut Operation) {
    for (status, description) in refusals(path, operation) {
        let status = status.to_string();
        let refusal = || ResponseBuilder::new().description(description).build().into();
        operation.responses.responses.entry(status).or_insert_with(refusal);
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && is_problem(response)
        {
            let content = Content::new(Some(Ref::from_schema_name(ProblemDocument::name())));
            response.content = [(MEDIA_TYPE.to_owned(), content.into())].into_iter().collect();
        }
    }
}

/// Whether it is a problem document, or says nothing of its form. The reports of `/health` are none.
fn is_problem(response: &Response) -> bool {
    let place = format!("{SCHEMAS}{}", ProblemDocument::name());
    response.content.values().all(|content| {
        matches!(content, RefOr::T(Content { schema: Some(RefOr::Ref(named)), .. })
            if named.ref_location == place)
    })
}

/// How a route of this kind may be refused, whatever it does.
fn refusals(path: &str, operation: &Operation) -> Vec<(u16, &'static str)> {
    // The few public routes say so; the others are behind the key.
    let is_private = operation.security.is_none();
    let has_body = operation.request_body.is_some();
    let takes = |header: &str| {
        operation.parameters.iter().flatten().any(|parameter| {
            matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Header, name, .. })
                if name == header)
        })
    };
    let mut refusals = Vec::new();
    if is_private {
        refusals.extend([
            (401, "Nothing says who you are, or it is unknown, revoked or expired."),
            (429, "Too many requests; `Retry-After` says when to come again."),
        ]);
    }
    if is_private && !WITHOUT_SCOPE.contains(&path) {
        refusals.push((403, "You may not do that; a scope that is missing is named."));
    }
    if has_body {
        refusals.extend([
            (413, "The body is too large."),
            (415, "The body has another media type."),
            (422, "What is wrong, with pointers."),
        ]);
    }
    if is_private || has_body {
        refusals.extend([
            (400, "A parameter, a header or the form of the body is wrong."),
            (500, "The server failed; the `request_id` finds it in the logs."),
            (503, "Not now: send it again after `Retry-After`."),
        ]);
    }
    if path.contains('{') {
        refusals.push((404, "None, or not yours."));
    }
    if takes("Idempotency-Key") {
        refusals.push((409, "The `Idempotency-Key` was used for another request."));
    }
    if takes("If-Match") {
        refusals.push((412, "Changed meanwhile; `ETag` says which version it is at."));
    }
    refusals
}
