//! Who may call, and what.

use crate::id::AgentId;

/// Every scope the system itself asks for. Tools may ask for more ([`crate::tool::ToolSpec::scope`]),
/// as `tool:<server>`; a secret asks for `secret:<NAME>`.
pub const SCOPES: &[&str] = &[
    "tasks:read",
    "tasks:write",
    "runs:read",
    "runs:write",
    "events:publish",
    "events:read",
    "agents:admin",
    "audit:read",
    "admin",
];

/// An agent, as far as every request needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name, unique.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

impl Agent {
    /// Whether the agent may do what needs `scope`. `admin` may do everything; a scope that ends in
    /// `:*` stands for all of its kind.
    #[must_use]
    pub fn may(&self, scope: &str) -> bool {
        grants(&self.scopes, scope)
    }

    /// Whether the agent sees and changes the objects of all agents.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.may("admin")
    }
}

/// Whether `held` contains `wanted`, by name, by wildcard or by `admin`.
#[must_use]
pub fn grants(held: &[String], wanted: &str) -> bool {
    held.iter().any(|scope| {
        scope == "admin"
            || scope == wanted
            || scope
                .strip_suffix('*')
                .is_some_and(|kind| kind.ends_with(':') && wanted.starts_with(kind))
    })
}

/// What is wrong with the name of a scope, if anything.
///
/// # Errors
///
/// A sentence that says which scopes there are.
pub fn check_scope(scope: &str) -> Result<(), String> {
    let named = |kind: &str| scope.strip_prefix(kind).is_some_and(|name| !name.is_empty());
    if SCOPES.contains(&scope) || named("tool:") || named("secret:") {
        return Ok(());
    }
    let hint = crate::problem::nearest(scope, SCOPES.iter().copied())
        .map_or_else(String::new, |near| format!(" Did you mean {near:?}?"));
    Err(format!(
        "unknown scope {scope:?}.{hint} Scopes are {}, tool:<server> and secret:<NAME>.",
        SCOPES.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_granted_by_name_by_kind_or_by_admin() {
        let held = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();

        assert!(grants(&held(&["tasks:read"]), "tasks:read"));
        assert!(!grants(&held(&["tasks:read"]), "tasks:write"));
        assert!(grants(&held(&["tool:*"]), "tool:http"));
        assert!(!grants(&held(&["*"]), "tool:http"), "a bare star grants nothing");
        assert!(grants(&held(&["admin"]), "agents:admin"));
    }
}
